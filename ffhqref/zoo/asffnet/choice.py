"""From 68 landmarks of each image to the reference that is nearest in pose and expression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BROWS_AND_EYES = [*range(17, 27), *range(36, 48)]
_MOUTH = list(range(48, 68))
_CHIN, _BROW = 8, 19


def one_face(found: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the landmarks [68, 2] of the face that is tallest from brow to chin, the first of several.

    Args:
        found: [68, 2] or [faces, 68, 2] (x, y) in pixels in the 300-W order.

    Raises:
        ImageError: there is no face, or there are not 68 finite points.
    """
    faces = np.asarray(found, dtype=np.float64)
    faces = faces[None] if faces.ndim == 2 else faces
    if faces.ndim == 3 and not len(faces):
        raise ImageError("no face found")
    if faces.shape[1:] != (68, 2) or not np.isfinite(faces).all():
        raise ImageError(f"expected 68 finite landmarks [68, 2], got {list(np.shape(found))}")
    best: NDArray[np.float64] = faces[int((faces[:, _CHIN, 1] - faces[:, _BROW, 1]).argmax())]
    return best


def distances(lq: NDArray[np.floating], references: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Return how far each reference's brows, eyes and mouth are from the LQ image's after an affine fit of each group.

    Args:
        lq: landmarks [68, 2].
        references: landmarks [68, 2] each.
    """

    def residual(points: NDArray[np.floating], group: list[int]) -> float:
        given, wanted = np.column_stack([points[group], np.ones(len(group))]), np.asarray(lq[group], dtype=np.float64)
        fit = np.linalg.lstsq(given, wanted, rcond=None)[0]
        return float(np.linalg.norm(given @ fit - wanted))

    return np.array(
        [1.01 * residual(points, _BROWS_AND_EYES) + 1.49 * residual(points, _MOUTH) for points in references]
    )
