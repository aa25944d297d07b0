"""Data sets that come as files: the embedded sample, a folder, FFHQ."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ffhqref.core.conf import SAMPLE_ROOT
from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.datasets.ages import Ages, read_ages
from ffhqref.datasets.attributes import Attributes, read_attributes
from ffhqref.datasets.base import Dataset, GivenPath, Listing, count_remarks, given_path, list_images
from ffhqref.datasets.ffhq_json import read_ffhq_json
from ffhqref.datasets.user_table import read_user_table

FOLDERS = "folders"
"""In place of a table of people: the folder that an image lies in names its person."""


def sample() -> Dataset:
    """Return the embedded sample: 164 images of 40 people who do not exist (CC BY 4.0; see its README).

    Ages are nominal. The true identities are for the agreement score.
    """
    with (SAMPLE_ROOT / "metadata.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return Dataset(
        name="sample",
        root=SAMPLE_ROOT,
        files=list_images(SAMPLE_ROOT, "dataset=sample", "reinstall ffhqref").files,
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
    aligned: bool | None = None,
    licence: str = "",
) -> Dataset:
    """Return every image below a folder as a data set.

    Args:
        path: the folder.
        ages: see `ffhqref.datasets.ages.read_ages`.
        attributes: see `ffhqref.datasets.attributes.read_attributes`.
        truth: who is on the images: a CSV with a column that names the image and one that names the person
            (``identity`` or ``person``), or `FOLDERS`: the folder that an image lies in names its person.
        aligned: whether the images are aligned the FFHQ way already; otherwise faces are detected and aligned. None:
            they are, which a build checks on a few.
        licence: recorded in the data card.
    """
    root = root_of(path, "folder", "the folder of images: dataset.path=/path/to/faces")
    listing = list_images(
        root, "dataset=folder", "set dataset.path to the folder that holds the images", or_by_path=True
    )
    told = read_tables(listing, ages, attributes, truth)
    return Dataset(
        name="folder",
        root=root,
        files=listing.files,
        aligned=aligned is not False,
        told_aligned=aligned is not None,
        ages=told.ages.years,
        age_source=told.ages.source,
        attributes=told.attributes.columns,
        truth=told.truth,
        licence=licence,
        remarks=told.remarks,
    )


def ffhq(
    path: GivenPath | None,
    ages: GivenPath | None = None,
    attributes: GivenPath | None = None,
    json: GivenPath | None = None,
) -> Dataset:
    """Return FFHQ: ``images1024x1024`` (or a 512 copy), flat or in thousands folders.

    Args:
        path: the folder that holds ``00000.png`` ... or ``00000/00000.png`` .... Images of another size are
            resized to 512 with PIL's bicubic filter; a 512 copy is taken as it is.
        ages: see `ffhqref.datasets.ages.read_ages`; FFHQ-features and FFHQ-Aging labels are read as they are.
        attributes: see `ffhqref.datasets.attributes.read_attributes`.
        json: FFHQ's ``ffhq-dataset-v2.json``, for author and licence of each image in the data card.

    Raises:
        DatasetError: a file whose stem is no FFHQ number, or a bad table.
    """
    root = root_of(path, "ffhq", "the folder of FFHQ's images: dataset.path=/path/to/images1024x1024")
    listing = list_images(root, "dataset=ffhq", "set dataset.path to FFHQ's images1024x1024 folder")
    files = listing.files
    foreign = [name for name in files if not (re.fullmatch("[0-6][0-9]{4}", name))]
    if foreign:
        raise DatasetError(
            f"dataset=ffhq: {len(foreign)} images in {root} are not named like FFHQ's 00000 to 69999, first "
            f"{files[foreign[0]]}; use dataset=folder for other images"
        )
    told = read_tables(listing, ages, attributes)
    return Dataset(
        name="ffhq",
        root=root,
        files=files,
        ages=told.ages.years,
        age_source=told.ages.source,
        attributes=told.attributes.columns,
        licence="per image (Flickr); data set CC BY-NC-SA 4.0",
        attribution="Karras, Laine, Aila: A Style-Based Generator Architecture for GANs, CVPR 2019",
        credits=read_ffhq_json(json, files) if json else {},
        remarks=(*told.remarks, *count_remarks("dataset=ffhq", {"images": len(files)}, {"images": 70000})),
    )


def root_of(path: GivenPath | None, name: str, needed: str) -> Path:
    """Return the data set's folder.

    Raises:
        ConfigError: none was given, or no path; ``needed`` says what to give.
    """
    if path is None or path == "":
        raise ConfigError(f"dataset={name} needs {needed}")
    return given_path(path, "dataset.path").resolve()


@dataclass(frozen=True)
class Told:
    """What users' tables tell about the images of a data set."""

    ages: Ages
    attributes: Attributes
    truth: Mapping[str, str]
    remarks: tuple[str, ...]


def read_tables(
    listing: Listing, ages: GivenPath | None, attributes: GivenPath | None, truth: GivenPath | None = None
) -> Told:
    """Read the tables that users bring; see `read_ages`, `read_attributes` and `read_truth`."""
    files = listing.files
    years = read_ages(ages, files) if ages else Ages({}, "")
    columns = read_attributes(attributes, files) if attributes else Attributes({})
    people, remarks = ({}, ()) if not truth else _folders(listing) if truth == FOLDERS else read_truth(truth, files)
    return Told(years, columns, people, (*listing.remarks, *years.remarks, *columns.remarks, *remarks))


def _folders(listing: Listing) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return image id to the folder it lies in, images of the root itself left out, and a remark on these."""
    found = {image_id: Path(file).parent.as_posix() for image_id, file in listing.files.items()}
    known = {image_id: person for image_id, person in found.items() if person != "."}
    if not known:
        raise DatasetError("dataset.truth=folders: no image lies in a folder of its person, dataset.path/PERSON/FILE")
    alone = len(found) - len(known)
    return known, (f"dataset.truth=folders: {alone} images lie in no folder: nobody known",) if alone else ()


def read_truth(path: GivenPath, files: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read image id to true identity from a CSV, and what a user must know about its rows.

    Raises:
        DatasetError: no such file, no CSV, a missing column, an image named twice, or no row that matches an image.
    """
    expected = "image_id (or file) and identity (or person)"
    table = read_user_table(path, "dataset.truth", files, expected, ["identity"], ["person"])
    person = "identity" if "identity" in table.columns else "person"
    found: dict[str, str] = {}
    for row in table.rows:
        if row.cells[person].strip():
            found[table.unique(found, row)] = row.cells[person].strip()
    return {image_id: found[image_id] for image_id in files if image_id in found}, table.remarks
