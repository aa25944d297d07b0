"""Which images of a folder are references of which low-quality image: the layout is found out and told.

FaceMe's real-world sets (LFW-Test-Ref, WebPhoto-Test-Ref, Wider-Test-Ref of ``thomas2modyu/FaceMe`` on the hub) are
three archives whose inner layout is written down nowhere that could be found, and the published ``infer.py`` takes one
folder of references for all inputs. So every plausible layout is read (`LAYOUTS`), and where two fit differently the
user says which one it is. Lists in a CSV are in `ffhqref.cases.reference_list`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ffhqref.core.errors import DatasetError
from ffhqref.datasets.base import list_images

LAYOUTS = {
    "buckets": "FaceMe's synthetic folders, target_pose_i/target_pose_i_j/<stem>.png",
    "folders": "a folder for each image, <stem>/…",
    "names": "files called as the image, <stem>.png, in folders of any name",
    "prefixes": "files that begin with the image's name, <stem>_….png",
}
"""Layouts of a folder, and what each looks like; ``<stem>`` is the low-quality image's file name less its ending."""

_BUCKET = re.compile(r"target_pose_(\d)/target_pose_\1_\d")


@dataclass(frozen=True)
class GivenReferences:
    """References from outside, by low-quality image."""

    layout: str
    """In words, for the log."""
    root: Path
    paths: Mapping[str, tuple[str, ...]]
    """Every low-quality image's name to paths relative to ``root``, rank order; empty where it has none."""
    remarks: tuple[str, ...] = field(default=())
    """One line each: what has no counterpart on the other side."""

    @property
    def without(self) -> list[str]:
        """Low-quality images that have no reference."""
        return [name for name, paths in self.paths.items() if not paths]


def match_folder(
    benchmark: str, names: Collection[str], lq_folder: Path, folder: Path, layout: str | None
) -> GivenReferences:
    """Match the images below a folder to low-quality images.

    Args:
        benchmark: its name, for messages.
        names: stems of the low-quality images.
        lq_folder: where those lie, for messages.
        folder: of references.
        layout: a key of `LAYOUTS`, or None: the one that fits.

    Returns:
        References in the order of their paths, numbers in them by value.

    Raises:
        DatasetError: no such folder, an empty one, no match at all, two layouts that fit differently, or images that
            could belong to several low-quality ones.
    """
    what, key = f"benchmark '{benchmark}'", f"benchmark.{benchmark}"
    listing = list_images(folder, what, f"set {key}.reference_folder", lambda path: path.as_posix())
    files = sorted(listing.files, key=by_number)
    wanted = frozenset(names)
    claims = {name: _claims(files, wanted, _CLAIMANTS[name]) for name in LAYOUTS}
    chosen = layout or _fitting(claims, what, key)
    mine = claims[chosen]
    if not mine:
        raise DatasetError(
            f"{what}: none of the {len(files)} reference images in {folder} belongs to one of the {len(names)} "
            f"low-quality images in {lq_folder}{f' in the layout {layout}' if layout else ''}; here they are called "
            f"{_some(files)}, there {_some(sorted(names, key=by_number))}: rename "
            f"them, or give {key}.reference_list=CSV"
        )
    doubtful = next((path for path, stems in mine.items() if len(stems) > 1), None)
    if doubtful is not None:
        stems = " and ".join(f"'{stem}'" for stem in sorted(mine[doubtful]))
        raise DatasetError(
            f"{what}: {doubtful} in {folder} could belong to the low-quality images {stems} (layout {chosen}: "
            f"{LAYOUTS[chosen]}); sort the references into a folder for each, or give {key}.reference_list=CSV"
        )
    paths: dict[str, list[str]] = {name: [] for name in names}
    for path, (stem,) in mine.items():
        paths[stem].append(path)
    strangers = [path for path in files if path not in mine]
    return GivenReferences(
        layout=f"{chosen} ({LAYOUTS[chosen]})",
        root=folder,
        paths={name: tuple(found) for name, found in paths.items()},
        remarks=(*_strangers(strangers, len(files)), *listing.remarks),
    )


def by_number(text: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts numbers in names by value.

    >>> sorted(["a/10.png", "a/9.png"], key=by_number)
    ['a/9.png', 'a/10.png']
    """
    parts = re.split(r"(\d+)", text)
    return [(index % 2 == 0, int(part) if index % 2 else 0, part) for index, part in enumerate(parts)]


def _strangers(paths: list[str], total: int) -> tuple[str, ...]:
    if not paths:
        return ()
    return (f"{len(paths)} of {total} reference images belong to no low-quality image, first {paths[0]}",)


def _some(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (", …" if len(names) > 3 else "")


Claims = Mapping[str, frozenset[str]]
"""Path of a reference to the low-quality images that it may belong to; paths without any are left out."""


def _claims(
    files: list[str], names: frozenset[str], claimant: Callable[[PurePosixPath, frozenset[str]], set[str]]
) -> Claims:
    found = {path: frozenset(claimant(PurePosixPath(path), names)) for path in files}
    return {path: stems for path, stems in found.items() if stems}


def _in_bucket(path: PurePosixPath, names: frozenset[str]) -> set[str]:
    return _same_name(path, names) if _BUCKET.fullmatch("/".join(path.parts[-3:-1])) else set()


def _in_folder(path: PurePosixPath, names: frozenset[str]) -> set[str]:
    return {part for part in path.parts[:-1] if part in names}


def _same_name(path: PurePosixPath, names: frozenset[str]) -> set[str]:
    return {path.stem} & names


def _begins_with(path: PurePosixPath, names: frozenset[str]) -> set[str]:
    stem = path.stem
    ends = [end for end in range(1, len(stem)) if not stem[end].isalnum()]
    return {stem[:end] for end in [*ends, len(stem)]} & names


_CLAIMANTS = {"buckets": _in_bucket, "folders": _in_folder, "names": _same_name, "prefixes": _begins_with}


def _fitting(claims: Mapping[str, Claims], what: str, key: str) -> str:
    """Return the layout that explains the images: the most special of file names, unless folders explain them."""
    files = next(name for name in ("buckets", "names", "prefixes") if len(claims[name]) == len(claims["prefixes"]))
    by_file, by_folder = claims[files], claims["folders"]
    both = [path for path in by_file if path in by_folder]
    differing = [path for path in both if by_file[path] != by_folder[path]]
    more_folders, more_files = len(by_folder) > len(both), len(by_file) > len(both)
    if not more_files and (more_folders or not differing):
        return "folders" if by_folder else files
    if not more_folders and (more_files or not differing):
        return files
    example = differing[0] if differing else next(path for path in by_file if path not in by_folder)
    raise DatasetError(
        f"{what}: two layouts fit the reference folder differently, folders ({len(by_folder)} images) and {files} "
        f"({len(by_file)}), for instance at {example}; say which with {key}.reference_layout=folders or ={files}, or "
        f"give {key}.reference_list=CSV"
    )
