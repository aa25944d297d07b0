"""One case of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.images import SIZE, read_rgb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """What a benchmark asks of a method. Images are read when they are asked for: uint8 RGB [512, 512, 3]."""

    case_id: str
    benchmark: str
    lq_path: Path
    gt_path: Path | None
    reference_paths: tuple[Path, ...]
    """Best first."""
    seed: int
    """Of the case, the same for all methods."""
    age: float | None
    """Of the person in years, where known."""

    @property
    def lq(self) -> NDArray[np.uint8]:
        """The low-quality image."""
        return read_rgb(self.lq_path, SIZE)

    @property
    def gt(self) -> NDArray[np.uint8] | None:
        """The ground truth; None where there is none."""
        return None if self.gt_path is None else read_rgb(self.gt_path, SIZE)

    @property
    def references(self) -> list[NDArray[np.uint8]]:
        """The references."""
        return [read_rgb(path, SIZE) for path in self.reference_paths]
