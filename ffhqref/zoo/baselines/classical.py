"""Classical denoisers from libraries: what can be had without learning.

Both were chosen over Wiener filtering and Richardson-Lucy deconvolution with a Gaussian of 2 or 4 pixels, which
lose 0.1 to 6 dB against the unrestored LQ image on FFHQ-Ref-Moderate and -Severe: blur is unknown there, and
JPEG's blocks are what they sharpen. Non-local means and total variation gain a little on both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.restorers.base import RestorationBatch, Restorer, RestorerInfo
from ffhqref.zoo.shared.arrays import map_pictures

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


class NonLocalMeans(Restorer):
    """Non-local means in CIELAB (Buades et al. 2011), by OpenCV on 8-bit values; about 0.5 s a face on one core.

    Args:
        strength: filter strength for luminance and colour in grey levels; larger removes more noise and detail.
    """

    info = RestorerInfo(
        name="nlm", summary="non-local means denoising (OpenCV)", input_size=None, paper="10.5201/ipol.2011.bcm_nlm",
        verified_against="OpenCV's fastNlMeansDenoisingColored",
    )  # fmt: skip
    batch_size = 4

    def __init__(self, strength: float = 6.0) -> None:
        if not strength > 0:
            raise ConfigError(f"restorer nlm: strength={strength}, expected a number above 0")
        self.strength = float(strength)

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1, whole grey levels."""
        return map_pictures(self._one, batch.lq)

    def _one(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        import cv2

        # OpenCV takes the channels as BGR for its step to CIELAB
        levels = np.ascontiguousarray(np.rint(picture[..., ::-1] * 255).astype(np.uint8))
        made = cv2.fastNlMeansDenoisingColored(levels, None, self.strength, self.strength, 7, 21)
        found: NDArray[np.float32] = made[..., ::-1].astype(np.float32) / 255
        return found


class TotalVariation(Restorer):
    """Total-variation denoising (Chambolle 2004), by scikit-image; about 0.4 s a face on one core.

    Args:
        weight: denoising weight for values in 0..1; larger is smoother.
    """

    info = RestorerInfo(
        name="tv", summary="total-variation denoising (scikit-image)", input_size=None,
        paper="10.1023/B:JMIV.0000011325.36760.1e", verified_against="scikit-image's denoise_tv_chambolle",
    )  # fmt: skip
    batch_size = 4

    def __init__(self, weight: float = 0.05) -> None:
        if not weight > 0:
            raise ConfigError(f"restorer tv: weight={weight}, expected a number above 0")
        self.weight = float(weight)

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1."""
        return map_pictures(self._one, batch.lq)

    def _one(self, picture: NDArray[np.float32]) -> NDArray[np.floating]:
        from skimage.restoration import denoise_tv_chambolle

        made: NDArray[np.floating] = denoise_tv_chambolle(picture, weight=self.weight, channel_axis=-1)
        return made
