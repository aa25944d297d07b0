"""Losses in the log while a training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ffhqref.training.loop import StepCallback


def silent(_: str) -> None:
    """Log nothing, as all processes of a training but the first do."""


def log_losses(log: Callable[[str], None], name: str, steps: int) -> StepCallback:
    """Return a callback that logs the losses some twenty times in a run, averaged since the last time.

    Args:
        log: takes a line.
        name: of what is trained.
        steps: of the whole run.
    """
    every = max(1, steps // 20)
    sums: dict[str, float] = {}

    def callback(step: int, losses: dict[str, float]) -> None:
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + value / every
        if step % every == 0:
            log(f"{name} {step}/{steps}: " + ", ".join(f"{key} {value:.4g}" for key, value in sums.items() if value))
            sums.clear()

    return callback
