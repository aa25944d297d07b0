"""Metrics as ``torchmetrics.Metric``: update, compute, and one value over all processes of a training."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import DependencyError

if TYPE_CHECKING:
    from typing import Protocol

    import torch

    class CaseFunction(Protocol):
        """A metric as a function of outputs, `ffhqref.api.metrics.MetricFunction`."""

        @property
        def signature(self) -> str:
            """Everything the value depends on."""

        @property
        def higher_is_better(self) -> bool:
            """Direction."""

        def __call__(self, output: Any, *, gt: Any = None, lq: Any = None, references: Any = None) -> Any:
            """Return the value of one output, or of each of several."""

    class CaseMean(Protocol):
        """A ``torchmetrics.Metric`` with the mean of one of our metrics over cases."""

        signature: str
        higher_is_better: bool

        def update(self, output: Any, *, gt: Any = None, lq: Any = None, references: Any = None) -> None:
            """Add cases; see `ffhqref.api.metrics.MetricFunction`."""

        def compute(self) -> torch.Tensor:
            """Return the mean, float64; values that are NaN are left out, NaN without any."""

        @property
        def undefined(self) -> int:
            """Cases of this process without a value, which the mean leaves out."""

        def reset(self) -> None:
            """Forget all cases."""

        def sync(self, *args: Any, **options: Any) -> None:
            """Gather the cases of all processes."""


def make_case_mean(function: CaseFunction) -> CaseMean:
    """Return a ``torchmetrics.Metric`` of a metric.

    Raises:
        DependencyError: torchmetrics is not installed.
    """
    made: CaseMean = _kind()(function)
    return made


@functools.cache
def _kind() -> Any:
    """Return the class: it can only be made where torchmetrics is installed."""
    ensure_torchvision()
    try:
        import torchmetrics
    except ModuleNotFoundError:
        raise DependencyError(
            "as_torchmetric needs the package 'torchmetrics', which is not installed: "
            "pip install 'ffhqref[torchmetrics]'"
        ) from None
    import torch

    class CaseMean(torchmetrics.Metric):  # type: ignore[misc] # found at run time
        """Mean over cases. The state is one value a case, so that the sum does not depend on processes or order."""

        is_differentiable = False
        full_state_update = False
        values: list[torch.Tensor] | torch.Tensor
        """float64, the cases of this process; one tensor of all processes while they are gathered."""

        def __init__(self, function: CaseFunction, **options: Any) -> None:
            super().__init__(**options)
            self.function = function
            self.signature = function.signature
            self.add_state("values", [], dist_reduce_fx="cat")

        @property
        def higher_is_better(self) -> bool:
            return self.function.higher_is_better

        def update(self, output: Any, *, gt: Any = None, lq: Any = None, references: Any = None) -> None:
            found = self.function(output, gt=gt, lq=lq, references=references)
            assert isinstance(self.values, list)
            self.values.append(torch.as_tensor(found, dtype=torch.float64, device=self.device).reshape(-1))

        def sync(self, *args: Any, **options: Any) -> None:
            if isinstance(self.values, list) and not self.values:  # a process without cases takes part in the gathering
                self.values.append(torch.zeros(0, dtype=torch.float64, device=self.device))
            super().sync(*args, **options)

        @property
        def undefined(self) -> int:
            parts = self.values if isinstance(self.values, list) else [self.values]
            return sum(int(part.isnan().sum()) for part in parts)

        def compute(self) -> torch.Tensor:
            parts = self.values if isinstance(self.values, list) else [self.values]
            values = [value for part in parts for value in part.tolist() if not math.isnan(value)]
            infinite = sum(value for value in values if math.isinf(value))
            mean = math.nan if not values else infinite or math.fsum(values) / len(values)
            return torch.tensor(mean, dtype=torch.float64, device=self.device)

    CaseMean.__qualname__ = "CaseMean"  # so that it pickles
    return CaseMean


def __getattr__(name: str) -> Any:
    if name != "CaseMean":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return _kind()
