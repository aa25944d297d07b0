"""ReF-LDM's published files: read in any spelling, written in one.

``reference_mapping/{train,val,test}_references.csv`` has the columns gt_image, [lq_image], ref_image and possibly
weight; ``ref_image`` is a Python list literal of file names. ``id_based_ffhq_split/{train,val,test}_image.txt`` has
one file name a line. Files come from strangers: nothing in them is evaluated, names may not leave their folder, and
every complaint names file and line.
"""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.csv_file import decode_text, parse_csv, read_data
from ffhqref.core.errors import DatasetError
from ffhqref.core.files import write_atomic
from ffhqref.datasets.match import ImageMatcher, without_ending

if TYPE_CHECKING:
    from collections.abc import Sequence

_STRING = r"""(?:'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+")"""
_LIST = re.compile(rf"\s*+\[\s*+(?:{_STRING}\s*+(?:,\s*+{_STRING}\s*+)*+(?:,\s*+)?)?\]\s*+")  # never backtracks
_ITEM = re.compile(_STRING)
_COLUMNS = ("gt_image", "lq_image", "ref_image", "weight")


@dataclass(frozen=True)
class MappingRow:
    """One target of a mapping."""

    gt_image: str
    references: tuple[str, ...]
    lq_image: str | None = None
    weight: str | None = None
    """Sampling weight, as spelled in the file."""
    line: int = field(default=0, compare=False)
    """Line of the file it was read from, 0 for none."""


@dataclass(frozen=True)
class ReferenceMapping:
    """A ``*_references.csv``."""

    rows: tuple[MappingRow, ...]
    columns: tuple[str, ...] = ("gt_image", "lq_image", "ref_image")


@dataclass(frozen=True)
class ImageList:
    """A ``*_image.txt``."""

    images: tuple[str, ...]


def image_id_of(name: str) -> str:
    """Return the image id that a file name in a published list spells: without folder and image ending.

    >>> image_id_of("00000/00042.png"), image_id_of("kim.2010")
    ('00042', 'kim.2010')
    """
    return without_ending(name.rpartition("/")[2])


Known = ImageMatcher | Mapping[str, str] | Collection[str] | None
"""The images that a list may name: a matcher, id to path, or ids alone; None: any name is taken."""


def _matcher(known: Known) -> ImageMatcher | None:
    return known if known is None or isinstance(known, ImageMatcher) else ImageMatcher(known)


def read_mapping(path: str | Path, known: Known = None) -> ReferenceMapping:
    """Read a ``*_references.csv``.

    Args:
        path: the file.
        known: images that exist; any other is refused.

    Raises:
        DatasetError: with file and line, for a file that is missing or no UTF-8, a missing, unknown or doubled
            column, a row of another length, a list cell that is no list of strings, a name that is empty, absolute or
            has ``..``, a target that occurs twice, or an unknown image.
    """
    return parse_mapping(read_data(path), str(path), known)


def parse_mapping(data: bytes, source: str = "mapping", known: Known = None) -> ReferenceMapping:
    """Parse the bytes of a ``*_references.csv``; see `read_mapping`. ``source`` names them in messages."""
    table = parse_csv(data, source)
    columns = _check_header(table.columns, source)
    matcher = _matcher(known)
    rows: list[MappingRow] = []
    seen: dict[str, int] = {}
    for record in table.rows:
        where, row, line = table.where(record), record.cells, record.line
        references = parse_list(row["ref_image"], where)
        names = [row["gt_image"], *([row["lq_image"]] if "lq_image" in row else []), *references]
        for name in names:
            _check_name(name, where)
        for name in (row["gt_image"], *references):
            if matcher is not None and matcher.find(name) is None:
                raise DatasetError(f"{where}: unknown image '{name}'; it is not in the data set")
        target = _meant(row["gt_image"], matcher)
        if target in seen:
            raise DatasetError(f"{where}: target '{row['gt_image']}' is listed in line {seen[target]} already")
        seen[target] = line
        if "weight" in row:
            _check_weight(row["weight"], where)
        rows.append(MappingRow(row["gt_image"], references, row.get("lq_image"), row.get("weight"), line))
    return ReferenceMapping(tuple(rows), columns)


def mapping_bytes(mapping: ReferenceMapping) -> bytes:
    """Return the bytes of a ``*_references.csv``, spelled as pandas spells the published files."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(mapping.columns)
    for row in mapping.rows:
        cells = {
            "gt_image": row.gt_image,
            "lq_image": row.gt_image if row.lq_image is None else row.lq_image,
            "ref_image": repr(list(row.references)),
            "weight": "" if row.weight is None else row.weight,
        }
        writer.writerow([cells[column] for column in mapping.columns])
    return stream.getvalue().encode()


def write_mapping(path: str | Path, mapping: ReferenceMapping) -> None:
    """Write a ``*_references.csv`` atomically."""
    write_atomic(path, mapping_bytes(mapping))


def read_image_list(path: str | Path, known: Known = None) -> ImageList:
    """Read a ``*_image.txt``.

    Raises:
        DatasetError: with file and line, for a bad, doubled, empty or unknown name.
    """
    return parse_image_list(read_data(path), str(path), known)


def parse_image_list(data: bytes, source: str = "image list", known: Known = None) -> ImageList:
    """Parse the bytes of a ``*_image.txt``; see `read_image_list`."""
    lines = re.split(r"\r?\n", decode_text(data, source))
    if not lines[-1]:
        lines.pop()
    matcher = _matcher(known)
    seen: dict[str, int] = {}
    for line, name in enumerate(lines, 1):
        where = f"{source}, line {line}"
        _check_name(name, where)
        if matcher is not None and matcher.find(name) is None:
            raise DatasetError(f"{where}: unknown image '{name}'; it is not in the data set")
        image = _meant(name, matcher)
        if image in seen:
            raise DatasetError(f"{where}: image '{name}' is listed in line {seen[image]} already")
        seen[image] = line
    return ImageList(tuple(lines))


def image_list_bytes(images: ImageList) -> bytes:
    """Return the bytes of a ``*_image.txt``."""
    return "".join(f"{name}\n" for name in images.images).encode()


def write_image_list(path: str | Path, images: ImageList) -> None:
    """Write a ``*_image.txt`` atomically."""
    write_atomic(path, image_list_bytes(images))


def parse_list(cell: str, where: str) -> tuple[str, ...]:
    """Return the strings of a Python list literal.

    The cell must be a flat list of plain string literals; each of them alone is given to `ast.literal_eval`, so
    neither code nor deep nesting gets anywhere.

    Raises:
        DatasetError: it is anything else.
    """
    if not _LIST.fullmatch(cell):
        shown = cell if len(cell) <= 60 else cell[:57] + "..."
        raise DatasetError(f"{where}: ref_image must be a list of file names like ['00001.png'], got {shown!r}")
    try:
        return tuple(ast.literal_eval(item) for item in _ITEM.findall(cell))
    except Exception as error:  # noqa: BLE001 - whatever Python's parser raises
        raise DatasetError(f"{where}: ref_image holds a bad string ({error})") from None


def _meant(name: str, matcher: ImageMatcher | None) -> str:
    """Return the image that a name means, so that one image in two spellings is one."""
    return (matcher and matcher.find(name)) or name


def _check_header(header: Sequence[str], source: str) -> tuple[str, ...]:
    for column in ("gt_image", "ref_image"):
        if column not in header:
            raise DatasetError(f"{source}, line 1: no column '{column}'; found {', '.join(header) or 'none'}")
    unknown = [column for column in header if column not in _COLUMNS]
    if unknown or len(set(header)) != len(header):
        raise DatasetError(
            f"{source}, line 1: columns {', '.join(header)}; expected some of {', '.join(_COLUMNS)}, once"
        )
    return tuple(header)


def _check_name(name: str, where: str) -> None:
    """Refuse names that are no relative path inside a folder, on any system."""
    parts = re.split(r"[/\\]", name)
    if not name.strip():
        raise DatasetError(f"{where}: an empty image name")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise DatasetError(f"{where}: image name {name!r} holds a control character")
    if ".." in parts or "." in parts or "" in parts or "\\" in name or re.match(r"[A-Za-z]:", name):
        raise DatasetError(f"{where}: image name {name!r} must be a path inside the data set, without '..' or a root")


def _check_weight(weight: str, where: str) -> None:
    try:
        value = float(weight)
    except ValueError:
        value = float("nan")
    if not 0.0 <= value < float("inf"):
        raise DatasetError(f"{where}: weight must be a number of at least 0, got {weight!r}")
