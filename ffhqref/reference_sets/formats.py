"""ReF-LDM's published files: read and written losslessly (protocols.md 1.3).

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
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ffhqref.core.errors import DatasetError
from ffhqref.core.images import write_atomic
from ffhqref.reference_sets.references import Exclusions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_STRING = r"""(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")"""
_LIST = re.compile(rf"\s*\[\s*(?:{_STRING}\s*(?:,\s*{_STRING}\s*)*,?\s*)?\]\s*")
_ITEM = re.compile(_STRING)
_COLUMNS = ("gt_image", "lq_image", "ref_image", "weight")


@dataclass(frozen=True)
class Dialect:
    """How a file spells what it says; the default is what pandas writes."""

    newline: str = "\n"
    quote_all: bool = False
    final_newline: bool = True
    byte_order_mark: bool = False


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
    cell: str | None = field(default=None, compare=False, repr=False)
    """The list as spelled in the file; None: as Python spells it."""


@dataclass(frozen=True)
class ReferenceMapping:
    """A ``*_references.csv``."""

    rows: tuple[MappingRow, ...]
    columns: tuple[str, ...] = ("gt_image", "lq_image", "ref_image")
    dialect: Dialect = field(default=Dialect(), compare=False)


@dataclass(frozen=True)
class ImageList:
    """A ``*_image.txt``."""

    images: tuple[str, ...]
    dialect: Dialect = field(default=Dialect(), compare=False)


def image_id_of(name: str) -> str:
    """Return the image id of a file name in a published list: its stem.

    >>> image_id_of("00000/00042.png")
    '00042'
    """
    return PurePosixPath(name).stem


def read_mapping(path: str | Path, known: Collection[str] | None = None) -> ReferenceMapping:
    """Read a ``*_references.csv``.

    Args:
        path: the file.
        known: image ids that exist; any other is refused. None: not checked.

    Raises:
        DatasetError: with file and line, for a file that is missing or no UTF-8, a missing, unknown or doubled
            column, a row of another length, a list cell that is no list of strings, a name that is empty, absolute or
            has ``..``, a target that occurs twice, or an unknown image.
    """
    return parse_mapping(_read(path), str(path), known)


def parse_mapping(data: bytes, source: str = "mapping", known: Collection[str] | None = None) -> ReferenceMapping:
    """Parse the bytes of a ``*_references.csv``; see `read_mapping`. ``source`` names them in messages."""
    text, dialect = _decode(data, source)
    reader = _records(text, source)
    try:
        _, header = next(reader)
    except StopIteration:
        raise DatasetError(f"{source}: empty file, expected a header with gt_image and ref_image") from None
    columns = _check_header(header, source)
    known_ids = None if known is None else set(known)
    rows: list[MappingRow] = []
    seen: dict[str, int] = {}
    for line, cells in reader:
        where = f"{source}, line {line}"
        if len(cells) != len(columns):
            raise DatasetError(f"{where}: {len(cells)} cells, expected {len(columns)} ({', '.join(columns)})")
        row = dict(zip(columns, cells, strict=True))
        references = parse_list(row["ref_image"], where)
        names = [row["gt_image"], *([row["lq_image"]] if "lq_image" in row else []), *references]
        for name in names:
            _check_name(name, where)
        for name in (row["gt_image"], *references):
            if known_ids is not None and image_id_of(name) not in known_ids:
                raise DatasetError(f"{where}: unknown image '{name}'; it is not in the data set")
        if row["gt_image"] in seen:
            raise DatasetError(f"{where}: target '{row['gt_image']}' is listed in line {seen[row['gt_image']]} already")
        seen[row["gt_image"]] = line
        if "weight" in row:
            _check_weight(row["weight"], where)
        cell = None if row["ref_image"] == repr(list(references)) else row["ref_image"]
        rows.append(MappingRow(row["gt_image"], references, row.get("lq_image"), row.get("weight"), line, cell))
    mapping = ReferenceMapping(tuple(rows), columns, dialect)
    everything_quoted = replace(mapping, dialect=replace(dialect, quote_all=True))
    return everything_quoted if mapping_bytes(everything_quoted) == data else mapping


def mapping_bytes(mapping: ReferenceMapping) -> bytes:
    """Return the bytes of a ``*_references.csv``.

    For a mapping that was read these are the file's own, if it quotes either what must be quoted or everything, and
    ends its lines in one way.
    """
    stream = io.StringIO(newline="")
    newline = mapping.dialect.newline
    if mapping.dialect.quote_all:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator=newline)
    else:
        writer = csv.writer(stream, quoting=csv.QUOTE_MINIMAL, lineterminator=newline)
    writer.writerow(mapping.columns)
    for row in mapping.rows:
        cells = {
            "gt_image": row.gt_image,
            "lq_image": row.gt_image if row.lq_image is None else row.lq_image,
            "ref_image": repr(list(row.references)) if row.cell is None else row.cell,
            "weight": "" if row.weight is None else row.weight,
        }
        writer.writerow([cells[column] for column in mapping.columns])
    return _encode(stream.getvalue(), mapping.dialect)


def write_mapping(path: str | Path, mapping: ReferenceMapping) -> None:
    """Write a ``*_references.csv`` atomically."""
    write_atomic(path, mapping_bytes(mapping))


def read_image_list(path: str | Path, known: Collection[str] | None = None) -> ImageList:
    """Read a ``*_image.txt``.

    Raises:
        DatasetError: with file and line, for a bad, doubled, empty or unknown name.
    """
    return parse_image_list(_read(path), str(path), known)


def parse_image_list(data: bytes, source: str = "image list", known: Collection[str] | None = None) -> ImageList:
    """Parse the bytes of a ``*_image.txt``; see `read_image_list`."""
    text, dialect = _decode(data, source)
    lines = text.split(dialect.newline) if text else []
    if dialect.final_newline and lines:
        lines.pop()
    known_ids = None if known is None else set(known)
    seen: dict[str, int] = {}
    for line, name in enumerate(lines, 1):
        where = f"{source}, line {line}"
        _check_name(name, where)
        if name in seen:
            raise DatasetError(f"{where}: image '{name}' is listed in line {seen[name]} already")
        if known_ids is not None and image_id_of(name) not in known_ids:
            raise DatasetError(f"{where}: unknown image '{name}'; it is not in the data set")
        seen[name] = line
    return ImageList(tuple(lines), dialect)


def image_list_bytes(images: ImageList) -> bytes:
    """Return the bytes of a ``*_image.txt``."""
    return _encode("".join(name + images.dialect.newline for name in images.images), images.dialect)


def write_image_list(path: str | Path, images: ImageList) -> None:
    """Write a ``*_image.txt`` atomically."""
    write_atomic(path, image_list_bytes(images))


def read_exclusions(path: str | Path) -> Exclusions:
    """Read the verdicts of a manual check: a CSV with the columns target_id and reference_id.

    A row with both rejects that reference of that target, in either direction; a row without reference_id rejects the
    target. Further columns (a reason, a name) are ignored.

    Raises:
        DatasetError: with file and line, for a missing column or an empty target_id.
    """
    source = str(path)
    text, _ = _decode(_read(path), source)
    records = _records(text, source)
    header = next(records, (1, []))[1]
    for column in ("target_id", "reference_id"):
        if column not in header:
            raise DatasetError(f"{source}, line 1: no column '{column}'; found {', '.join(header) or 'none'}")
    pairs, targets = [], []
    for line, cells in records:
        row = dict(zip(header, cells, strict=False))
        target, reference = row.get("target_id", ""), row.get("reference_id", "")
        if not target:
            raise DatasetError(f"{source}, line {line}: no target_id")
        if reference:
            pairs.append((target, reference))
        else:
            targets.append(target)
    return Exclusions.of(pairs, targets)


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
    except (ValueError, SyntaxError) as error:
        raise DatasetError(f"{where}: ref_image holds a bad string ({error})") from None


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None


def _decode(data: bytes, source: str) -> tuple[str, Dialect]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DatasetError(f"{source}, line {line}: not UTF-8 text") from None
    mark = text.startswith("\ufeff")
    text = text[mark:]
    if "\x00" in text:
        raise DatasetError(f"{source}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: holds a NUL character")
    first = re.search(r"\r?\n", text)
    newline = first.group() if first else "\n"
    return text, Dialect(newline=newline, final_newline=text.endswith(newline), byte_order_mark=mark)


def _encode(text: str, dialect: Dialect) -> bytes:
    if not dialect.final_newline:
        text = text.removesuffix(dialect.newline)
    return (("\ufeff" if dialect.byte_order_mark else "") + text).encode("utf-8")


def _records(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of each CSV record."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DatasetError(f"{source}, line {line}: no valid CSV ({error})") from None
        yield line, cells


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
