"""Data sets that come as files: the embedded sample, a folder, FFHQ."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from ffhqref.datasets.base import Dataset, list_images
from ffhqref.errors import ConfigError, DatasetError

SAMPLE_ROOT = Path(__file__).parent / "sample"


def sample() -> Dataset:
    """Return the embedded sample: 164 pictures of 40 people who do not exist (CC BY 4.0; see its README).

    Ages are nominal. The true identities are for the agreement score.
    """
    with (SAMPLE_ROOT / "metadata.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return Dataset(
        name="sample",
        root=SAMPLE_ROOT,
        files=list_images(SAMPLE_ROOT, "dataset=sample", "reinstall ffhqref"),
        ages={Path(row["file"]).stem: float(row["age"]) for row in rows},
        age_source="sample:nominal",
        truth={Path(row["file"]).stem: row["identity"] for row in rows},
        licence="CC BY 4.0",
        attribution=(
            "Made from the Face Research Lab London Set, Lisa DeBruine and Benedict Jones (2017), "
            "https://doi.org/10.6084/m9.figshare.5047666.v5, CC BY 4.0; composited, warped, aged, relit."
        ),
    )


def folder(path: str | Path | None, ages: str | Path | None = None, licence: str = "") -> Dataset:
    """Return every picture below a folder as a data set of aligned faces.

    Args:
        path: the folder.
        ages: a CSV with the columns ``image_id`` (or ``file``) and ``age``.
        licence: recorded in the data card.
    """
    if not path:
        raise ConfigError("dataset=folder needs the folder of pictures: dataset.path=/path/to/faces")
    root = Path(path).expanduser().resolve()
    files = list_images(root, "dataset=folder", "set dataset.path to the folder that holds the pictures")
    return Dataset(
        name="folder",
        root=root,
        files=files,
        ages=read_ages(ages, files) if ages else {},
        age_source=f"csv:{Path(ages).name}" if ages else "",
        licence=licence,
    )


def ffhq(path: str | Path | None, ages: str | Path | None = None) -> Dataset:
    """Return FFHQ: ``images1024x1024`` (or a 512 copy), flat or in thousands folders.

    Args:
        path: the folder that holds ``00000.png`` ... or ``00000/00000.png`` ....
        ages: a CSV with the columns ``image_id`` or ``ffhq_id``, and ``age``.

    Raises:
        DatasetError: a file whose stem is no FFHQ number.
    """
    if not path:
        raise ConfigError("dataset=ffhq needs the folder of FFHQ's pictures: dataset.path=/path/to/images1024x1024")
    root = Path(path).expanduser().resolve()
    files = list_images(root, "dataset=ffhq", "set dataset.path to FFHQ's images1024x1024 folder")
    foreign = [name for name in files if not (len(name) == 5 and name.isdigit() and int(name) < 70000)]
    if foreign:
        raise DatasetError(
            f"dataset=ffhq: {len(foreign)} pictures in {root} are not named like FFHQ's 00000 to 69999, first "
            f"{files[foreign[0]]}; use dataset=folder for other pictures"
        )
    return Dataset(
        name="ffhq",
        root=root,
        files=files,
        ages=read_ages(ages, files) if ages else {},
        age_source=f"csv:{Path(ages).name}" if ages else "",
        licence="per picture (Flickr); data set CC BY-NC-SA 4.0",
        attribution="Karras, Laine, Aila: A Style-Based Generator Architecture for GANs, CVPR 2019",
    )


def read_ages(path: str | Path, files: Mapping[str, str]) -> dict[str, float]:
    """Read image_id to age in years from a CSV; ids that are not in ``files`` are left out.

    Raises:
        DatasetError: no such file, a missing column, an age that is no number or outside 0 to 130, or an id twice.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DatasetError(f"no such file: {path}; dataset.ages is a CSV with the columns image_id and age")
    found: dict[str, float] = {}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or []
        name = next((column for column in ("image_id", "ffhq_id", "file") if column in columns), None)
        if name is None or "age" not in columns:
            raise DatasetError(f"{path}, line 1: columns {list(columns)}, expected image_id (or file) and age")
        for row in reader:
            if not row["age"]:
                continue
            try:
                age = float(row["age"])
            except ValueError:
                age = math.nan
            if not 0 <= age <= 130:
                raise DatasetError(f"{path}, line {reader.line_num}: age '{row['age']}', expected 0 to 130 years")
            image_id = Path(row[name]).stem if name == "file" else row[name]
            if image_id in found:
                raise DatasetError(f"{path}, line {reader.line_num}: '{image_id}' occurs twice")
            found[image_id] = age
    return {image_id: age for image_id, age in found.items() if image_id in files}
