"""Luma, Gaussian windows and filters that the classical metrics share."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

YIQ_LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in the Y of YIQ, full range: what pyiqa calls luma (its colour space "yiq")."""


def png_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey [H, W] of ``cv2.imread(path, 0)`` of a PNG, from its RGB [H, W, 3].

    OpenCV lets libpng convert: 15-bit weights, truncated. ``cvtColor`` rounds, so half of its pixels are one higher.
    """
    red, green, blue = image.astype(np.uint32).transpose(2, 0, 1)
    made: NDArray[np.uint8] = ((9797 * red + 19234 * green + 3737 * blue) >> 15).astype(np.uint8)
    return made


def luma(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the YIQ luma [H, W] in 0..1 of float32 RGB [3, H, W] in 0..1, in float32 like pyiqa."""
    red, green, blue = (np.float32(weight) for weight in YIQ_LUMA)
    made: NDArray[np.float32] = image[0] * red + image[1] * green + image[2] * blue
    return made


def grey_levels(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 0..1 as whole grey levels 0..255: pyiqa rounds, as MATLAB's 8-bit images imply."""
    made: NDArray[np.float64] = np.rint(values * np.float32(255.0)).astype(np.float64)
    return made


@cache
def gaussian_taps(size: int, sigma: float) -> NDArray[np.float64]:
    """Return a Gaussian window of ``size`` taps that sums to 1; its outer product is MATLAB's ``fspecial``."""
    at = np.arange(size) - (size - 1) / 2.0
    taps = np.exp(-(at**2) / (2.0 * sigma**2))
    return np.asarray(taps / taps.sum())


def filter_valid(plane: NDArray[np.float64], taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter [H, W] with a separable window and keep what needs no border: [H - n + 1, W - n + 1]."""
    margin = len(taps) // 2
    import cv2  # slow to import: options are read without it

    full = cv2.sepFilter2D(plane, cv2.CV_64F, taps, taps, borderType=cv2.BORDER_REFLECT)
    return np.asarray(full[margin : plane.shape[0] - margin, margin : plane.shape[1] - margin])
