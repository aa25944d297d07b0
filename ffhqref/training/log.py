"""Losses in the log while a training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ffhqref.core.trackers import Track
    from ffhqref.training.loop import StepCallback


def silent(_: str) -> None:
    """Log nothing, as all processes of a training but the first do."""


def untracked(_: Mapping[str, float], __: int | None = None) -> None:
    """Track nothing."""


def log_losses(log: Callable[[str], None], track: Track, name: str, steps: int) -> StepCallback:
    """Return a callback that logs the losses some twenty times in a run, averaged since the last time.

    Args:
        log: takes a line.
        track: takes the losses of each step.
        name: of what is trained.
        steps: of the whole run.
    """
    every = max(1, steps // 20)
    sums: dict[str, float] = {}

    def callback(step: int, losses: dict[str, float]) -> None:
        track({f"{name}/{key}": value for key, value in losses.items()}, step)
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + value / every
        if step % every == 0:
            log(f"{name} {step}/{steps}: " + ", ".join(f"{key} {value:.4g}" for key, value in sums.items() if value))
            sums.clear()

    return callback
