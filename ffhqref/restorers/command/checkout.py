"""The user's checkout of a method: whether all is there before work starts, and which version of it this is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from ffhqref.errors import ConfigError, WeightsError
from ffhqref.hashing import sha256_file
from ffhqref.restorers.command.recipe import Recipe
from ffhqref.weights import WeightFile, registry, require


def find_interpreter(python: str) -> str:
    """Return the absolute path of an interpreter, links kept: a virtual environment is known by its link.

    Raises:
        ConfigError: there is no such program.
    """
    found = shutil.which(str(Path(python).expanduser()))
    if found is None:
        raise ConfigError(f"python={python}: no such program; name the interpreter of the method's own environment")
    return str(Path(found).absolute())


def find_checkout(checkout: str | Path) -> Path:
    """Return the absolute path of a checkout.

    Raises:
        ConfigError: there is no such folder.
    """
    folder = Path(checkout).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"checkout={checkout}: no such folder; clone the method's repository and name its folder")
    return folder


def hash_weights(recipe: Recipe, root: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of the recipe's weight files by file name.

    Args:
        recipe: names them.
        root: folder that relative names start from.
        values: placeholders of the call.

    Raises:
        WeightsError: one is not there, or changed since its first use.
    """
    hashes = {}
    for template, origin in recipe.weights.items():
        path = root / Path(template.format_map(values)).expanduser()
        known = registry().get(origin)
        if not path.is_file():
            raise WeightsError(f"no weight file {path}: it comes from {known.origin if known else origin}")
        hashes[path.name] = require(WeightFile(origin, path.name), path=path).sha256
    return hashes


def code_state(recipe: Recipe, root: Path, files: list[Path]) -> dict[str, str]:
    """Return what tells this version of the code: the commit, and hashes of the files that are watched.

    Args:
        recipe: its ``watch`` patterns.
        root: the checkout.
        files: further files, such as the scripts that are run.
    """
    watched = {path for pattern in recipe.watch for path in root.glob(pattern) if path.is_file()}
    state = {}
    for path in sorted({*watched, *files}):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        state[name] = sha256_file(path)
    commit = _commit(root)
    return state if commit is None else {"commit": commit, **state}


def _commit(root: Path) -> str | None:
    """Return the commit that is checked out, read from git's own files; None where there are none."""
    git = root / ".git"
    try:
        if git.is_file():  # a worktree or a submodule: "gitdir: PATH"
            git = (root / git.read_text(encoding="utf-8").partition(":")[2].strip()).resolve()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        common = git / "commondir"
        places = [git, git / common.read_text(encoding="utf-8").strip()] if common.is_file() else [git]
        for place in places:
            if (place / name).is_file():
                return (place / name).read_text(encoding="utf-8").strip()
            packed = place / "packed-refs"
            for line in packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []:
                if line.endswith(f" {name}"):
                    return line.split()[0]
    except (OSError, UnicodeDecodeError):
        pass
    return None
