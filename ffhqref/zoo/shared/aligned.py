"""What the scripts of blind restorers do to an aligned face around their network.

GFPGAN, RestoreFormer, RestoreFormer++ and CodeFormer (``inference_*.py`` and facexlib's helper class) agree: resize
to the network's side with OpenCV's bilinear filter in 8 bit, −1..1, network, clamp, round half to even to 8 bit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import DependencyError
from ffhqref.core.images import SIZE, to_tensor, to_uint8
from ffhqref.zoo.shared.network import NetworkRestorer

if TYPE_CHECKING:
    import torch

    from ffhqref.restorers.base import RestorationBatch


class AlignedRestorer(NetworkRestorer):
    """Base of restorers of one aligned face without references. A subclass sets `side` and writes `_restored`.

    Faces go through the network one by one, as published: a batch rounds otherwise, and where a network picks codes
    the least difference can pick another one.
    """

    side: int
    """Side of the images that the network takes and gives, in pixels."""

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB on the CPU, resized back where the batch is not of `side`."""
        return resized(self.restore_faces(batch.lq, batch.seeds), batch.lq.shape[-2:])

    def restore_faces(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Return what the published script writes for LQ images of any size.

        Args:
            lq: float32 [B, 3, H, W] in 0..1 RGB.
            seeds: one an image.

        Returns:
            float32 [B, 3, side, side] in 0..1 RGB on the CPU, before the rounding to 8 bit.
        """
        import torch

        with torch.no_grad():
            faces = resize_8bit(lq, self.side).split(1)
            return torch.cat([self._restored(face, seed).cpu() for face, seed in zip(faces, seeds, strict=True)])

    def _restored(self, face: torch.Tensor, seed: int) -> torch.Tensor:
        """Return a restored face in 0..1 from a face in 0..1, both float32 [1, 3, side, side]."""
        raise NotImplementedError


def resize_8bit(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """Return images [B, 3, H, W] in 0..1 at [B, 3, side, side], as OpenCV's ``resize`` makes them of 8-bit files.

    Images that have the size are returned as they are.
    """
    if tuple(pictures.shape[-2:]) == (side, side):
        return pictures
    import cv2

    return to_tensor(
        [
            np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
            for picture in to_uint8(pictures)
        ]
    )


def enlarged(pictures: torch.Tensor) -> torch.Tensor:
    """Return images [N, 3, H, W] in 0..1 as DMDNet's and ASFFNet's readers make them of 8-bit files.

    Where a side is under 512 they are brought to 512x512 by OpenCV's area filter; others stay.
    """
    if not len(pictures) or min(pictures.shape[2:]) >= SIZE:
        return pictures
    import cv2

    return to_tensor(
        [
            np.asarray(cv2.resize(one, (SIZE, SIZE), interpolation=cv2.INTER_AREA), dtype=np.uint8)
            for one in to_uint8(pictures)
        ]
    )


def resized(pictures: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return images [B, 3, H, W] in 0..1 at another size (height, width), bicubic with antialiasing."""
    if tuple(pictures.shape[-2:]) == tuple(size):
        return pictures
    from torch.nn import functional as F

    made = F.interpolate(pictures, size=tuple(size), mode="bicubic", antialias=True, align_corners=False)
    return made.clamp(0.0, 1.0)


def need_package(restorer: str, package: str, extra: str) -> None:
    """Check that an optional package is installed, without importing it.

    Raises:
        DependencyError: it is not; the line names the extra that brings it.
    """
    if importlib.util.find_spec(package) is None:
        raise DependencyError(
            f"restorer '{restorer}' needs the package '{package.replace('_', '-')}', which is not installed: "
            f"pip install 'ffhqref[{extra}]'"
        )
