"""Checks a reference set: a workspace's tables, or a downloaded release (``release=FOLDER``)."""

from __future__ import annotations

import sys
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.core.errors import ConfigError
from ffhqref.core.images import write_atomic
from ffhqref.reference_sets.release import read_release, release_tables
from ffhqref.reference_sets.validate import Limits, validate_reference_set
from ffhqref.store.tables import read_metadata
from ffhqref.store.workspace import Workspace, plain

from ._common import check_integer, embeddings_of, rows_of
from ._kinds import check_kinds
from .build import dataset_of

if TYPE_CHECKING:
    import pandas as pd


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status: 1 when anything was found."""
    settings = plain(config)
    check_kinds(settings)
    check_integer(settings["validate"], "first", 0, prefix="validate.")
    csv = settings["validate"]["csv"]
    if csv is not None and Path(csv).expanduser().is_dir():
        raise ConfigError(f"validate.csv={csv}: a folder; expected a file to write")
    known: dict[str, Any] = {}
    limits = settings["build"]
    root = Path(str(settings["root"])).expanduser()
    workspace = Workspace(root, read_only=True) if (root / "tables").is_dir() or not settings["release"] else None
    if settings["release"]:
        identities, references = release_tables(read_release(Path(settings["release"]).expanduser()))
        known["images"] = _files(settings, set(identities["image_id"]))
    else:
        assert workspace is not None
        identities, references = workspace.read("identities"), workspace.read("references")
        limits = read_metadata(workspace.root, "references")["config"]
    if workspace is not None and workspace.has("images"):
        images = workspace.read("images")
        name = read_metadata(workspace.root, "images")["dataset"]["name"]
        if _meant(name, set(images["image_id"]), set(identities["image_id"])):
            there = {
                row.image_id for row in rows_of(images) if row.error is None and workspace.image(row.path).is_file()
            }
            known["images"] = there if known.get("images") is None else known["images"]
            known["sha256"] = dict(zip(images["image_id"], images["sha256"], strict=True))
            known["pairs"] = workspace.read("pairs") if workspace.has("pairs") else None
            known["embeddings"] = embeddings_of(workspace) if workspace.has("embeddings") else None
    keys = ("max_distance", "min_distance", "min_references", "max_references")
    found = validate_reference_set(identities, references, Limits(**{key: limits[key] for key in keys}), **known)
    _print(found, references, known, settings["validate"])
    return int(not found.empty)


def _files(settings: dict[str, Any], listed: Set[str]) -> Set[str] | None:
    """Return the pictures of the data set of the config; None if it is not meant."""
    dataset = dataset_of(settings["dataset"])[0]
    return dataset.files.keys() if _meant(dataset.name, dataset.files.keys(), listed) else None


def _meant(name: str, files: Set[str], listed: Set[str]) -> bool:
    """Whether a reference set can be of a data set; the sample, every default, has ids that FFHQ has too."""
    return listed <= files if name == "sample" else bool(listed & files)


def _print(found: pd.DataFrame, references: pd.DataFrame, known: dict[str, Any], options: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("severity", "check", "count", "split", "image", "other", "what"):
        table.add_column(column, overflow="fold")
    for (severity, check), group in found.groupby(["severity", "check"]):
        for place, row in enumerate(rows_of(group.head(options["first"]))):
            kind = (severity, check, f"{len(group):,}") if place == 0 else ("", "", "")
            cells = (*kind, row.split or "", row.image_id, row.other_id or "", row.detail)
            table.add_row(*map(Text, cells))
    if len(found):
        Console(width=None if sys.stdout.isatty() else 160).print(table)
    if options["csv"]:
        write_atomic(Path(options["csv"]).expanduser(), found.to_csv(index=False, lineterminator="\n").encode())
    words = {"images": "files", "sha256": "duplicates", "pairs": "near images across splits", "embeddings": "distances"}
    checked = ["lists", *(word for key, word in words.items() if known.get(key) is not None)]
    left = [word for key, word in words.items() if known.get(key) is None]
    errors = int((found["severity"] == "error").sum())
    sys.stdout.write(
        f"{references['target_id'].nunique()} targets with {len(references)} references: {errors} errors, "
        f"{len(found) - errors} warnings\nchecked: {', '.join(checked)}"
        + (f"; not checked: {', '.join(left)} (build the set's workspace first, see root=)\n" if left else "\n")
    )


if __name__ == "__main__":
    sys.exit(launch("validate"))
