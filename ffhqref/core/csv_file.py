"""The one reader of CSV files: strict, so that no row is lost, joined or shifted in silence."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ffhqref.core.errors import DatasetError
from ffhqref.core.files import read_regular

MAX_BYTES = 1 << 30
"""Of a file, unpacked."""

MAX_NAME = 200
"""Characters of a column's name."""


@dataclass(frozen=True)
class CsvRow:
    """A row below the columns."""

    line: int
    """Line of the file on which it begins."""
    cells: Mapping[str, str]
    """By column."""


@dataclass(frozen=True)
class CsvTable:
    """A CSV with its columns in the first line."""

    source: str
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]

    def where(self, row: CsvRow) -> str:
        """Return file and line of a row, for messages."""
        return f"{self.source}, line {row.line}"


def read_csv(path: str | Path) -> CsvTable:
    """Read a CSV (``.csv``, ``.csv.gz``) in UTF-8, with or without a byte-order mark; empty lines are left out.

    Raises:
        DatasetError: with file and line, for a file that is missing, no regular file, damaged, too large or no UTF-8;
            for a NUL, a quote that is not closed or stands alone, and a cell that is too long; for no columns, a
            column without a name or one that occurs twice, and a row of another length.
    """
    return parse_csv(read_data(path), str(path))


def parse_csv(data: bytes, source: str) -> CsvTable:
    """Parse the bytes of a CSV; see `read_csv`. ``source`` names them in messages."""
    records = csv_records(data, source)
    first, header = next(records, (1, []))
    if not header:
        raise DatasetError(f"{source}: empty file, expected a first line with the names of its columns")
    doubled = [column for index, column in enumerate(header) if column in header[:index]]
    if doubled:
        raise DatasetError(f"{source}, line {first}: the column '{doubled[0]}' occurs twice in {', '.join(header)}")
    longest = max(header, key=len)
    if len(longest) > MAX_NAME:
        raise DatasetError(f"{source}, line {first}: the name of a column has {len(longest)} characters; is it a CSV?")
    rows = []
    for line, cells in records:
        if len(cells) != len(header):
            raise DatasetError(
                f"{source}, line {line}: {len(cells)} cells, expected {len(header)} ({', '.join(header)[:200]})"
            )
        rows.append(CsvRow(line, dict(zip(header, cells, strict=True))))
    return CsvTable(source, tuple(header), tuple(rows))


def read_data(path: str | Path) -> bytes:
    """Return the bytes of a file, unpacked where its name ends in ``.gz``.

    Raises:
        DatasetError: it is missing, no regular file, damaged, or of more than `MAX_BYTES`.
    """
    try:
        data = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror or error})") from None
    if str(path).endswith(".gz"):
        data = _unpacked(data, path)
    if len(data) > MAX_BYTES:
        raise DatasetError(f"{path}: more than {MAX_BYTES >> 20} MiB, expected a table that fits into memory")
    return data


def _unpacked(data: bytes, path: str | Path) -> bytes:
    found = bytearray()
    try:
        while data:
            stream = zlib.decompressobj(wbits=31)
            found += stream.decompress(data, MAX_BYTES + 1 - len(found))
            if len(found) > MAX_BYTES:
                break
            if not stream.eof:
                raise EOFError("it ends too early")
            data = stream.unused_data.lstrip(b"\0")
    except (zlib.error, EOFError) as error:
        raise DatasetError(f"{path} cannot be unpacked ({error}); is it a whole gzip file?") from None
    return bytes(found)


def decode_text(data: bytes, source: str) -> str:
    """Return the text of a file.

    Raises:
        DatasetError: with the line, where it is no UTF-8 or holds a NUL.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DatasetError(f"{source}, line {line}: not UTF-8 text; save it as UTF-8") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DatasetError(f"{source}, line {line}: holds a NUL character")
    return text


def csv_records(data: bytes, source: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of each record; see `read_csv`."""
    reader = csv.reader(io.StringIO(decode_text(data, source), newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DatasetError(f"{source}, line {line}: no valid CSV ({error})") from None
        if cells:
            yield line, cells
