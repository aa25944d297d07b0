"""What a data set is: pictures with ids, and what is known about them from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ffhqref.errors import DatasetError
from ffhqref.images import EXTENSIONS


@dataclass(frozen=True)
class Dataset:
    """Pictures of faces under one root.

    No picture has been opened yet: a file that turns out to be unreadable becomes a row with a reason later.
    """

    name: str
    root: Path
    files: Mapping[str, str]
    """image_id (file stem, unique) to path relative to the root, with forward slashes, sorted by id."""
    aligned: bool = True
    """Aligned the FFHQ way; otherwise faces are detected and aligned first."""
    ages: Mapping[str, float] = field(default_factory=dict)
    """image_id to age in years, where an outside source tells it."""
    age_source: str = ""
    truth: Mapping[str, str] = field(default_factory=dict)
    """image_id to true identity, for the agreement score only: builders never see it."""
    licence: str = ""
    attribution: str = ""


def list_images(root: Path, what: str, remedy: str) -> dict[str, str]:
    """Return image_id to relative path for every picture below ``root``, hidden files left out.

    Raises:
        DatasetError: the folder is absent, no folder, holds no picture, or two pictures share a stem.
    """
    if not root.exists():
        raise DatasetError(f"{what}: no such folder: {root}; {remedy}")
    if not root.is_dir():
        raise DatasetError(f"{what}: not a folder: {root}; {remedy}")
    found: dict[str, str] = {}
    paths = (path for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    for path in sorted(paths, key=lambda path: path.relative_to(root).as_posix()):
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if path.stem in found:
            raise DatasetError(
                f"{what}: two pictures have the id '{path.stem}': {found[path.stem]} and {relative.as_posix()} in "
                f"{root}; an id is the file name without its ending and must be unique: rename one of them"
            )
        found[path.stem] = relative.as_posix()
    if not found:
        raise DatasetError(f"{what}: no picture ({', '.join(EXTENSIONS)}) in {root}; {remedy}")
    return dict(sorted(found.items()))
