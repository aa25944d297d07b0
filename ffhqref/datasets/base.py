"""What a data set is: images with ids, and what is known about them from outside."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.images import EXTENSIONS


@dataclass(frozen=True)
class Credit:
    """Whose image it is and what may be done with it; empty where the source does not say."""

    author: str = ""
    licence: str = ""
    licence_url: str = ""
    source_url: str = ""


@dataclass(frozen=True)
class Dataset:
    """Images of faces under one root.

    No image has been opened yet: a file that turns out to be unreadable becomes a row with a reason later.
    """

    name: str
    root: Path
    files: Mapping[str, str]
    """Unique id (file stem, or folders and stem) to path relative to the root, with forward slashes, sorted by id."""
    aligned: bool = True
    """Aligned the FFHQ way; otherwise faces are detected and aligned first."""
    told_aligned: bool = True
    """Somebody said so; otherwise some images are looked at first."""
    ages: Mapping[str, float] = field(default_factory=dict)
    """image_id to age in years, where an outside source tells it."""
    age_source: str = ""
    truth: Mapping[str, str] = field(default_factory=dict)
    """image_id to true identity; the builder sees it with ``build.identity=truth`` only."""
    licence: str = ""
    attribution: str = ""
    credits: Mapping[str, Credit] = field(default_factory=dict)
    """image_id to author and licence, where each image has its own."""
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Column to image_id to text: gender, pose and whatever else a table tells."""
    remarks: tuple[str, ...] = ()
    """What a user must know about these files, for instance that some of the published ones are missing."""


@dataclass(frozen=True)
class Listing:
    """The images below a folder, and what else lies there."""

    files: dict[str, str]
    """Image id to relative path with forward slashes, sorted by id."""
    remarks: tuple[str, ...] = ()
    """One line that counts the entries that are not taken; empty where all are."""


def list_images(
    root: Path,
    what: str,
    remedy: str,
    name: Callable[[Path], str] = lambda relative: relative.stem,
    *,
    or_by_path: bool = False,
) -> Listing:
    """Return every image below ``root``, hidden files and linked folders left out.

    A link that leads nowhere is listed: it becomes a row with a reason, as every image that cannot be read.

    Args:
        root: the folder.
        what: is looked for, for messages.
        remedy: what to do when it is not there.
        name: makes the id from a path relative to ``root``; its stem by default.
        or_by_path: make every id with `id_of_path` where two images would share one, and say so.

    Raises:
        DatasetError: the folder is absent, no folder, holds no image, two images share an id, or a name is no UTF-8
            or holds control characters.
    """
    if not root.exists():
        raise DatasetError(f"{what}: no such folder: {root}; {remedy}")
    if not root.is_dir():
        raise DatasetError(f"{what}: not a folder: {root}; {remedy}")
    found: dict[str, str] = {}
    paths, left = _walk(root)
    remarks: tuple[str, ...] = ()
    names = Counter(name(path) for path in paths) if or_by_path else Counter[str]()
    shared = min((key for key, count in names.items() if count > 1), default=None)
    if shared is not None:
        name = id_of_path
        remarks = (f"{what}: several images are called '{shared}': ids are made of folders and names, FOLDER_NAME",)
    for relative in sorted(paths, key=Path.as_posix):
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in relative.as_posix()):
            raise DatasetError(
                f"{what}: the file name {relative.as_posix()!a} in {root} is no UTF-8 or holds control characters, "
                "which tables cannot hold: rename it"
            )
        image_id = name(relative)
        if image_id in found:
            raise DatasetError(
                f"{what}: two images have the id '{image_id}': {found[image_id]} and {relative.as_posix()} in "
                f"{root}; an id is made of the file name without its ending and must be unique: rename one of them"
            )
        found[image_id] = relative.as_posix()
    told = _left_out(left)
    if not found:
        raise DatasetError(f"{what}: no image ({', '.join(EXTENSIONS)}) in {root}{told and f', only {told}'}; {remedy}")
    remarks += (f"{what}: not taken from {root}: {told}",) if told else ()
    return Listing(dict(sorted(found.items())), remarks)


def id_of_path(relative: Path) -> str:
    """Return an id that keeps the folders: it names files, so it holds no slash.

    >>> id_of_path(Path("kim/2010/000.png"))
    'kim_2010_000'
    """
    return "_".join([*relative.parent.parts, relative.stem])


def _walk(root: Path) -> tuple[list[Path], dict[str, list[str]]]:
    """Return the images below a folder, and every other entry by what it is."""
    images: list[Path] = []
    left: dict[str, list[str]] = {}

    def closed(error: OSError) -> None:
        left.setdefault("closed folder", []).append(Path(error.filename).relative_to(root).as_posix())

    for folder, folders, files in os.walk(root, onerror=closed):
        here, inner = Path(folder), set(folders)
        for entry in [*folders, *files]:
            path = here / entry
            relative = path.relative_to(root)
            kind = None
            if entry.startswith("."):
                kind = "hidden folder" if entry in inner else "hidden file"
            elif entry in inner:
                kind = "linked folder" if path.is_symlink() else None
            elif path.suffix.lower() not in EXTENSIONS:
                kind = path.suffix.lower() or "file without ending"
            elif path.is_file() or not path.exists():
                images.append(relative)
            else:
                kind = "special file"
            if kind:
                left.setdefault(kind, []).append(relative.as_posix())
        folders[:] = [entry for entry in folders if not entry.startswith(".")]
    return images, left


def _left_out(left: Mapping[str, list[str]]) -> str:
    """Return in words which entries were not taken, the most frequent kind first."""
    kinds = sorted(left.items(), key=lambda item: (-len(item[1]), item[0]))
    return ", ".join(f"{len(paths)} {kind} (first {min(paths)!r})" for kind, paths in kinds)


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
    """Return a remark when a data set has not the published numbers, for instance of images and of people."""
    if dict(found) == dict(stated):
        return ()
    here = " of ".join(f"{count} {unit}" for unit, count in found.items())
    there = " of ".join(f"{count} {unit}" for unit, count in stated.items())
    return (f"{what}: {here}, the publication states {there}; state the count with results",)
