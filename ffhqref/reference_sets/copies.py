"""One image under two names: a reference that is its own target gives the ground truth away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ImageError
from ffhqref.core.images import read_rgb

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

THUMBNAIL = 64
"""Height and width in pixels at which images are compared: codecs and sizes leave no trace there."""

ALIKE = 6.0
"""Mean absolute difference in grey levels below which two thumbnails show one photograph. On the sample, a JPEG copy of
quality 30 differs by up to 1.9, of quality 10 by 4.9, two images of one person by 15 and more."""


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return an image as float32 [64, 64, 3], area-averaged."""
    import cv2

    made: NDArray[np.float32] = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(
        np.float32
    )
    return made


def are_alike(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Return whether two aligned images, uint8 RGB of any size, show one photograph: equal or nearly equal pixels."""
    return float(np.abs(thumbnail(first) - thumbnail(second)).mean()) < ALIKE


def find_copies(
    pairs: Iterable[tuple[str, str]], sha256: dict[str, str], path: Callable[[str], Path]
) -> list[tuple[str, str]]:
    """Return the pairs of images that are one photograph.

    Args:
        pairs: of image ids.
        sha256: image id to hash of the file.
        path: of an image id.
    """
    found = []
    for first, second in pairs:
        if sha256[first] == sha256[second]:
            found.append((first, second))
            continue
        try:
            if are_alike(read_rgb(path(first)), read_rgb(path(second))):
                found.append((first, second))
        except ImageError:
            continue
    return found


def describe_copies(
    references: pd.DataFrame, images: pd.DataFrame, image: Callable[[str], Path], max_distance: float
) -> list[str]:
    """Return which targets of val and test are among their own references, by pixels.

    Only references much nearer than `max_distance` are looked at: equal pixels have nearly equal vectors.

    Args:
        references: table ``references``.
        images: table ``images``.
        image: path of a path in that table.
        max_distance: of the reference set.
    """
    strict = references[references["split"].isin(["val", "test"])]
    near = strict[~(strict["distance"] >= max_distance / 4)]
    listed = set(images.loc[images["error"].isna(), "image_id"])
    pairs = [
        (target, reference)
        for target, reference in zip(near["target_id"], near["reference_id"], strict=True)
        if target in listed and reference in listed
    ]
    sha256 = dict(zip(images["image_id"], images["sha256"], strict=True))
    paths = dict(zip(images["image_id"], images["path"], strict=True))
    found = find_copies(pairs, sha256, lambda image_id: image(paths[image_id]))
    if not found:
        return []
    target, reference = found[0]
    return [
        (
            f"{len(found)} references in val and test are copies of their targets, first '{reference}' of '{target}': "
            "restorers are given the ground truth; leave them out with exclusions=FILE, or raise embedder.min_distance"
        )
    ]
