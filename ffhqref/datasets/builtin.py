"""Data sets that come as files: the embedded sample, a folder, FFHQ."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.datasets.ages import Ages, open_table, read_ages
from ffhqref.datasets.attributes import read_attributes
from ffhqref.datasets.base import Dataset, GivenPath, count_remarks, given_path, list_images
from ffhqref.datasets.ffhq_json import read_ffhq_json

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


def folder(
    path: GivenPath | None,
    ages: GivenPath | None = None,
    attributes: GivenPath | None = None,
    truth: GivenPath | None = None,
    aligned: bool = True,
    licence: str = "",
) -> Dataset:
    """Return every picture below a folder as a data set.

    Args:
        path: the folder.
        ages: see `ffhqref.datasets.ages.read_ages`.
        attributes: see `ffhqref.datasets.attributes.read_attributes`.
        truth: a CSV with a column that names the picture and one that names the person (``identity`` or
            ``person``), for the agreement score only.
        aligned: whether the pictures are aligned the FFHQ way already; otherwise faces are detected and aligned.
        licence: recorded in the data card.
    """
    root = root_of(path, "folder", "the folder of pictures: dataset.path=/path/to/faces")
    files = list_images(root, "dataset=folder", "set dataset.path to the folder that holds the pictures")
    known = ages_of(ages, files)
    return Dataset(
        name="folder",
        root=root,
        files=files,
        aligned=aligned,
        ages=known.years,
        age_source=known.source,
        attributes=read_attributes(attributes, files) if attributes else {},
        truth=read_truth(truth, files) if truth else {},
        licence=licence,
    )


def ffhq(
    path: GivenPath | None,
    ages: GivenPath | None = None,
    attributes: GivenPath | None = None,
    json: GivenPath | None = None,
) -> Dataset:
    """Return FFHQ: ``images1024x1024`` (or a 512 copy), flat or in thousands folders.

    Args:
        path: the folder that holds ``00000.png`` ... or ``00000/00000.png`` .... Pictures of another size are
            resized to 512 with PIL's bicubic filter; a 512 copy is taken as it is.
        ages: see `ffhqref.datasets.ages.read_ages`; FFHQ-features and FFHQ-Aging labels are read as they are.
        attributes: see `ffhqref.datasets.attributes.read_attributes`.
        json: FFHQ's ``ffhq-dataset-v2.json``, for author and licence of each picture in the data card.

    Raises:
        DatasetError: a file whose stem is no FFHQ number, or a bad table.
    """
    root = root_of(path, "ffhq", "the folder of FFHQ's pictures: dataset.path=/path/to/images1024x1024")
    files = list_images(root, "dataset=ffhq", "set dataset.path to FFHQ's images1024x1024 folder")
    foreign = [name for name in files if not (len(name) == 5 and name.isdigit() and int(name) < 70000)]
    if foreign:
        raise DatasetError(
            f"dataset=ffhq: {len(foreign)} pictures in {root} are not named like FFHQ's 00000 to 69999, first "
            f"{files[foreign[0]]}; use dataset=folder for other pictures"
        )
    known = ages_of(ages, files)
    return Dataset(
        name="ffhq",
        root=root,
        files=files,
        ages=known.years,
        age_source=known.source,
        attributes=read_attributes(attributes, files) if attributes else {},
        licence="per picture (Flickr); data set CC BY-NC-SA 4.0",
        attribution="Karras, Laine, Aila: A Style-Based Generator Architecture for GANs, CVPR 2019",
        credits=read_ffhq_json(json, files) if json else {},
        remarks=count_remarks("dataset=ffhq", {"pictures": len(files)}, {"pictures": 70000}),
    )


def root_of(path: GivenPath | None, name: str, needed: str) -> Path:
    """Return the data set's folder.

    Raises:
        ConfigError: none was given, or no path; ``needed`` says what to give.
    """
    if path is None or path == "":
        raise ConfigError(f"dataset={name} needs {needed}")
    return given_path(path, "dataset.path").resolve()


def ages_of(path: GivenPath | None, files: Mapping[str, str]) -> Ages:
    """Return the ages that a table tells, none without one."""
    return read_ages(path, files) if path else Ages({}, "")


def read_truth(path: GivenPath, files: Mapping[str, str]) -> dict[str, str]:
    """Read image id to true identity from a CSV; pictures that are not in ``files`` are left out.

    Raises:
        DatasetError: no such file, not a text, or a missing column.
    """
    path = given_path(path, "dataset.truth")
    if not path.is_file():
        raise DatasetError(f"no such file: {path}; dataset.truth is a CSV with the columns image_id and identity")
    reader, columns, _ = open_table(path)
    name = next((column for column in ("image_id", "file") if column in columns), None)
    person = next((column for column in ("identity", "person") if column in columns), None)
    if name is None or person is None:
        raise DatasetError(f"{path}, line 1: columns {columns}, expected image_id (or file) and identity (or person)")
    found = {Path(row[name]).stem: row[person] for row in reader if row[name] and row[person]}
    return {image_id: found[image_id] for image_id in files if image_id in found}
