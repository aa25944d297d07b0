"""Ages that people already have: CSV tables, FFHQ-features, FFHQ-Aging labels, FairFace output, dates of birth."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ffhqref.core.errors import DatasetError
from ffhqref.datasets.base import GivenPath, given_path

NAME_COLUMNS = ("image_id", "ffhq_id", "image_number", "file", "face_name_align", "img_path", "image")
"""Columns that name a picture; the first one present is used. A path is reduced to its stem."""

OLDEST = 80.0
"""Upper end in years that an open last class (70+) is given for its middle."""


@dataclass(frozen=True)
class Ages:
    """Ages in years by image id, and where they are from."""

    years: Mapping[str, float]
    source: str


def read_ages(path: GivenPath, image_ids: Collection[str]) -> Ages:
    """Read ages in any of the forms that people have; ids that are not asked for are left out.

    A CSV (``.csv``, ``.csv.gz``) with a column of `NAME_COLUMNS` and one of: ``age`` (years, or a class such as
    ``30-39``, as FairFace prints); ``age_group`` (FFHQ-Aging labels, classes); ``date_of_birth`` and ``taken``
    (ISO dates or years; ``<=2014`` counts as 2014). A folder of ``NNNNN.json`` files is read as FFHQ-features.
    A class becomes its middle: 30-39 is 35, 70+ is 75.

    Args:
        path: the file or folder.
        image_ids: the pictures of the data set. FFHQ numbers are matched with their leading zeros.

    Raises:
        DatasetError: no such file, missing columns, an age that cannot be understood, or a picture named twice;
            with the line number.
    """
    path = given_path(path, "dataset.ages")
    wanted = set(image_ids)
    if path.is_dir():
        return _read_features(path, wanted)
    if not path.is_file():
        raise DatasetError(f"no such file: {path}; dataset.ages is a CSV with the columns image_id and age")
    reader, columns, name = open_table(path)
    age_column = next((column for column in ("age", "age_group") if column in columns), None)
    dated = {"date_of_birth", "taken"} <= set(columns)
    if name is None or not (age_column or dated):
        raise DatasetError(
            f"{path}, line 1: columns {columns}, expected one of {', '.join(NAME_COLUMNS)} and one of: age; age_group; "
            "date_of_birth and taken"
        )
    years: dict[str, float] = {}
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        image_id = picture_id(row[name] or "", wanted)
        if age_column:
            cell = (row[age_column] or "").strip()
            age = parse_age(cell, where) if cell else None
        else:
            age = _age_at(row["date_of_birth"] or "", row["taken"] or "", where)
        if age is None or image_id not in wanted:
            continue
        if image_id in years:
            raise DatasetError(f"{where}: '{image_id}' occurs twice")
        years[image_id] = age
    kind = age_column or "dates"
    return Ages(years, f"{path.name}:{kind}")


def parse_age(text: str, where: str = "age") -> float:
    """Return years from a number or a class.

    >>> parse_age("34.5"), parse_age("30-39"), parse_age("70+"), parse_age("more than 70")
    (34.5, 35.0, 75.0, 75.0)

    Args:
        text: what the table says.
        where: for the error message.

    Raises:
        DatasetError: neither, or outside 0 to 130 years.
    """
    try:
        age = float(text)
    except ValueError:
        span = re.fullmatch(r"\s*(\d+)\s*[-–]\s*(\d+)\s*", text)
        above = re.fullmatch(r"\s*(?:more than |>=? ?)?(\d+)\s*\+?\s*", text)
        if span:
            age = (float(span.group(1)) + float(span.group(2)) + 1.0) / 2.0
        elif above:
            low = float(above.group(1))
            age = (low + max(OLDEST, low)) / 2.0
        else:
            raise DatasetError(f"{where}: age '{text}', expected years or a class such as 30-39") from None
    if not 0 <= age <= 130:
        raise DatasetError(f"{where}: age '{text}', expected 0 to 130 years")
    return age


def _age_at(born: str, taken: str, where: str) -> float | None:
    if not born.strip() or not taken.strip():
        return None
    age = _year(taken, where, middle=True) - _year(born, where, middle=False)
    if not 0 <= age <= 130:
        raise DatasetError(f"{where}: born {born}, taken {taken}: an age of {age:.1f} years, expected 0 to 130")
    return age


def _year(text: str, where: str, *, middle: bool) -> float:
    """Return a date as a fraction of years; a bare year means its middle."""
    text = text.strip().removeprefix("<=").strip()
    if re.fullmatch(r"\d{4}", text):
        return int(text) + 0.5
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        what = "taken" if middle else "date_of_birth"
        raise DatasetError(f"{where}: {what} '{text}', expected YYYY-MM-DD or YYYY") from None
    return day.year + (day.timetuple().tm_yday - 1) / 365.25


def open_table(path: Path) -> tuple[csv.DictReader[str], list[str], str | None]:
    """Open a CSV (``.csv``, ``.csv.gz``); return its reader, its columns and the one that names a picture, if any.

    Raises:
        DatasetError: it is no text.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as a CSV ({error})") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns = list(reader.fieldnames or [])
    except csv.Error as error:
        raise DatasetError(f"{path} cannot be read as a CSV ({error})") from None
    return reader, columns, next((column for column in NAME_COLUMNS if column in columns), None)


def picture_id(text: str, wanted: Collection[str]) -> str:
    """Return the image id that a table's cell means: a file name's stem, an FFHQ number with its leading zeros."""
    stem = Path(text).stem if "/" in text or "." in text else text
    if stem not in wanted and stem.isdigit():
        return stem.zfill(5)  # FFHQ-Aging and spreadsheets drop FFHQ's leading zeros
    return stem


def _read_features(folder: Path, wanted: set[str]) -> Ages:
    """Read FFHQ-features: one JSON for each picture, a list of faces with ``faceAttributes.age``."""
    years: dict[str, float] = {}
    for image_id in sorted(wanted):
        file = folder / f"{image_id}.json"
        if not file.is_file():
            continue
        try:
            faces = json.loads(file.read_text(encoding="utf-8"))
            if faces:
                years[image_id] = parse_age(str(faces[0]["faceAttributes"]["age"]), str(file))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DatasetError(f"{file} is no FFHQ-features file ({type(error).__name__}: {error})") from None
    if not years:
        raise DatasetError(f"{folder}: no NNNNN.json of FFHQ-features for any picture of the data set")
    return Ages(years, f"{folder.name}:ffhq-features")
