"""PSNR, and the PSNR of the VQFR family after colour matching."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.metrics._pixels import luma
from ffhqref.metrics.base import PairMetric

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PSNR(PairMetric):
    """Peak signal-to-noise ratio in dB on a range of 1, with 1e-8 added to the squared error.

    The 1e-8 caps identical images at 80 dB, as in pyiqa, which ReF-LDM's ``scripts/eval.py`` uses.

    Args:
        colour: ``"rgb"``: over all three channels (pyiqa ``psnr``). ``"y"``: over the unrounded YIQ luma (pyiqa
            ``psnry``); not the studio-range YCbCr luma of BasicSR, which is about 1.3 dB higher.
    """

    def __init__(self, colour: str = "rgb") -> None:
        if colour not in ("rgb", "y"):
            raise ConfigError(f"psnr: colour '{colour}' is not known, expected rgb or y")
        self.colour = colour
        space = "rgb" if colour == "rgb" else "yiq-luma"
        self.signature = f"psnr|{space}|range=1|eps=1e-8|vs gt|dB|v1"

    def value(self, output: NDArray[np.float32], gt: NDArray[np.float32]) -> float:
        """Return the PSNR of two images float32 [3, H, W] in 0..1."""
        if self.colour == "y":
            output, gt = luma(output), luma(gt)
        error = float(np.mean(np.square(output.astype(np.float64) - gt)))
        return 10.0 * float(np.log10(1.0 / (error + 1e-8)))


class LumaPSNR(PSNR):
    """PSNR over luma."""

    def __init__(self) -> None:
        super().__init__("y")


class MatchedPSNR(PairMetric):
    """PSNR of the VQFR family: RGB, each channel of the output brought to the ground truth's mean and deviation.

    Not comparable with plain PSNR. NaN for an output with a constant channel, which cannot be matched; infinite for
    images that are equal after matching.
    """

    signature = "psnr|rgb|range=255|output matched to gt mean+std per channel (VQFR metric_paper)|vs gt|dB|v2"

    def value(self, output: NDArray[np.float32], gt: NDArray[np.float32]) -> float:
        """Return the PSNR of two images float32 [3, H, W] in 0..1 after matching."""
        error = float(np.mean((match_mean_deviation(output, gt) - gt.astype(np.float64) * 255.0) ** 2))
        return float("inf") if error == 0.0 else 10.0 * float(np.log10(255.0**2 / error))


def match_mean_deviation(output: NDArray[np.float32], gt: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the output in 0..255, [3, H, W], each channel with the mean and deviation of the ground truth's.

    VQFR's ``metric_paper/calculate_psnr_ssim.py`` shifts, scales about zero, and does both twice. The second round
    corrects the mean, which the first scaling moved, and scales by 1. The outcome is the affine map that matches both
    moments, computed here directly. The result is neither rounded nor clipped, as there.
    """
    found, wanted = output.astype(np.float64) * 255.0, gt.astype(np.float64) * 255.0
    mean, deviation = found.mean(axis=(1, 2), keepdims=True), found.std(axis=(1, 2), keepdims=True)
    scale = np.divide(
        wanted.std(axis=(1, 2), keepdims=True), deviation, out=np.full_like(deviation, np.nan), where=deviation > 1e-9
    )
    return np.asarray((found - mean) * scale + wanted.mean(axis=(1, 2), keepdims=True))
