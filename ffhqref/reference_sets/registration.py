"""Whether two images are one photograph: registered by local features, then compared cell by cell.

Re-encoded, resized, cropped, rotated, grey, brighter and mirrored copies keep the fine structure everywhere; two
photographs of one person, even of one sitting, differ somewhere: at the mouth, the eyes, the hair. So the two are
brought into register by a similarity transform between SIFT features, and the worst of the cells that have structure
decides. Measured by ``benchmarks/copies.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH = 256
"""Height and width in pixels at which images are compared."""

FEATURES, RATIO, INLIERS, ERROR = 400, 0.85, 15, 2.0
"""SIFT features of an image, Lowe's ratio, matches that must fit one transform, and how well, in pixels."""

SCALES = (0.5, 2.0)
"""Sizes of a face in two copies, as a ratio."""

CELL, CELLS, BORDER = 32, 12, 13
"""Size of a cell, the least number of them that both images show, and the rim left out, in pixels."""

CORRELATION = 0.9
"""Normalised cross-correlation of the worst cells (their 5 % quantile) from which on two images are one photograph.
Of copies it is .93 and more (64 px thumbnails apart: .84 to .90), of 480 pairs of photographs of one person at most
.84."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """An image prepared to be compared.

    Args:
        grey: uint8 [256, 256].
    """

    grey: NDArray[np.uint8]

    @classmethod
    def of(cls, image: NDArray[np.uint8]) -> Photograph:
        """Prepare an image, uint8 RGB [H, W, 3] of any size."""
        import cv2

        return cls(cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (WIDTH, WIDTH), interpolation=cv2.INTER_AREA))

    @cached_property
    def mirrored(self) -> Photograph:
        """The mirror image."""
        return Photograph(np.ascontiguousarray(self.grey[:, ::-1]))

    @cached_property
    def features(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Points [N, 2] and their descriptors [N, 128] (RootSIFT)."""
        import cv2

        points, found = cv2.SIFT.create(nfeatures=FEATURES, contrastThreshold=0.02).detectAndCompute(self.grey, None)
        if found is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
        return np.array([point.pt for point in points], np.float32), np.sqrt(
            found / np.maximum(found.sum(axis=1, keepdims=True), 1e-9)
        )

    @cached_property
    def structure(self) -> NDArray[np.float32]:
        """Details of a few pixels: without light and colour, which copies change, and without the noise of codecs."""
        import cv2

        grey = self.grey.astype(np.float32)
        details: NDArray[np.float32] = cv2.GaussianBlur(grey, (0, 0), 1.2) - cv2.GaussianBlur(grey, (0, 0), 4.0)
        return details


def are_one_photograph(first: Photograph, second: Photograph) -> bool:
    """Return whether one image is a copy of the other: re-encoded, resized, cropped, turned, grey or mirrored."""
    return any(likeness(first, other) >= CORRELATION for other in (second, second.mirrored))


def likeness(first: Photograph, second: Photograph) -> float:
    """Return the correlation of the worst cells of two images in register, -1 where they cannot be registered."""
    transform = _registered(first, second)
    return -1.0 if transform is None else _worst(first, second, transform)


def _registered(first: Photograph, second: Photograph) -> NDArray[np.float64] | None:
    """Return the similarity transform from the second image to the first, float64 [2, 3]."""
    import cv2

    (to, wanted), (start, offered) = first.features, second.features
    if min(len(to), len(start)) < INLIERS:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(offered, wanted, k=2)
    good = [(best.queryIdx, best.trainIdx) for best, other in pairs if best.distance < RATIO * other.distance]
    if len(good) < INLIERS:
        return None
    here, there = np.array(good).T
    transform, fits = cv2.estimateAffinePartial2D(
        start[here], to[there], method=cv2.RANSAC, ransacReprojThreshold=ERROR
    )
    if transform is None or int(fits.sum()) < INLIERS:
        return None
    scale = float(np.hypot(transform[0, 0], transform[0, 1]))
    return transform if SCALES[0] < scale < SCALES[1] else None


def _worst(first: Photograph, second: Photograph, transform: NDArray[np.float64]) -> float:
    """Return the 5 % quantile of the correlation over the cells with the most structure, half of them."""
    import cv2

    warped = Photograph(cv2.warpAffine(second.grey, transform, (WIDTH, WIDTH)))
    white = np.full((WIDTH, WIDTH), 255, np.uint8)
    seen = cv2.erode(cv2.warpAffine(white, transform, (WIDTH, WIDTH)), np.ones((BORDER, BORDER), np.uint8)) == 255
    one, other, both = (_cells(plane) for plane in (first.structure, warped.structure, seen))
    whole = both.mean(axis=1) == 1
    if int(whole.sum()) < CELLS:
        return -1.0
    one, other = (cells[whole] - cells[whole].mean(axis=1, keepdims=True) for cells in (one, other))
    deviations = np.sqrt((one**2).mean(axis=1)), np.sqrt((other**2).mean(axis=1))
    correlations = (one * other).mean(axis=1) / np.maximum(deviations[0] * deviations[1], 1e-6)
    structure = np.maximum(*deviations)
    return float(np.quantile(correlations[structure >= np.median(structure)], 0.05))


def _cells(plane: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the cells of a plane [256, 256], one a row."""
    count = WIDTH // CELL
    cut = plane.reshape(count, CELL, count, CELL).swapaxes(1, 2)
    return cut.reshape(count * count, CELL * CELL).astype(np.float32)
