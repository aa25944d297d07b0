"""The restorer `chain`: each step works on what the step before it made, as a cleaner before a restorer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.restorers.base import PartialResult, RestorationBatch, RestorerInfo
from ffhqref.restorers.composed.parts import Composed, make_part, result, run_part

if TYPE_CHECKING:
    import torch


class Chain(Composed):
    """Restorers one after the other. Every step sees the case's references, seed and age.

    Between steps images are floats, clamped to 0..1: nothing is rounded before the end, but by steps that work
    with files (`command`).

    Args:
        steps: names, or options with ``name`` (or ``_target_``).
        device: handed to steps that take one and have none of their own.
        batch_size: see `Composed`.

    Raises:
        ConfigError: no steps, or one of them cannot be made.
    """

    info = RestorerInfo(
        name="chain", summary="restorers one after the other", max_references=None, input_size=None,
        licence="that of its parts", verified_against="its steps run by hand",
    )  # fmt: skip
    """Of the kind; an instance's own follows from its parts."""

    def __init__(self, steps: Any = None, device: str = "cpu", batch_size: int | None = None) -> None:
        if not steps or not isinstance(steps, (list, tuple)):
            raise ConfigError("restorer 'chain': expected steps=[{name: nlm}, {name: bicubic}]")
        parts = [make_part(step, f"steps[{index}]", device) for index, step in enumerate(steps)]
        super().__init__(
            parts, {}, name="chain", summary=", then ".join(part.name for part in parts), batch_size=batch_size
        )

    def restore(self, batch: RestorationBatch) -> torch.Tensor | PartialResult:
        """Return what the last step makes; a case that fails in a step takes no part in later ones."""
        import torch

        pictures = torch.zeros_like(batch.lq, device="cpu")
        current, alive, reasons = batch.lq, list(range(len(batch))), dict[int, str]()
        for number, part in enumerate(self.parts, 1):
            if not alive:
                break
            made, failed = run_part(part, batch.subset(alive, lq=current))
            for position, reason in failed.items():
                reasons[alive[position]] = f"step {number} ({part.name}): {reason}"
            pictures[alive] = made
            current = pictures
            alive = [index for index in alive if index not in reasons]
        return result(pictures, reasons)
