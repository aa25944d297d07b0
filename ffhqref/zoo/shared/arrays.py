"""Between torch batches and the single NumPy images that OpenCV, scikit-image and ncnn take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def map_pictures(restore: Callable[[NDArray[np.float32]], NDArray[np.floating]], batch: torch.Tensor) -> torch.Tensor:
    """Apply a function of one float32 RGB image [H, W, 3] in 0..1 to each of a batch [B, 3, H, W].

    Returns:
        float32 [B, 3, H, W] on the CPU, clamped to 0..1.
    """
    import torch

    pictures = batch.detach().cpu().permute(0, 2, 3, 1).contiguous().numpy()
    made = np.stack([np.asarray(restore(picture), dtype=np.float32) for picture in pictures])
    return torch.from_numpy(made).permute(0, 3, 1, 2).contiguous().clamp(0.0, 1.0)


def reduce_by(picture: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Return the image [H, W, 3] averaged down to 1/factor of its sides (rounded, at least one pixel)."""
    import cv2

    height, width = picture.shape[:2]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small: NDArray[np.float32] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return small
