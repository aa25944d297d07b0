"""Where the parts of the face are, and where in the reference each place of the LQ image's map comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ImageError
from ffhqref.core.images import SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = slice(17, 68)
"""Landmarks without the jaw's."""

_SIDE, _STRIDE = SIZE // 4, 4


def mask_of(landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return ones around the parts of the face, zeros elsewhere, [512, 512].

    As published: nothing is drawn around a point within 3 pixels of the upper or left border.
    """
    mask = np.zeros((SIZE, SIZE), dtype=np.float32)
    for x, y in landmarks[PARTS]:
        left, top = (int(np.floor(value)) - 3 for value in (x, y))
        if 1 < x < SIZE - 2 and 1 < y < SIZE - 2 and left >= 0 and top >= 0:
            mask[top : int(np.ceil(y)) + 3, left : int(np.ceil(x)) + 3] = 1
    return mask


def sampling_grid(lq: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return where to sample the reference's map, [128, 128, 2] (x, y) in −1..1: affine moving least squares.

    As published: weights fall with the distance to the reference's points although places are the LQ image's, and a
    coordinate outside the map becomes 0, whichever border it left by.

    Args:
        lq: landmarks [68, 2] (x, y) in pixels of 512x512; float32 as a detector gives them.
        reference: landmarks likewise.

    Raises:
        ImageError: the points do not tell a transform.
    """
    q = (np.asarray(lq, dtype=np.float32)[PARTS, ::-1] / np.float32(_STRIDE)).astype(np.float64)
    p = np.asarray(reference, dtype=np.float64)[PARTS, ::-1] / _STRIDE
    rows, columns = np.divmod(np.arange(_SIDE**2), _SIDE)
    places = np.stack([rows, columns], axis=1).astype(np.float64)
    # row and column apart: arrays of [places, landmarks], faster than those of points
    rows_off, columns_off = _offsets(p, places)
    weights = 1 / (rows_off**2 + columns_off**2 + 2e-8)
    total = weights.sum(axis=1, keepdims=True)
    p_mean, q_mean = weights @ p / total, weights @ q / total
    p_off, q_off = _offsets(p, p_mean), _offsets(q, q_mean)
    weighted = [weights * offset for offset in p_off]
    try:
        back = np.linalg.inv(_products(weighted, q_off)) @ _products(weighted, p_off)
    except np.linalg.LinAlgError:
        raise ImageError("its landmarks cannot be right: they lie on a line") from None
    sources = ((places - q_mean)[:, None] @ back)[:, 0] + p_mean
    sources[(sources < 0) | (sources > _SIDE - 1)] = 0
    middle = _SIDE / 2
    grid: NDArray[np.float32] = ((sources[:, ::-1] - middle) / middle).astype(np.float32).reshape(_SIDE, _SIDE, 2)
    return grid


def _offsets(points: NDArray[np.float64], places: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return how far points [landmarks, 2] are from places [places, 2], in rows and in columns."""
    return [points[:, axis] - places[:, axis, None] for axis in (0, 1)]


def _products(ones: Sequence[NDArray[np.float64]], others: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return [places, 2, 2]: sums over landmarks of each row or column of the one times each of the other."""
    found = [[np.einsum("ni,ni->n", one, other) for other in others] for one in ones]
    return np.stack([np.stack(row, axis=-1) for row in found], axis=-2)
