"""The restorer `best_of`: several seeds, of which a criterion that knows no ground truth picks one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.core.seeding import case_seed
from ffhqref.metrics import make_metric
from ffhqref.metrics.base import Metric, MetricBatch, MetricRuntime
from ffhqref.restorers.base import PartialResult, RestorationBatch, RestorerInfo
from ffhqref.restorers.composed.parts import Composed, make_part, result, run_part

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


class BestOf(Composed):
    """The best of ``n`` results of a restorer that draws, by a metric of the output alone or against the references.

    The first is what the restorer makes of the case's own seed. Candidates are judged as 8-bit images, which is
    how they are written and scored. The metric that picks is flattered by it in the leaderboard, and others that
    correlate with it too.

    Args:
        of: the restorer: its name, or options with ``name``.
        n: number of seeds, at least 2.
        by: the metric: its name, or options with ``name``. It may not compare with the ground truth.
        device: handed to the restorer and to the metric.
        batch_size: see `Composed`.

    Raises:
        ConfigError: the restorer does not draw, or the metric needs the ground truth.
    """

    info = RestorerInfo(
        name="best_of", summary="the best of several seeds of a restorer, picked without ground truth",
        max_references=None, input_size=None, licence="that of its parts", verified_against="its draws judged by hand",
    )  # fmt: skip
    """Of the kind; an instance's own follows from its parts."""

    def __init__(
        self, of: Any = None, n: int = 4, by: Any = "niqe", device: str = "cpu", batch_size: int | None = None
    ) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 2:
            raise ConfigError(f"best_of: n={n}, expected a whole number of at least 2")
        part = make_part(of, "of", device)
        if part.info.deterministic and not part.info.uses_seed:
            raise ConfigError(f"best_of: '{part.name}' makes the same of every seed, with the options it has here")
        self.n = n
        self._name, self.metric = _criterion(by, device)
        facts: dict[str, Any] = {"uses_seed": True}
        if "references" in self.metric.needs:
            facts |= {"min_references": max(1, part.info.min_references), "max_references": None}
        super().__init__(
            [part], {"n": n, "by": self.metric.signature}, name="best_of", facts=facts, batch_size=batch_size,
            summary=f"the best of {n} seeds of {part.name} by {self._name}",
        )  # fmt: skip

    def restore(self, batch: RestorationBatch) -> torch.Tensor | PartialResult:
        """Return the best of each case; a case fails where all of its seeds do."""
        import torch

        best = np.full(len(batch), np.nan)
        chosen = torch.zeros_like(batch.lq, device="cpu")
        reasons: dict[int, str] = {}
        found: set[int] = set()
        for draw in range(self.n):
            seeds = batch.seeds if draw == 0 else [case_seed(seed, "best_of", draw) for seed in batch.seeds]
            made, failed = run_part(self.parts[0], dataclasses.replace(batch, seeds=seeds))
            reasons = {**failed, **reasons}
            values = self._judge(made, batch)
            for index in range(len(batch)):
                if index in failed:
                    continue
                if index not in found or self._better(values[index], best[index]):
                    chosen[index], best[index] = made[index], values[index]
                    found.add(index)
        return result(chosen, {index: reason for index, reason in reasons.items() if index not in found})

    def _better(self, value: float, than: float) -> bool:
        if np.isnan(value) or np.isnan(than):
            return bool(np.isnan(than) and not np.isnan(value))
        return bool(value > than if self.metric.higher_is_better else value < than)

    def _judge(self, made: torch.Tensor, batch: RestorationBatch) -> NDArray[np.float64]:
        written = to_tensor(to_uint8(made, self.quantization))
        needed = "references" in self.metric.needs
        references = [list(pictures) for pictures in batch.references] if needed else []
        return np.asarray(self.metric(MetricBatch(output=written, references=references)), dtype=np.float64)


def _criterion(by: Any, device: str) -> tuple[str, Metric]:
    options = {"name": by} if isinstance(by, str) else dict(by) if isinstance(by, Mapping) else {}
    name = options.pop("name", None)
    if not name:
        raise ConfigError("best_of: by names no metric: by=niqe, or by.name=ids_ref with its options beside it")
    metric = make_metric(str(name), runtime=MetricRuntime(device), **options)
    if "gt" in metric.needs:
        raise ConfigError(f"best_of: by={name} compares with the ground truth, which no restorer may see")
    return str(name), metric
