"""SSIM in two colour conventions, MS-SSIM, and the SSIM of the VQFR family after colour matching."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.metrics._pixels import filter_valid, gaussian_taps, grey_levels, luma
from ffhqref.metrics.base import PairMetric
from ffhqref.metrics.fidelity import match_mean_deviation

if TYPE_CHECKING:
    from numpy.typing import NDArray

_C1, _C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
_WINDOW = 11
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang, Simoncelli, Bovik, Asilomar 2003)."""


def similarity_maps(
    x: NDArray[np.float64], y: NDArray[np.float64], *, clip: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the SSIM map and its contrast-structure part for two planes [H, W] in 0..255.

    Window 11, sigma 1.5, no border, population moments. Only the sum of both variances enters the formula, so four
    filter passes suffice instead of five.

    Args:
        x: one plane.
        y: the other.
        clip: negative contrast-structure becomes 0 (pyiqa does this, BasicSR does not).
    """
    taps = gaussian_taps(_WINDOW, 1.5)
    mean_x, mean_y = filter_valid(x, taps), filter_valid(y, taps)
    product = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    variances = filter_valid(x * x + y * y, taps) - squares
    covariance = filter_valid(x * y, taps) - product
    structure = (2.0 * covariance + _C2) / (variances + _C2)
    if clip:
        np.maximum(structure, 0.0, out=structure)
    return (2.0 * product + _C1) / (squares + _C1) * structure, structure


class SSIM(PairMetric):
    """Structural similarity, 11x11 Gaussian window of sigma 1.5, valid region, on whole grey levels.

    Equal to pyiqa's, which ReF-LDM's ``scripts/eval.py`` uses: negative contrast-structure counts as 0, no
    downsampling. Images with a side below 11 have no value (NaN).

    Args:
        colour: ``"y"``: rounded YIQ luma (pyiqa ``ssim``); ``"rgb"``: mean over the three channels (pyiqa ``ssimc``).
    """

    def __init__(self, colour: str = "y") -> None:
        if colour not in ("rgb", "y"):
            raise ConfigError(f"ssim: colour '{colour}' is not known, expected rgb or y")
        self.colour = colour
        space = "rgb mean" if colour == "rgb" else "yiq-luma rounded"
        self.signature = f"ssim|{space}|gauss 11 sigma 1.5 valid|range=255|negative cs=0|vs gt|v1"

    def value(self, output: NDArray[np.float32], gt: NDArray[np.float32]) -> float:
        """Return the SSIM of two images float32 [3, H, W] in 0..1."""
        if min(output.shape[1:]) < _WINDOW:
            return float("nan")
        if self.colour == "y":
            planes = [(grey_levels(luma(output)), grey_levels(luma(gt)))]
        else:
            planes = list(zip(grey_levels(output), grey_levels(gt), strict=True))
        return float(np.mean([similarity_maps(x, y)[0].mean() for x, y in planes]))


class ChannelSSIM(SSIM):
    """SSIM as the mean over the three channels."""

    def __init__(self) -> None:
        super().__init__("rgb")


class MatchedSSIM(PairMetric):
    """SSIM of the VQFR family: BasicSR's formula on RGB, each channel brought to the ground truth's moments first.

    Not comparable with plain SSIM. Negative contrast-structure is kept, as in BasicSR.
    """

    signature = (
        "ssim|rgb mean|gauss 11 sigma 1.5 valid|range=255|output matched to gt mean+std per channel "
        "(VQFR metric_paper)|vs gt|v1"
    )

    def value(self, output: NDArray[np.float32], gt: NDArray[np.float32]) -> float:
        """Return the SSIM of two images float32 [3, H, W] in 0..1 after matching."""
        if min(output.shape[1:]) < _WINDOW:
            return float("nan")
        pairs = zip(match_mean_deviation(output, gt), gt.astype(np.float64) * 255.0, strict=True)
        return float(np.mean([similarity_maps(x, y, clip=False)[0].mean() for x, y in pairs]))


class MSSSIM(PairMetric):
    """Multi-scale SSIM over five scales of the rounded YIQ luma, as pyiqa ``ms_ssim``.

    Scales are halved by 2x2 means; an odd side is first padded with zeros at both ends, as pyiqa does. Images too
    small for an 11x11 window at the fifth scale have no value (NaN): the shorter side must be 161 or more.
    """

    signature = "ms_ssim|yiq-luma rounded|5 scales, product|gauss 11 sigma 1.5 valid|range=255|vs gt|v1"

    def value(self, output: NDArray[np.float32], gt: NDArray[np.float32]) -> float:
        """Return the MS-SSIM of two images float32 [3, H, W] in 0..1."""
        x, y = grey_levels(luma(output)), grey_levels(luma(gt))
        result = 1.0
        for scale, weight in enumerate(_SCALE_WEIGHTS):
            if min(x.shape) < _WINDOW:
                return float("nan")
            whole, structure = similarity_maps(x, y)
            last = scale == len(_SCALE_WEIGHTS) - 1
            result *= float((whole if last else structure).mean()) ** weight
            x, y = _halve(x), _halve(y)
        return result


def _halve(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 2x2 means; an odd side gets a zero at both ends first (average pooling that counts its padding)."""
    rows, columns = plane.shape[0] % 2, plane.shape[1] % 2
    if rows or columns:
        import cv2  # slow to import: options are read without it

        plane = cv2.copyMakeBorder(plane, rows, rows, columns, columns, cv2.BORDER_CONSTANT, value=0.0)
    plane = plane[: plane.shape[0] // 2 * 2, : plane.shape[1] // 2 * 2]
    return np.asarray((plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4.0)
