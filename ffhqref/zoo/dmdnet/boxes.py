"""Where the parts of a face are: from 68 landmarks to the boxes that DMDNet cuts out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = ("LE", "RE", "MO")
"""Left eye, right eye, mouth, as seen; the published code computes a box for the nose too and never uses it."""

_NAMES = {"LE": "left eye", "RE": "right eye", "MO": "mouth"}
_LOW, _HIGH = 8, 504
_EYES = {"LE": (slice(36, 42), slice(17, 22)), "RE": (slice(42, 48), slice(22, 27))}
_MOUTH = slice(48, 68)


def part_boxes(landmarks: NDArray[np.floating], height: int = 512, width: int = 512) -> dict[str, tuple[int, ...]]:
    """Return the boxes (x1, y1, x2, y2) of `PARTS` in pixels.

    The published ``get_component_location``: landmarks are held within 8..504 whatever the image's size, an eye's
    box reaches up to the brow, results are truncated towards zero.

    Args:
        landmarks: [68, 2] (x, y) in the 300-W order, in pixels of the image.
        height: of the image.
        width: of the image.

    Raises:
        ImageError: the landmarks are not 68 finite points, or a box leaves the image or is too small to cut out
            of the coarsest map; the published code then stops, or cuts out something else.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise ImageError(f"expected 68 finite landmarks [68, 2], got {list(points.shape)}")
    points = points.clip(_LOW, _HIGH)
    boxes = {part: _eye(points[eye], points[brow]) for part, (eye, brow) in _EYES.items()}
    boxes["MO"] = _mouth(points[_MOUTH])
    whole = {part: tuple(int(value) for value in box) for part, box in boxes.items()}
    for part, (x1, y1, x2, y2) in whole.items():
        inside = x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height
        if not inside or x2 // 8 <= x1 // 8 or y2 // 8 <= y1 // 8:
            raise ImageError(
                f"the box of the {_NAMES[part]} is ({x1}, {y1}) to ({x2}, {y2}) in an image of {width}x{height}: "
                "its landmarks cannot be right"
            )
    return whole


def _eye(eye: NDArray[np.float64], brow: NDArray[np.float64]) -> tuple[float, ...]:
    x, y = eye.mean(axis=0)
    above = 1.3 * (y - min(eye[:, 1].min(), brow[:, 1].min()))
    below = above / 1.9
    half = (above + below) / 2
    return x - half + 1, y - above + 1, x + half, y + below


def _mouth(mouth: NDArray[np.float64]) -> tuple[float, ...]:
    x, y = mouth.mean(axis=0)
    radius = 1.1 * max(float((mouth.max(axis=0) - mouth.min(axis=0)).max()) / 2, 16.0)
    return x - radius + 1, y - radius + 1, min(x + radius, 510.0), min(y + radius, 510.0)
