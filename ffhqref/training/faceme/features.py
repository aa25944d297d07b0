"""Identity features of images on disk: one ``.npy`` an image and kind, in the published layout.

ArcFace: float32 [1, 512] of unit length; CLIP: float32 [1, 2048]. The published preparation writes them with NumPy,
its training reads them with torch and so cannot read what it wrote; files of either kind are read here.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import DatasetError
from ffhqref.core.files import read_regular, write_atomic
from ffhqref.core.parsing import load_reason

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

KINDS = ("id_emb", "clip_emb")
"""Folders of ArcFace vectors and of CLIP features, as published."""


def write_feature(path: str | Path, vector: ArrayLike) -> None:
    """Write one feature vector [D] as a NumPy file of float32 [1, D], atomically."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(vector, np.float32).reshape(1, -1), allow_pickle=False)
    write_atomic(path, stream.getvalue())


def read_feature(path: str | Path) -> NDArray[np.float32]:
    """Return a feature vector, float32 [D].

    Args:
        path: written by NumPy (``numpy.save``) or by torch (``torch.save`` of a tensor), whatever its name.

    Raises:
        DatasetError: the file is missing, neither of the two, or holds no vector of finite numbers.
    """
    path = Path(path)
    try:
        data = read_regular(path)
    except OSError as error:
        raise DatasetError(f"no feature file {path} ({error.strerror}); run ffhqref prepare") from None
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False) if data.startswith(b"\x93NUMPY") else _by_torch(data)
        vector = np.asarray(values, np.float32)
    except Exception as error:  # noqa: BLE001 -- a damaged file fails in many ways, which all mean the same
        raise DatasetError(
            f"{path}: no feature vector ({load_reason(error)}); expected a .npy of NumPy, or a tensor"
        ) from None
    if not vector.ndim or not vector.size or vector.size != vector.shape[-1] or not np.isfinite(vector).all():
        raise DatasetError(f"{path}: expected one vector of finite numbers, [D] or [1, D], not {list(vector.shape)}")
    return vector.reshape(-1)


def _by_torch(data: bytes) -> NDArray[np.float32]:
    import torch

    values = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"a {type(values).__name__}")
    return np.asarray(values.detach().float().numpy())


class FeatureFiles:
    """Feature vectors by path, kept in memory once read.

    Args:
        keep: at most this many are kept; the others are read again.
    """

    def __init__(self, keep: int = 200_000) -> None:
        self._keep = keep
        self._known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, path: str) -> NDArray[np.float32]:
        """Return the vector of a file, float32 [D]; see `read_feature`."""
        found = self._known.get(path)
        if found is None:
            found = read_feature(path)
            if len(self._known) < self._keep:
                self._known[path] = found
        return found
