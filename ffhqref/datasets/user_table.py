"""Reading the tables that users bring: ages, attributes, identities."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ffhqref.core.csv_file import read_csv
from ffhqref.core.errors import DatasetError
from ffhqref.datasets.base import GivenPath, given_path
from ffhqref.datasets.match import ImageMatcher, without_ending

NAME_COLUMNS = ("image_id", "ffhq_id", "image_number", "file", "face_name_align", "img_path", "image")
"""Columns that name an image; the first one present is used, see `ffhqref.datasets.match.ImageMatcher`."""

UNKNOWN = frozenset(("", "-", "–", "—", "NA", "N/A", "na", "n/a", "NaN", "nan"))
"""Cells that say that something is not known; ``Na`` and ``Nan`` are names of people."""

_FAIRFACE = re.compile(r"(.+)_face\d+")
"""FairFace's script cuts faces out of an image and numbers them."""


@dataclass(frozen=True)
class UserRow:
    """A row that names an image of the data set."""

    image_id: str
    cells: Mapping[str, str]
    where: str
    """File and line, for messages."""


@dataclass(frozen=True)
class UserTable:
    """The rows of a CSV that name images of the data set."""

    file: Path
    name: str
    """The column that names the image."""
    columns: tuple[str, ...]
    rows: tuple[UserRow, ...]
    remarks: tuple[str, ...]
    """What a user must know: rows that match no image."""

    def unique(self, seen: Collection[str], row: UserRow) -> str:
        """Return the image of a row, refused where an earlier one named it too.

        Raises:
            DatasetError: the image occurs twice.
        """
        if row.image_id in seen:
            raise DatasetError(f"{row.where}: '{row.image_id}' occurs twice")
        return row.image_id


def read_user_table(
    path: GivenPath, key: str, files: Mapping[str, str] | Collection[str], expected: str, *alternatives: Collection[str]
) -> UserTable:
    """Read a CSV (``.csv``, ``.csv.gz``) that has a column of `NAME_COLUMNS`.

    Args:
        path: the file.
        key: of the config, for messages.
        files: image id to path of the data set's images, or their ids alone.
        expected: the columns in words, for messages.
        alternatives: sets of columns, one of which must be there; without any, one further column is enough.

    Raises:
        DatasetError: no such file, no CSV (`read_csv`), missing columns, or a table of which no row matches an image.
    """
    file = given_path(path, key)
    if not file.is_file():
        raise DatasetError(f"no such file: {file}; {key} is a CSV with {expected}")
    table = read_csv(file)
    columns, name = list(table.columns), name_column(table.columns)
    if name is None or not any(set(needed) <= set(columns) for needed in alternatives or [()]):
        raise DatasetError(f"{file}, line 1: columns {columns}, expected {expected}")
    matcher = ImageMatcher(files)
    lines = [
        (row.line, row.cells[name], {column: known(row.cells[column]) for column in columns if column != name})
        for row in table.rows
    ]
    found = matcher.find_all(cell for _, cell, _ in lines)
    if name == "face_name_align":
        found = _fairface(matcher, [cell for _, cell, _ in lines], found)
    strangers = [line for line, image_id in zip(lines, found, strict=True) if image_id is None]
    if lines and len(strangers) == len(lines):
        raise DatasetError(
            f"{key}: none of the {len(lines)} rows of {file} matches an image of the data set; the table has "
            f"'{lines[0][1]}', the data set has {_example(files)}: name images by id, file name or path"
        )
    remarks = []
    if strangers:
        remarks.append(
            f"{key}: {len(strangers)} of {len(lines)} rows of {file.name} match no image, first '{strangers[0][1]}' "
            f"in line {strangers[0][0]}"
        )
    rows = [
        UserRow(image_id, cells, f"{file}, line {number}")
        for (number, _, cells), image_id in zip(lines, found, strict=True)
        if image_id is not None
    ]
    return UserTable(file, name, tuple(columns), tuple(rows), tuple(remarks))


def name_column(columns: Collection[str]) -> str | None:
    """Return the column that names an image, if there is one."""
    return next((column for column in NAME_COLUMNS if column in columns), None)


def known(cell: str) -> str:
    """Return a cell, empty where it says that something is not known.

    >>> known("N/A"), known(" – "), known("Na"), known("none")
    ('', '', 'Na', 'none')
    """
    return "" if cell.strip() in UNKNOWN else cell


def _fairface(matcher: ImageMatcher, names: list[str], found: list[str | None]) -> list[str | None]:
    """Match FairFace's ``<stem>_face0.jpg`` too, where its script found one face in the image and no more."""
    stems = [without_ending(name.rpartition("/")[2]) for name in names]
    whole = [None if match else _FAIRFACE.fullmatch(stem) for stem, match in zip(stems, found, strict=True)]
    guesses = [matcher.find(match[1]) if match else None for match in whole]
    taken = Counter([*found, *guesses])
    return [match or (guess if taken[guess] == 1 else None) for match, guess in zip(found, guesses, strict=True)]


def _example(files: Mapping[str, str] | Collection[str]) -> str:
    first = next(iter(sorted(files)), "")
    return f"'{first}' ({files[first]})" if isinstance(files, Mapping) and first else f"'{first}'"
