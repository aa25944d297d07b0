"""What else a table tells about pictures: gender, pose, glasses, ethnicity, anything one wants counted or balanced."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError, DatasetError, did_you_mean
from ffhqref.datasets.ages import open_table, picture_id
from ffhqref.datasets.base import GivenPath, given_path

if TYPE_CHECKING:
    import pandas as pd


PRIVATE = ("identity", "person", "date_of_birth")
"""Columns of other tables of ours that say who it is; they are no attributes and stay out of what is published."""


def read_attributes(path: GivenPath, image_ids: Collection[str]) -> dict[str, dict[str, str]]:
    """Read every column of a table but the one that names the picture and those that name the person (`PRIVATE`).

    FFHQ-features' CSV, FFHQ-Aging labels and FairFace output are read as they are.

    Args:
        path: a CSV (``.csv``, ``.csv.gz``) with a column of `ffhqref.datasets.ages.NAME_COLUMNS`.
        image_ids: the pictures of the data set; rows of others are left out, as are empty cells.

    Returns:
        Column to image id to the cell's text.

    Raises:
        DatasetError: no such file, no column that names the picture or none besides it, or a picture named twice.
    """
    file = given_path(path, "dataset.attributes")
    if not file.is_file():
        raise DatasetError(f"no such file: {file}; dataset.attributes is a CSV with image_id and further columns")
    reader, columns, name = open_table(file)
    rest = [column for column in columns if column != name and column not in PRIVATE]
    if name is None or not rest:
        raise DatasetError(f"{file}, line 1: columns {columns}, expected image_id (or file, ffhq_id) and further ones")
    wanted = set(image_ids)
    found: dict[str, dict[str, str]] = {column: {} for column in rest}
    seen: set[str] = set()
    for row in reader:
        image_id = picture_id(row[name] or "", wanted)
        if image_id not in wanted:
            continue
        if image_id in seen:
            raise DatasetError(f"{file}, line {reader.line_num}: '{image_id}' occurs twice")
        seen.add(image_id)
        for column in rest:
            value = (row[column] or "").strip()
            if value:
                found[column][image_id] = value
    return found


def attribute_of(attributes: Mapping[str, Mapping[str, str]], name: str) -> Mapping[str, str]:
    """Return image id to label for one column.

    Raises:
        ConfigError: there is no such column.
    """
    if name not in attributes:
        known = f"Known: {', '.join(attributes)}" if attributes else "dataset.attributes=FILE brings columns"
        raise ConfigError(f"balance={name}: no such column.{did_you_mean(name, attributes)} {known}")
    return attributes[name]


def attributes_frame(attributes: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Return the ``attributes`` table; without any, an empty one."""
    import pandas as pd

    rows = [(image_id, name, value) for name, values in attributes.items() for image_id, value in values.items()]
    return pd.DataFrame(rows, columns=["image_id", "attribute", "value"], dtype="str")
