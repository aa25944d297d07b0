"""The base class of metrics and the batch that they see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from ffhqref.core.errors import ConfigError, ImageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

T = TypeVar("T")

GROUND_TRUTH = "ground-truth"
"""Method name of the ground truth itself in table ``scores``: the ceiling of metrics that need no ground truth."""

WHOLE_SET = "*"
"""``case_id`` of a dataset-level score, such as FID."""

NEEDS = frozenset({"gt", "references"})
"""What a metric may need beside the output."""


@dataclass(frozen=True)
class MetricBatch:
    """Images of several cases, decoded once for all metrics."""

    output: torch.Tensor
    """float32 [B, 3, H, W] in 0..1 RGB: what the restorer wrote, read back from its 8-bit file."""
    gt: torch.Tensor | None = None
    """float32 [B, 3, H, W] in 0..1 RGB; None: the benchmark has no ground truth."""
    references: Sequence[Sequence[torch.Tensor]] = field(default_factory=list)
    """References of each case in order, float32 [3, H, W] in 0..1 RGB; empty: not loaded."""
    output_ids: Sequence[str] = ()
    """Content hash of each output, so that work on an image can be cached. Empty: unknown."""
    gt_ids: Sequence[str] = ()
    """Content hash of each ground truth."""
    reference_ids: Sequence[Sequence[str]] = ()
    """Content hashes of the references of each case."""

    def __len__(self) -> int:
        return int(self.output.shape[0])

    def gt_id(self, index: int) -> str:
        """Return the content hash of a case's ground truth; empty: unknown."""
        return self.gt_ids[index] if index < len(self.gt_ids) else ""


@dataclass(frozen=True)
class MetricRuntime:
    """Where metrics with networks run and find their weights."""

    device: str = "cpu"
    weights_dir: Path | None = None
    """The configured weights folder, see `ffhqref.weights.files`."""
    download: bool = False
    """Whether a missing weight file may be fetched."""


@dataclass(frozen=True)
class MetricTraits:
    """What a metric declares without weights."""

    higher_is_better: bool
    needs: frozenset[str]
    role: str


class Metric(ABC):
    """One reproducible number per case.

    Derive from this class, set the class attributes and `signature`, and implement `__call__`. A metric must pickle;
    load networks on the first call. The value of a case must not depend on the other cases of its batch.
    """

    higher_is_better: bool
    """Direction. Set it on the class: it is read where the weights are absent, too."""
    needs: frozenset[str] = frozenset({"gt"})
    """What is needed beside the output, a subset of `NEEDS`. Set it on the class."""
    role: str = "other"
    """What the metric judges: ``fidelity`` (to the ground truth), ``perception`` (how real an output looks),
    ``identity``, ``age`` or ``other``."""
    device: str = "cpu"
    """Where the network runs; on ``"cuda"`` a cluster gives the metric a share of a GPU."""
    signature: str
    """Everything the value depends on, in one line: network, hash of the weights, crop, colour space, unit, target,
    version of the code."""

    @abstractmethod
    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]. NaN: undefined for this case, which counts as failed. Infinite: a value like others."""

    def left_out(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which values the metric's definition leaves out of its mean, bool [B]."""
        import numpy as np

        return np.zeros(values.shape, dtype=bool)

    @classmethod
    def describe(cls, options: Mapping[str, object]) -> MetricTraits:  # noqa: ARG003
        """Return direction, needs and role with these options, without weights.

        Override it where an option changes one of them.

        Args:
            options: of the constructor, as far as they are given.
        """
        return MetricTraits(cls.higher_is_better, cls.needs, cls.role)


class PluginMetric(Metric):
    """A metric of another package that does not derive from `Metric`.

    Args:
        metric: an object with ``signature``, ``higher_is_better``, ``needs`` and ``__call__``; ``role`` and ``device``
            are optional.
        name: of the metric, for messages.

    Raises:
        ConfigError: a member is missing or wrong.
    """

    higher_is_better = False  # each instance has its own

    def __init__(self, metric: Callable[[MetricBatch], NDArray[np.float64]], name: str) -> None:
        for member in ("signature", "higher_is_better", "needs"):
            if not hasattr(metric, member):
                raise ConfigError(f"metric '{name}': {type(metric).__name__} has no '{member}'; {REMEDY}")
        self._metric = metric
        for member in ("signature", "higher_is_better", "needs", "role", "device"):
            if hasattr(metric, member):
                setattr(self, member, getattr(metric, member))
        self.needs = frozenset(self.needs)

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return what the wrapped metric returns, float64 [B]."""
        return self._metric(batch)


REMEDY = "derive it from ffhqref.metrics.Metric (docs/extending.md)"


def as_metric(made: object, name: str) -> Metric:
    """Return what a factory made as a checked metric.

    Args:
        made: a `Metric`, or an object with its members.
        name: of the metric, for messages.

    Raises:
        ConfigError: it is no metric, or a member has a wrong value.
    """
    if not callable(made):
        raise ConfigError(f"metric '{name}': {type(made).__name__} cannot be called; {REMEDY}")
    metric = made if isinstance(made, Metric) else PluginMetric(made, name)
    if not hasattr(metric, "signature"):
        raise ConfigError(f"metric '{name}': {type(made).__name__} has no 'signature'; {REMEDY}")
    if not hasattr(metric, "higher_is_better") or not isinstance(metric.higher_is_better, bool):
        raise ConfigError(f"metric '{name}': higher_is_better of {type(made).__name__} is not True or False; {REMEDY}")
    if not metric.needs <= NEEDS:
        raise ConfigError(
            f"metric '{name}' needs {', '.join(sorted(metric.needs - NEEDS))}; a metric gets gt and references"
        )
    return metric


def traits_of(factory: Callable[..., object], name: str, options: Mapping[str, object]) -> MetricTraits:
    """Return what the factory of a metric says of it without weights.

    Args:
        factory: a class, or a function that carries the attributes ``higher_is_better`` and ``needs``.
        name: of the metric, for messages.
        options: of the metric.

    Raises:
        ConfigError: the direction is not declared.
    """
    declared: dict[str, object] = {}
    for kind in reversed(factory.__mro__) if isinstance(factory, type) else (factory,):
        declared |= vars(kind)
    higher = declared.get("higher_is_better")
    needs = declared.get("needs", Metric.needs)
    if not isinstance(higher, bool) or not isinstance(needs, (set, frozenset, tuple, list)):
        raise ConfigError(
            f"metric '{name}' cannot run here, and its class does not declare higher_is_better and needs; {REMEDY}"
        )
    if isinstance(factory, type) and issubclass(factory, Metric):
        return factory.describe(options)
    return MetricTraits(higher, frozenset(needs), str(declared.get("role", Metric.role)))


class LastTruth(Generic[T]):
    """Cache of what a metric computed of the last ground truth, since outputs of one case follow each other.

    The cached value does not pickle.
    """

    def __init__(self) -> None:
        self._kept: tuple[str, T] | None = None

    def __getstate__(self) -> dict[str, None]:
        return {"_kept": None}

    def of(self, key: str, make: Callable[[], T]) -> T:
        """Return what ``make`` returns, or returned for the same ground truth.

        Args:
            key: `MetricBatch.gt_id`; empty: computed anew.
            make: computes it.
        """
        if not key or self._kept is None or self._kept[0] != key:
            self._kept = (key, make())
        return self._kept[1]


class PairMetric(Metric):
    """A metric of one output against its ground truth, computed image by image with NumPy."""

    higher_is_better = True
    role = "fidelity"

    @abstractmethod
    def value(self, output: NDArray[np.float32], gt: NDArray[np.float32]) -> float:
        """Return the value for two images float32 [3, H, W] in 0..1 RGB of one size."""

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]."""
        import numpy as np

        pairs = zip(batch.output.detach().cpu().numpy(), ground_truth(batch).detach().cpu().numpy(), strict=True)
        return np.array([self.value(output, gt) for output, gt in pairs], dtype=np.float64)


def ground_truth(batch: MetricBatch) -> torch.Tensor:
    """Return the batch's ground truth.

    Raises:
        ImageError: there is none, or its size is not the output's.
    """
    if batch.gt is None:
        raise ImageError("this metric compares with the ground truth, and the benchmark has none")
    if batch.gt.shape != batch.output.shape:
        have, want = (f"{shape[-1]}x{shape[-2]}" for shape in (batch.output.shape, batch.gt.shape))
        raise ImageError(f"the output has {have} pixels, its ground truth {want}: one size is needed")
    return batch.gt
