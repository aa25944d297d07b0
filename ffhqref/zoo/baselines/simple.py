"""Controls: the input as it is, bicubic interpolation, and the first reference in place of a restoration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError
from ffhqref.restorers.base import RestorationBatch, Restorer, RestorerInfo
from ffhqref.zoo.shared.arrays import map_pictures, reduce_by

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class LowQuality(Restorer):
    """Returns the LQ image: the floor that every method has to beat."""

    info = RestorerInfo(
        name="lq", summary="the low-quality input, unchanged", input_size=None, passthrough=True,
        verified_against="bit-equal to its input",
    )  # fmt: skip
    batch_size = 16

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return a copy of the input."""
        return batch.lq.clone()


class Bicubic(Restorer):
    """Bicubic enlargement of a small image, as the baseline of super-resolution papers.

    An LQ file is already 512x512: the degradation enlarged it bilinearly from 1/r of that, and r
    is unknown to a blind method. So the image is averaged down by a fixed ``factor`` first, which nearly undoes
    the enlargement where r >= factor (about 0.3 dB are lost on a clean face) and takes noise and JPEG blocks away,
    then enlarged with OpenCV's bicubic filter (a = -0.75). The default 4 is the factor of the usual x4 networks
    (`realesrgan` starts from the same small image) and the middle of FFHQ-Ref-Moderate (r 1-8).

    Args:
        factor: how many times smaller the image is made, at least 1.
    """

    info = RestorerInfo(
        name="bicubic", summary="averaged down by 4, enlarged bicubically", input_size=None, passthrough=True,
        verified_against="OpenCV's resize",
    )  # fmt: skip
    batch_size = 16

    def __init__(self, factor: float = 4.0) -> None:
        if not factor >= 1:
            raise ConfigError(f"restorer bicubic: factor={factor}, expected a number of at least 1")
        self.factor = float(factor)

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1."""
        return map_pictures(self._one, batch.lq)

    def _one(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        import cv2

        height, width = picture.shape[:2]
        made: NDArray[np.float32] = cv2.resize(
            reduce_by(picture, self.factor), (width, height), interpolation=cv2.INTER_CUBIC
        )
        return made


class FirstReference(Restorer):
    """Returns the first reference: a control that shows what identity metrics alone reward."""

    info = RestorerInfo(
        name="reference", summary="the first reference, whatever the input", min_references=1, max_references=1,
        input_size=None, verified_against="bit-equal to the reference",
    )  # fmt: skip
    batch_size = 16

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return the first reference of each case, resized bicubically where its size is another."""
        import torch

        size = batch.lq.shape[-2:]
        chosen = []
        for references in batch.references:
            picture = references[:1]
            if picture.shape[-2:] != size:
                picture = torch.nn.functional.interpolate(picture, size=size, mode="bicubic", antialias=True)
            chosen.append(picture)
        return torch.cat(chosen).clamp(0.0, 1.0)
