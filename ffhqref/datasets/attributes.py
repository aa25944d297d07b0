"""What else a table tells about images: gender, pose, glasses, ethnicity, anything one wants counted or balanced."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError, DatasetError, did_you_mean
from ffhqref.datasets.user_table import read_user_table

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.datasets.base import GivenPath


PRIVATE = ("identity", "person", "date_of_birth")
"""Columns of other tables of ours that say who it is; they are no attributes and stay out of what is published."""


@dataclass(frozen=True)
class Attributes:
    """Columns of a table about images."""

    columns: Mapping[str, Mapping[str, str]]
    """Column to image id to the cell's text."""
    remarks: tuple[str, ...] = ()
    """Rows of the table that match no image."""


def read_attributes(path: GivenPath, files: Mapping[str, str] | Collection[str]) -> Attributes:
    """Read every column of a table but the one that names the image and those that name the person (`PRIVATE`).

    FFHQ-features' CSV, FFHQ-Aging labels and FairFace output are read as they are. Empty cells are left out.

    Args:
        path: a CSV (``.csv``, ``.csv.gz``) with a column of `ffhqref.datasets.user_table.NAME_COLUMNS`.
        files: image id to path of the data set's images, or their ids alone.

    Raises:
        DatasetError: no such file, no column that names the image or none besides it, an image named twice, or a
            table of which no row matches an image.
    """
    expected = "image_id (or file, ffhq_id) and further columns"
    table = read_user_table(path, "dataset.attributes", files, expected)
    rest = [column for column in table.columns if column != table.name and column not in PRIVATE]
    if not rest:
        raise DatasetError(f"{table.file}, line 1: columns {list(table.columns)}, expected {expected}")
    found: dict[str, dict[str, str]] = {column: {} for column in rest}
    seen: set[str] = set()
    for row in table.rows:
        seen.add(table.unique(seen, row))
        for column in rest:
            value = row.cells[column].strip()
            if value:
                found[column][row.image_id] = value
    return Attributes(found, table.remarks)


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
