"""A data set: the images of a folder, some people of it."""

from pathlib import Path

from ffhqref.datasets import Dataset
from ffhqref.datasets.base import list_images


def faces(path: str, first: int | None = None) -> Dataset:
    """Return the first images of a folder."""
    listing = list_images(Path(path), "dataset=toy_dataset", "set dataset.path to a folder of faces")
    files = dict(list(listing.files.items())[:first])
    return Dataset("toy", Path(path).resolve(), files, licence="CC0", remarks=("toy: these faces are toys",))
