"""What a metric is, and the batch it sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from ffhqref.core.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True)
class MetricBatch:
    """Pictures of several cases, decoded once for all metrics."""

    output: torch.Tensor
    """float32 [B, 3, H, W] in 0..1 RGB: what the restorer wrote, read back from its 8-bit file."""
    gt: torch.Tensor | None = None
    """float32 [B, 3, H, W] in 0..1 RGB, or None when the benchmark has no ground truth."""
    references: Sequence[Sequence[torch.Tensor]] = field(default_factory=list)
    """For each case its references in order, float32 [3, H, W] in 0..1 RGB; empty: not loaded."""
    output_ids: Sequence[str] = ()
    """One content hash a case, so that work on a picture may be remembered. Empty: unknown."""
    gt_ids: Sequence[str] = ()
    """The same for the ground truth."""
    reference_ids: Sequence[Sequence[str]] = ()
    """The same for the references of each case."""

    def __len__(self) -> int:
        return int(self.output.shape[0])

    def gt_id(self, index: int) -> str:
        """Return the content hash of a case's ground truth; empty: unknown."""
        return self.gt_ids[index] if index < len(self.gt_ids) else ""


@dataclass(frozen=True)
class Runtime:
    """Where metrics with networks run and find their weights."""

    device: str = "cpu"
    weights_dir: Path | None = None
    """The configured weights folder, see `ffhqref.weights.files`."""
    download: bool = False
    """Whether a missing weight file may be fetched."""


class LastTruth(Generic[T]):
    """What a metric made of the last ground truth: outputs of one case follow each other. It does not pickle along."""

    def __init__(self) -> None:
        self._kept: tuple[str, T] | None = None

    def __getstate__(self) -> dict[str, None]:
        return {"_kept": None}

    def of(self, key: str, make: Callable[[], T]) -> T:
        """Return what ``make`` gives, or gave for the same ground truth.

        Args:
            key: `MetricBatch.gt_id`; empty: made anew.
            make: computes it.
        """
        if not key or self._kept is None or self._kept[0] != key:
            self._kept = (key, make())
        return self._kept[1]


@runtime_checkable
class Metric(Protocol):
    """One reproducible number for each case. It must pickle; networks are loaded on the first call.

    Attributes:
        signature: everything that the value depends on, in one line: network, weights hash, crop, colour space,
            unit, compared with what, version of the code (protocols.md sections 3 and 8).
        higher_is_better: direction.
        needs: subset of {"gt", "references"}.

    One with a network tells where it works by ``device`` (else ``"cpu"``), so that a cluster gives it a GPU.

    The value of a case must not depend on the other cases of its batch.
    """

    @property
    def signature(self) -> str:
        """Return everything the value depends on."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Return the direction."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """Return what beside the output is needed."""
        ...

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]; NaN where the value is undefined for a case."""
        ...


class PairMetric(ABC):
    """A metric of one output against its ground truth, computed picture by picture with NumPy."""

    higher_is_better: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"gt"})
    signature: str

    @abstractmethod
    def value(self, output: NDArray[np.float32], gt: NDArray[np.float32]) -> float:
        """Return the value for two pictures float32 [3, H, W] in 0..1 RGB of one size."""

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]."""
        import numpy as np

        pairs = zip(batch.output.detach().cpu().numpy(), ground_truth(batch).detach().cpu().numpy(), strict=True)
        return np.array([self.value(output, gt) for output, gt in pairs], dtype=np.float64)


def ground_truth(batch: MetricBatch) -> torch.Tensor:
    """Return the batch's ground truth.

    Raises:
        ImageError: there is none, or it has another size than the output.
    """
    if batch.gt is None:
        raise ImageError("this metric compares with the ground truth, and the benchmark has none")
    if batch.gt.shape != batch.output.shape:
        have, want = (f"{shape[-1]}x{shape[-2]}" for shape in (batch.output.shape, batch.gt.shape))
        raise ImageError(f"the output has {have} pixels, its ground truth {want}: one size is needed")
    return batch.gt
