"""What a metric is: the protocol and the batch it sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class MetricBatch:
    """Pictures of several cases, decoded once for all metrics."""

    output: torch.Tensor
    """float32 [B, 3, H, W] in 0..1 RGB: what the restorer wrote, read back from its 8-bit file."""
    gt: torch.Tensor | None = None
    """float32 [B, 3, H, W] in 0..1 RGB, or None when the benchmark has no ground truth."""
    references: list[torch.Tensor] = field(default_factory=list)
    """B tensors float32 [N_i, 3, H, W] in 0..1 RGB in reference order; empty list: not loaded."""

    def __len__(self) -> int:
        return int(self.output.shape[0])


@runtime_checkable
class Metric(Protocol):
    """One reproducible number for each case.

    Attributes:
        signature: everything that the value depends on, in one line: network, weights hash, crop, colour space,
            unit, compared with what, version of the code (protocols.md sections 3 and 8).
        higher_is_better: direction.
        needs: subset of {"gt", "references"}.
    """

    signature: str
    higher_is_better: bool
    needs: frozenset[str]

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]; NaN where the value is undefined for a case."""
        ...
