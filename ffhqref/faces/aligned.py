"""Whether a folder of images is aligned the FFHQ way, on a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import DatasetError, ImageError
from ffhqref.core.images import SIZE, read_rgb, resize
from ffhqref.datasets.stage import MIN_SIDE
from ffhqref.faces.align import ffhq_square

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.datasets import Dataset
    from ffhqref.faces.detect import Detector

SAMPLE = 20
"""Images that are looked at, spread over the data set."""

ASIDE = 0.15
"""Mean distance of the corners of a face's FFHQ square from those of its image, in sizes of the image. Images of the
sample: up to .02; photographs of two other sets, aligned by others or with five landmarks: up to .09."""


def check_aligned(dataset: Dataset, detector: Detector) -> None:
    """Refuse a data set of which most images are not square, or show no face where FFHQ has it.

    Args:
        dataset: taken as aligned; images that cannot be read are not judged.
        detector: finds faces.

    Raises:
        DatasetError: with both remedies.
    """
    files = list(dataset.files.values())
    sample = [files[k] for k in np.unique(np.linspace(0, len(files) - 1, min(SAMPLE, len(files))).round().astype(int))]
    found = {file: fault for file in sample if (fault := _fault(dataset, file, detector)) is not None}
    wrong = {file: fault for file, fault in found.items() if fault}
    if 2 * len(wrong) > len(found):
        first = next(iter(wrong))
        raise DatasetError(
            f"{len(wrong)} of {len(found)} images looked at in {dataset.root} are not aligned the FFHQ way, first "
            f"{first}: {wrong[first]}; set dataset.aligned=false to detect and align faces, or "
            "dataset.aligned=true to take the images as they are"
        )


def _fault(dataset: Dataset, file: str, detector: Detector) -> str | None:
    """Return what is wrong with an image, empty for nothing, None where it cannot be read."""
    try:
        image = read_rgb(dataset.root / file, min_side=MIN_SIDE)
    except ImageError:
        return None
    height, width = image.shape[:2]
    if height != width:
        return f"{width}x{height} pixels"
    away = min((_aside(face.points) for face in detector(resize(image, SIZE))), default=None)
    return "no face" if away is None else "a face elsewhere" if away > ASIDE else ""


def _aside(points: NDArray[np.float64]) -> float:
    """Return the mean distance of a face's FFHQ square from the whole image, in sizes of the image."""
    whole = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    return float(np.hypot(*(ffhq_square(points) / SIZE - whole).T).mean())
