"""Checked embeddings in the order of their image ids, and the one definition of their distance.

Everything in this package that needs a distance takes it from here, so that two stages never disagree about a pair:

* The distance of two images is ``1 - cosine`` of their float32 vectors, in float64: both are divided by their norms,
  the products are summed row by row in NumPy's fixed order (no BLAS), negative rounding is cut at 0. The result does
  not depend on threads, block sizes or what else is computed beside it.
* Whether a pair is below the maximum is decided on that float64 number, strictly.
* Tables hold float32. The stored distance is the float32 at or next below the float64 one, so that a stored pair also
  reads as below the maximum, and one that reads as at or above a minimum truly is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

NORM_TOLERANCE = 1e-3
"""How far the length of an embedding may be from 1."""

_CHUNK_VALUES = 1 << 21
"""Float64 values a temporary array may hold (16 MiB), whatever the dimension."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of one network, sorted by image id.

    Make one with `Embeddings.checked`; the constructor believes what it is given.
    """

    image_ids: NDArray[np.object_]
    """[N] ids, sorted by code point, no two equal."""
    vectors: NDArray[np.float32]
    """[N, D], each of length 1 within `NORM_TOLERANCE`, in the order of ``image_ids``."""

    @classmethod
    def checked(cls, image_ids: Sequence[str] | NDArray[np.object_], vectors: ArrayLike) -> Embeddings:
        """Check and sort embeddings.

        Args:
            image_ids: N ids in any order.
            vectors: [N, D] numbers, L2-normalised, one row an image.

        Raises:
            DatasetError: an id that occurs twice, is empty or no string; a row that holds NaN or infinity, is zero or
                not normalised; shapes that do not fit. The message names the first such image.
        """
        ids = list(image_ids)
        rows = np.asarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or len(rows) != len(ids) or (len(ids) and not rows.shape[1]):
            raise DatasetError(f"embeddings: {len(ids)} image ids need vectors [{len(ids)}, D], got {list(rows.shape)}")
        wrong = [name for name in ids if not isinstance(name, str) or not name]
        if wrong:
            raise DatasetError(f"embeddings: an image id must be a non-empty string, got {wrong[0]!r}")
        order = sorted(range(len(ids)), key=ids.__getitem__)
        in_order = order == list(range(len(ids)))
        names = np.empty(len(ids), dtype=object)
        names[:] = ids if in_order else [ids[i] for i in order]
        doubled = np.flatnonzero(names[1:] == names[:-1])
        if len(doubled):
            raise DatasetError(f"embeddings: image id '{names[doubled[0]]}' occurs more than once; ids must be unique")
        rows = np.ascontiguousarray(rows if in_order else rows[order])
        _check_rows(names, rows)
        return cls(names, rows)

    @classmethod
    def of_table(cls, frame: pd.DataFrame) -> Embeddings:
        """Return the vectors of the table ``embeddings``, or of some of its rows, checked as `checked` does."""
        vectors = np.stack(frame["vector"].tolist()) if len(frame) else np.zeros((0, 1), np.float32)
        return cls.checked(frame["image_id"].tolist(), vectors)

    def __len__(self) -> int:
        return len(self.image_ids)

    def positions(self, image_ids: Iterable[str]) -> NDArray[np.intp]:
        """Return the rows of the given ids, int [M].

        Raises:
            DatasetError: an id has no embedding.
        """
        index = {name: i for i, name in enumerate(self.image_ids)}
        try:
            return np.array([index[name] for name in image_ids], dtype=np.intp)
        except KeyError as error:
            raise DatasetError(f"embeddings: image {error} has no embedding; embed it first") from None

    def units(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return rows as float64 [M, D] of length 1."""
        wide = self.vectors[rows].astype(np.float64)
        wide /= np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        return wide

    def pair_distances(self, left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the distances of the pairs of rows ``(left[i], right[i])``: float64 [M] in 0..2."""
        out = np.empty(len(left))
        chunk = max(1, _CHUNK_VALUES // max(1, self.vectors.shape[1]))
        for start in range(0, len(left), chunk):
            part = slice(start, start + chunk)
            out[part] = _distances(self.units(left[part]), self.units(right[part]))
        return out

    def known_distances(self, left: Iterable[str], right: Iterable[str]) -> NDArray[np.float64]:
        """Return the distances of pairs of ids: float64 [M] in 0..2, NaN where one of them has no embedding."""
        index = {name: i for i, name in enumerate(self.image_ids)}
        rows = np.array([[index.get(a, -1), index.get(b, -1)] for a, b in zip(left, right, strict=True)], np.intp)
        out = np.full(len(rows), np.nan)
        there = (rows >= 0).all(axis=1) if len(rows) else np.zeros(0, bool)
        out[there] = self.pair_distances(rows[there, 0], rows[there, 1]) if there.any() else out[there]
        return out


def _check_rows(names: NDArray[np.object_], rows: NDArray[np.float32]) -> None:
    chunk = max(1, _CHUNK_VALUES // max(1, rows.shape[1] if rows.size else 1))
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt((part.astype(np.float64) ** 2).sum(axis=1))
        bad = np.flatnonzero(~(np.abs(norms - 1.0) <= NORM_TOLERANCE))
        if not len(bad):
            continue
        name, norm = names[start + bad[0]], norms[bad[0]]
        if not np.isfinite(norm):
            what = "holds NaN or infinity; embed that image again or leave it out"
        elif norm == 0.0:
            what = "is zero; embed that image again or leave it out"
        else:
            what = f"has length {norm:.4g}, expected 1; divide each embedding by its L2 norm"
        raise DatasetError(f"embeddings: the vector of image '{name}' {what}")


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    made: NDArray[np.float64] = np.maximum(1.0 - (a * b).sum(axis=-1), 0.0)
    return made


def distances_to(units: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    """Return the distance of every unit vector [N, D] to the one at ``row``: float64 [N], 0 at ``row`` itself."""
    out = _distances(units, units[row])
    out[row] = 0.0
    return out


def distance_matrix(units: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return all distances between unit vectors [N, D]: float64 [N, N], symmetric to the last bit."""
    return np.stack([distances_to(units, i) for i in range(len(units))]) if len(units) else np.zeros((0, 0))


def stored(distances: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the float32 at or next below each distance: what tables hold.

    >>> bool(stored(np.array([0.4 - 1e-12]))[0] < 0.4)
    True
    """
    narrow = distances.astype(np.float32)
    return np.where(narrow > distances, np.nextafter(narrow, np.float32(-1)), narrow)


def check_distance(name: str, value: float) -> float:
    """Return a distance threshold as float.

    Raises:
        ConfigError: it is not in 0..2, the range of ``1 - cosine``.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 2.0:
        raise ConfigError(f"{name} must be a cosine distance in 0..2, got {value!r}")
    return float(value)
