"""Whether the images of a case are what they are said to be: by pixels, cheap on a second run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ffhqref.core.errors import ImageError
from ffhqref.core.hashing import content_key
from ffhqref.core.images import SIZE, read_rgb
from ffhqref.engine.base import Stage
from ffhqref.reference_sets.copies import ALIKE, thumbnail

EQUAL = 0.5
"""Mean absolute difference in grey levels below which two images have the same pixels but for rounding."""


@dataclass(frozen=True)
class CompareRow:
    """Two images, by absolute path and by the hash of the file."""

    case_id: str
    first: str
    first_sha256: str
    second: str
    second_sha256: str


@dataclass(frozen=True)
class CompareResult:
    """Mean absolute differences in grey levels of two images; none where one cannot be read."""

    full: float | None
    """At 512x512."""
    small: float | None
    """Of thumbnails."""

    @property
    def equal(self) -> bool:
        """Whether the two have the same pixels."""
        return self.full is not None and self.full < EQUAL

    @property
    def alike(self) -> bool:
        """Whether the two show one photograph."""
        return self.small is not None and self.small < ALIKE


class CompareStage(Stage[CompareRow, CompareResult]):
    """Compare pairs of images."""

    name = "compare"
    version = "1"
    batch_size = 16

    def key(self, row: CompareRow) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, row.first_sha256, row.second_sha256)

    def process(self, rows: Sequence[CompareRow]) -> list[CompareResult]:
        """Compare the pairs."""
        return [self._one(row) for row in rows]

    def _one(self, row: CompareRow) -> CompareResult:
        try:
            first = read_rgb(row.first, SIZE, sha256=row.first_sha256)
            second = read_rgb(row.second, SIZE, sha256=row.second_sha256)
        except ImageError:
            return CompareResult(None, None)
        full = float(np.abs(first.astype(np.float32) - second.astype(np.float32)).mean())
        return CompareResult(full, float(np.abs(thumbnail(first) - thumbnail(second)).mean()))
