"""What a data set is: pictures with ids, and what is known about them from outside."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.images import EXTENSIONS


@dataclass(frozen=True)
class Credit:
    """Whose picture it is and what may be done with it; empty where the source does not say."""

    author: str = ""
    licence: str = ""
    licence_url: str = ""
    source_url: str = ""


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
    credits: Mapping[str, Credit] = field(default_factory=dict)
    """image_id to author and licence, where each picture has its own."""
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Column to image_id to text: gender, pose and whatever else a table tells."""
    remarks: tuple[str, ...] = ()
    """What a user must know about these files, for instance that some of the published ones are missing."""


def list_images(
    root: Path, what: str, remedy: str, name: Callable[[Path], str] = lambda relative: relative.stem
) -> dict[str, str]:
    """Return image_id to relative path for every picture below ``root``, hidden files left out.

    A link that leads nowhere is listed: it becomes a row with a reason, as every picture that cannot be read.

    Args:
        root: the folder.
        what: is looked for, for messages.
        remedy: what to do when it is not there.
        name: makes the id from a path relative to ``root``; its stem by default.

    Raises:
        DatasetError: the folder is absent, no folder, holds no picture, two pictures share an id, or a name is no
            UTF-8 or holds control characters.
    """
    if not root.exists():
        raise DatasetError(f"{what}: no such folder: {root}; {remedy}")
    if not root.is_dir():
        raise DatasetError(f"{what}: not a folder: {root}; {remedy}")
    found: dict[str, str] = {}
    paths = (path for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS and _is_file_or_dead_link(path))
    for path in sorted(paths, key=lambda path: path.relative_to(root).as_posix()):
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in relative.as_posix()):
            raise DatasetError(
                f"{what}: the file name {relative.as_posix()!a} in {root} is no UTF-8 or holds control characters, "
                "which tables cannot hold: rename it"
            )
        image_id = name(relative)
        if image_id in found:
            raise DatasetError(
                f"{what}: two pictures have the id '{image_id}': {found[image_id]} and {relative.as_posix()} in "
                f"{root}; an id is made of the file name without its ending and must be unique: rename one of them"
            )
        found[image_id] = relative.as_posix()
    if not found:
        raise DatasetError(f"{what}: no picture ({', '.join(EXTENSIONS)}) in {root}; {remedy}")
    return dict(sorted(found.items()))


def _is_file_or_dead_link(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())


GivenPath: TypeAlias = str | Path | float
"""A path as a config gives it; `given_path` judges it."""


def given_path(value: object, key: str) -> Path:
    """Return the path that a key of the config gives, ``~`` expanded; a number is the name of a folder or file.

    Raises:
        ConfigError: a list, a mapping or a truth value.
    """
    if isinstance(value, bool) or not isinstance(value, (str, Path, int, float)):
        raise ConfigError(f"{key}={value}: expected one path; put quotes around one with special characters")
    return Path(str(value)).expanduser()


def count_remarks(what: str, found: Mapping[str, int], stated: Mapping[str, int]) -> tuple[str, ...]:
    """Return a remark when a data set has not the published numbers, for instance of pictures and of people."""
    if dict(found) == dict(stated):
        return ()
    here = " of ".join(f"{count} {unit}" for unit, count in found.items())
    there = " of ".join(f"{count} {unit}" for unit, count in stated.items())
    return (f"{what}: {here}, the publication states {there}; state the count with results",)
