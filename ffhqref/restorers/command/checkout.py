"""The user's checkout of a method: whether all is there before work starts, and which version of it this is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.hashing import sha256_file
from ffhqref.weights.files import WeightFile, registry, require

if TYPE_CHECKING:
    from ffhqref.restorers.command.recipe import Recipe


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
    """Return the SHA-256 of the recipe's weight files, by their names in the recipe.

    Args:
        recipe: names them.
        root: folder that relative names start from.
        values: placeholders of the call.

    Raises:
        WeightsError: one is not there.
    """
    hashes = {}
    for template, origin in recipe.weights.items():
        path = root / Path(template.format_map(values)).expanduser()
        known = registry().get(origin)
        if not path.is_file():
            raise WeightsError(f"no weight file {path}: it comes from {known.origin if known else origin}")
        hashes[template] = require(WeightFile(origin, path.name), path=path).sha256
    return hashes


def code_state(recipe: Recipe, root: Path, files: list[Path]) -> dict[str, str]:
    """Return what tells this version of the code: the commit, and hashes of the files that are watched.

    Files of the checkout are told by their names in it, others by their contents alone.

    Args:
        recipe: its ``watch`` patterns.
        root: the checkout.
        files: further files, such as the scripts that are run.

    Raises:
        ConfigError: no file is as its patterns say, and a change of the code would not be seen.
    """
    watched = {path for pattern in recipe.watch for path in root.glob(pattern) if path.is_file()}
    if recipe.watch and not watched:
        raise ConfigError(f"recipe: watch: no file in {root} matches {', '.join(recipe.watch)}")
    inside = {path for path in {*watched, *files} if path.is_relative_to(root)}
    state: dict[str, Any] = {path.relative_to(root).as_posix(): sha256_file(path) for path in sorted(inside)}
    outside = sorted(sha256_file(path) for path in {*files} - inside)
    if outside:
        state["outside"] = outside
    commit = _commit(root)
    return state if commit is None else {"commit": commit, **state}


def environment_state(python: str | None) -> list[str] | None:
    """Return what tells an interpreter's environment wherever it lies: the version and the packages in it.

    The path takes their place where nothing can be read from the folders, as with a wrapper script.
    """
    if python is None:
        return None
    prefix = Path(python).parent.parent
    found = prefix.glob("lib*/python*/*-packages/*")
    packages = {
        f"{path.parent.parent.name}/{path.name}" for path in found if path.suffix in (".dist-info", ".egg-info")
    }
    return sorted(packages) or [python]


def _commit(root: Path) -> str | None:
    """Return the commit that is checked out; None where there is none, or no git."""
    command = ["git", f"--git-dir={root / '.git'}", "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
