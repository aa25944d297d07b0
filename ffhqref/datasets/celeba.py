"""CelebA-HQ and CelebRef-HQ."""

from __future__ import annotations

from pathlib import Path

from ffhqref.core.errors import DatasetError
from ffhqref.datasets.base import Dataset, GivenPath, count_remarks, id_of_path, list_images
from ffhqref.datasets.builtin import read_tables, root_of


def celeba_hq(path: GivenPath | None, ages: GivenPath | None = None, attributes: GivenPath | None = None) -> Dataset:
    """Return CelebA-HQ as CelebAMask-HQ ships it: ``CelebA-HQ-img`` with ``0.jpg`` to ``29999.jpg``.

    Numbers with leading zeros are taken too; ids are the names as they are, because published lists name files.
    CelebA-HQ is aligned by a template of its own, near FFHQ's; ReF-LDM uses it as it is (section 3 of its paper).

    Args:
        path: the folder.
        ages: see `ffhqref.datasets.ages.read_ages`.
        attributes: see `ffhqref.datasets.attributes.read_attributes`.

    Raises:
        DatasetError: a file that is not named by a number of 0 to 29999, or two of one number.
    """
    root = root_of(path, "celeba_hq", "CelebAMask-HQ's images: dataset.path=/path/to/CelebA-HQ-img")
    what = "dataset=celeba_hq"
    listing = list_images(root, what, "set dataset.path to CelebAMask-HQ's CelebA-HQ-img folder")
    files = listing.files
    numbers: dict[int, str] = {}
    for image_id, file in files.items():
        number = int(image_id) if image_id.isascii() and image_id.isdigit() else -1
        if not 0 <= number < 30000:
            raise DatasetError(
                f"{what}: {file} in {root} is not named like CelebA-HQ's 0.jpg to 29999.jpg; "
                "use dataset=folder for other images"
            )
        if number in numbers:
            raise DatasetError(f"{what}: {numbers[number]} and {file} in {root} are both image {number}; keep one")
        numbers[number] = file
    told = read_tables(listing, ages, attributes)
    return Dataset(
        name="celeba_hq",
        root=root,
        files=files,
        ages=told.ages.years,
        age_source=told.ages.source,
        attributes=told.attributes.columns,
        licence="non-commercial research and education (CelebAMask-HQ)",
        attribution="Karras et al.: Progressive Growing of GANs, ICLR 2018; Lee et al.: MaskGAN, CVPR 2020",
        remarks=(*told.remarks, *count_remarks(what, {"images": len(files)}, {"images": 30000})),
    )


def celebref_hq(
    path: GivenPath | None,
    ages: GivenPath | None = None,
    attributes: GivenPath | None = None,
    aligned: bool | None = None,
) -> Dataset:
    """Return CelebRef-HQ: one folder of images for each person.

    File names repeat from person to person, so an id is ``<folder>_<name>``. The folder is the true identity: the
    builder sees it with ``build.identity=truth`` only.

    Args:
        path: the folder that holds the folders.
        ages: see `ffhqref.datasets.ages.read_ages`; its table names images by id or path.
        attributes: see `ffhqref.datasets.attributes.read_attributes`.
        aligned: whether the images are aligned the FFHQ way; otherwise faces are detected and aligned. None: they
            are, which a build checks on a few.

    Raises:
        DatasetError: an image outside a person's folder.
    """
    root = root_of(path, "celebref_hq", "the folder of people's folders: dataset.path=/path/to/CelebRef-HQ")
    what = "dataset=celebref_hq"
    listing = list_images(
        root,
        what,
        "set dataset.path to the folder that holds one folder for each person",
        name=id_of_path,
    )
    files = listing.files
    truth = {image_id: Path(file).parent.as_posix() for image_id, file in files.items()}
    stray = next((image_id for image_id, person in truth.items() if person == "."), None)
    if stray is not None:
        raise DatasetError(f"{what}: {files[stray]} lies in {root} itself, expected in a folder of its person")
    told = read_tables(listing, ages, attributes)
    found = {"images": len(files), "people": len(set(truth.values()))}
    return Dataset(
        name="celebref_hq",
        root=root,
        files=files,
        aligned=aligned is not False,
        told_aligned=aligned is not None,
        ages=told.ages.years,
        age_source=told.ages.source,
        attributes=told.attributes.columns,
        truth=truth,
        licence="non-commercial, CC BY-NC-SA 4.0 (DMDNet)",
        attribution="Li et al.: Learning Dual Memory Dictionaries for Blind Face Restoration, TPAMI 2023",
        remarks=(*told.remarks, *count_remarks(what, found, {"images": 10555, "people": 1005})),
    )
