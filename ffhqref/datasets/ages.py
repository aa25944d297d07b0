"""Ages that people already have: CSV tables, FFHQ-features, FFHQ-Aging labels, FairFace output, dates of birth."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ffhqref.core.errors import DatasetError
from ffhqref.core.parsing import parsing, read_json
from ffhqref.datasets.base import GivenPath, given_path
from ffhqref.datasets.user_table import NAME_COLUMNS, read_user_table

OLDEST = 80.0
"""Upper end in years that an open last class (70+) is given for its middle."""

OPEN_END = 100
"""A class that ends at this age or above is an open one: FFHQ-Aging writes 70-120 for 70 and more."""


@dataclass(frozen=True)
class Ages:
    """Ages in years by image id, and where they are from."""

    years: Mapping[str, float]
    source: str
    remarks: tuple[str, ...] = ()
    """Rows of the table that match no image."""


def read_ages(path: GivenPath, files: Mapping[str, str] | Collection[str]) -> Ages:
    """Read ages in any of the forms that people have; rows that match no image are told.

    A CSV (``.csv``, ``.csv.gz``) with a column of `NAME_COLUMNS` and one of: ``age`` (years, or a class such as
    ``30-39``, as FairFace prints); ``age_group`` (FFHQ-Aging labels, classes); ``date_of_birth`` and ``taken``
    (ISO dates, months or years; ``<=2014`` counts as 2014). A folder of ``NNNNN.json`` files is read as FFHQ-features.

    Args:
        path: the file or folder.
        files: image id to path of the data set's images, or their ids alone.

    Raises:
        DatasetError: no such file, missing columns, an age that cannot be understood, an image named twice, or a
            table of which no row matches an image; with the line number.
    """
    folder = given_path(path, "dataset.ages")
    if folder.is_dir():
        return _read_features(folder, files)
    expected = f"one of {', '.join(NAME_COLUMNS)} and one of: age; age_group; date_of_birth and taken"
    table = read_user_table(path, "dataset.ages", files, expected, ["age"], ["age_group"], ["date_of_birth", "taken"])
    age_column = next((column for column in ("age", "age_group") if column in table.columns), None)
    years: dict[str, float] = {}
    for row in table.rows:
        if age_column:
            cell = row.cells[age_column].strip()
            age = parse_age(cell, row.where) if cell else None
        else:
            age = _age_at(row.cells["date_of_birth"], row.cells["taken"], row.where)
        if age is not None:
            years[table.unique(years, row)] = age
    return Ages(years, f"{table.file.name}:{age_column or 'dates'}", table.remarks)


def parse_age(text: str, where: str = "age") -> float:
    """Return years from a number or a class, of which the middle.

    >>> parse_age("34.5"), parse_age("30-39"), parse_age("(25, 32)"), parse_age("under 3")
    (34.5, 35.0, 29.0, 1.5)
    >>> {parse_age(text) for text in ("70+", ">=70", "more than 70", "70-120", "70-100", "70 and older")}
    {75.0}

    Args:
        text: what the table says.
        where: for the error message.

    Raises:
        DatasetError: neither, or outside 0 to 130 years.
    """
    try:
        age = float("" if "_" in text else text)  # Python takes 1_0 for 10
    except ValueError:
        low, high = _age_class(text, where)
        age = (low + (max(OLDEST, low) if high is None else high)) / 2.0
    if not 0 <= age <= 130:
        raise DatasetError(f"{where}: age '{text}', expected 0 to 130 years")
    return age


_NUMBER = r"(\d+(?:\.\d+)?)"
_AND_MORE = r"(?:\+|plus|-|–|and (?:more|over|older|above|up)|or (?:more|over|older|above)|years and older)"
_CLASSES = {
    # a comma parts two ages in brackets alone: elsewhere 2,5 is a number of some languages
    "span": re.compile(rf"{_NUMBER}\s*(?:-|–|to)\s*{_NUMBER}|[(\[]\s*{_NUMBER}\s*(?:-|–|,|to)\s*{_NUMBER}\s*[)\]]"),
    "above": re.compile(rf"(?:more than|over|above|from|at least|>=?|≥)\s*{_NUMBER}\s*\+?|{_NUMBER}\s*{_AND_MORE}"),
    "below": re.compile(rf"(?:less than|under|below|up to|at most|<=?|≤)\s*{_NUMBER}"),
}


def _age_class(text: str, where: str) -> tuple[float, float | None]:
    """Return both ends of a class of whole years, the upper one exclusive, or None where it is open."""
    plain = re.sub(r"\s*years?(?: old)?\s*$", "", text.strip().lower())
    for kind, form in _CLASSES.items():
        match = form.fullmatch(plain)
        if not match:
            continue
        low, *rest = [float(group) for group in match.groups() if group is not None]
        if kind == "above":
            return low, None
        if kind == "below":
            return 0.0, low
        if rest[0] < low:
            break
        return (low, None) if rest[0] >= OPEN_END else (low, rest[0] + 1.0)
    raise DatasetError(f"{where}: age '{text}', expected years or a class such as 30-39 or 70+")


def _age_at(born: str, taken: str, where: str) -> float | None:
    """Return the age in years when an image was taken, None where a date is missing.

    A year or a month stands for its middle. Where the two dates leave several ages open, one of them may be below 0
    without being wrong: somebody born in October 1990 and photographed in 1990 is 0 years old.
    """
    if not born.strip() or not taken.strip():
        return None
    birth, photo = _span(born, "date_of_birth", where), _span(taken, "taken", where)
    age = photo[1] - birth[1]
    if photo[2] < birth[0] or photo[0] - birth[2] > 130:
        raise DatasetError(f"{where}: born {born}, taken {taken}: an age of {age:.1f} years, expected 0 to 130")
    return min(max(age, 0.0), 130.0)


def _span(text: str, column: str, where: str) -> tuple[float, float, float]:
    """Return the first day, the middle and the last day that a date may mean, in years; ``<=2014`` counts as 2014."""
    text = text.strip().removeprefix("<=").strip()
    if re.fullmatch(r"\d{4}", text):
        return float(text), float(text) + 0.5, float(text) + 364 / 365.25
    month = re.fullmatch(r"(\d{4})-(\d{2})", text)
    try:
        if month:
            first = dt.date(int(month[1]), int(month[2]), 1)
            return _years(first), _years(first) + 15 / 365.25, _years(first) + 30 / 365.25
        day = dt.datetime.fromisoformat(text).date()
    except ValueError:
        raise DatasetError(f"{where}: {column} '{text}', expected YYYY-MM-DD, YYYY-MM or YYYY") from None
    return _years(day), _years(day), _years(day)


def _years(day: dt.date) -> float:
    return day.year + (day.timetuple().tm_yday - 1) / 365.25


def _read_features(folder: Path, files: Mapping[str, str] | Collection[str]) -> Ages:
    """Read FFHQ-features: one JSON for each image, a list of faces with ``faceAttributes.age``."""
    years: dict[str, float] = {}
    described = {path.stem: path for path in folder.glob("*.json")}
    for image_id in sorted(described.keys() & set(files)):
        file = described.pop(image_id)
        with parsing(file, DatasetError, "expected a file of FFHQ-features"):
            faces = read_json(file, DatasetError)
            if faces:
                years[image_id] = parse_age(str(faces[0]["faceAttributes"]["age"]), str(file))
    if not years:
        raise DatasetError(f"{folder}: no NNNNN.json of FFHQ-features for any image of the data set")
    remarks = []
    if described:
        remarks.append(
            f"dataset.ages: {len(described)} files of {folder.name} match no image, first {min(described)}.json"
        )
    return Ages(years, f"{folder.name}:ffhq-features", tuple(remarks))
