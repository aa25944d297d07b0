"""DR2's low-pass filter: down by N and up again, in the manner of MATLAB's imresize."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def low_pass(pictures: torch.Tensor, factor: int) -> torch.Tensor:
    """Return the low frequencies of images [B, 3, S, S]; the factor must divide S."""
    side = pictures.shape[-1]
    down = _on(pictures, imresize_weights(side, side // factor))
    up = _on(pictures, imresize_weights(side // factor, side))
    small = (down @ pictures) @ down.T
    return (up @ small) @ up.T


@cache
def imresize_weights(before: int, after: int) -> NDArray[np.float32]:
    """Return the weights [after, before] of one side: cubic (a = −0.5), antialiased when it shrinks, edges mirrored.

    Args:
        before: pixels in.
        after: pixels out.
    """
    scale = after / before
    narrow = min(scale, 1.0)
    support = 4.0 / narrow
    # positions count from 1, as there
    position = np.arange(1, after + 1) / scale + 0.5 * (1.0 - 1.0 / scale)
    taps = np.floor(position - support / 2)[:, None] + np.arange(int(np.ceil(support)) + 2)
    weights = narrow * _cubic(narrow * (position[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.append(np.arange(before), np.arange(before)[::-1])
    columns = mirrored[(taps.astype(np.int64) - 1) % (2 * before)]
    matrix = np.zeros((after, before))
    np.add.at(matrix, (np.arange(after)[:, None], columns), weights)
    return matrix.astype(np.float32)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    d = np.abs(distance)
    near = 1.5 * d**3 - 2.5 * d**2 + 1.0
    far = -0.5 * d**3 + 2.5 * d**2 - 4.0 * d + 2.0
    return np.where(d <= 1, near, np.where(d <= 2, far, 0.0))


def _on(pictures: torch.Tensor, matrix: NDArray[np.float32]) -> torch.Tensor:
    import torch

    return torch.tensor(matrix, device=pictures.device)
