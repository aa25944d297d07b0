"""Run cases through a restorer: as a batch, one by one where that fails, with out of memory told apart."""

from __future__ import annotations

import contextlib
import gc
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ffhqref.core.errors import one_line
from ffhqref.core.seeding import seeded_generators
from ffhqref.restorers.base import PartialResult, RestorationBatch
from ffhqref.restorers.check import WrongOutputError, check_values, checked_batch

if TYPE_CHECKING:
    import torch

    Restore = Callable[[RestorationBatch], "torch.Tensor | PartialResult"]


@dataclass(frozen=True)
class Cost:
    """Share of one case in the cost of its call."""

    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    """Most that was allocated on the GPU during the call; None: not on a GPU."""
    first_call: bool = False
    """The time contains loading and warm-up."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    image: torch.Tensor | None = None
    """float32 [3, H, W] on the CPU, finite and in 0..1 but for a small overshoot; None where the case failed."""
    error: str | None = None
    """Why it failed, one line."""
    cost: Cost = field(default_factory=Cost)


class Stopwatch:
    """Measures the calls of one restorer in one process.

    Args:
        device: the clock waits for; empty where the work is done by another program.
        restarts: every call loads anew.
    """

    def __init__(self, device: str = "", *, restarts: bool = False) -> None:
        self._device = device
        self._restarts = restarts
        self._warm = False
        self.cost = Cost()

    @contextlib.contextmanager
    def call(self, cases: int) -> Iterator[None]:
        """Measure a call of so many cases; `cost` is then each one's share."""
        import torch

        gpu = self._device.startswith("cuda") and torch.cuda.is_available()
        first, self._warm = self._restarts or not self._warm, True
        if gpu:
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        start = time.perf_counter()
        yield
        if gpu:
            torch.cuda.synchronize(self._device)
        elif self._device == "mps":
            torch.mps.synchronize()
        seconds = time.perf_counter() - start
        memory = int(torch.cuda.max_memory_allocated(self._device)) if gpu else None
        self.cost = Cost(seconds / cases, memory, first)


def run_cases(
    restore: Restore, batch: RestorationBatch, *, stopwatch: Stopwatch | None = None, give_up_after: int | None = None
) -> list[Outcome]:
    """Restore a batch. One case takes no other along.

    When the call fails, each case is tried again alone; when the output of one case is wrong, that case is. The global
    generators are seeded with the seed of the first case of each call.

    Args:
        restore: a restorer's `restore`; it is given copies.
        batch: the cases, of one size.
        stopwatch: measures each call.
        give_up_after: when this many cases in a row failed alone for the same reason, and the last case does too, do
            not try the rest.
    """
    stopwatch = stopwatch or Stopwatch()
    outcomes, again = _attempt(restore, batch.subset(range(len(batch))), stopwatch)
    if len(batch) > 1:
        for index, outcome in _one_by_one(restore, batch, again, stopwatch, give_up_after):
            outcomes[index] = outcome
    return outcomes


def _one_by_one(
    restore: Restore, batch: RestorationBatch, indices: list[int], stopwatch: Stopwatch, give_up_after: int | None
) -> Iterator[tuple[int, Outcome]]:
    alike, reason, waiting = 0, "", list(indices)
    while waiting:
        at_the_end = alike == give_up_after
        index = waiting.pop(-1 if at_the_end else 0)
        ((outcome,), _) = _attempt(restore, batch.subset([index]), stopwatch)
        yield index, outcome
        same = outcome.error is not None and _kind(outcome.error) == _kind(reason)
        alike, reason = (alike + 1 if same else int(outcome.error is not None)), outcome.error or ""
        if at_the_end and same:
            for left in waiting:
                yield left, Outcome(error=f"{reason} (not tried alone: {alike} others failed so)")
            return


def _kind(reason: str) -> str:
    """Return a reason without what differs from call to call."""
    return re.sub(r"\(kept: .*|[0-9]+", "", reason)


def _attempt(restore: Restore, batch: RestorationBatch, stopwatch: Stopwatch) -> tuple[list[Outcome], list[int]]:
    """Call once; return the outcomes, and the cases to try again alone."""
    import torch

    shape, reasons = tuple(batch.lq.shape), dict[int, str]()
    try:
        with stopwatch.call(len(batch)), seeded_generators(batch.seeds[0]), torch.no_grad():
            made = restore(batch)
            if isinstance(made, PartialResult):
                reasons, made = dict(made.reasons), made.images
            images = checked_batch(made, shape)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may fail in any way
        no_memory = out_of_memory(error)
        why = f"out of memory: {one_line(error)}" if no_memory else one_line(error)
    else:
        return _judged(images, reasons, stopwatch.cost)
    # Outside the handler: its traceback holds no tensors any more.
    if no_memory:
        release_memory()
    return [Outcome(error=why)] * len(batch), list(range(len(batch)))


def _judged(images: torch.Tensor, reasons: Mapping[int, str], cost: Cost) -> tuple[list[Outcome], list[int]]:
    outcomes, again = [], []
    for index, image in enumerate(images):
        if index in reasons:
            outcomes.append(Outcome(error=reasons[index], cost=cost))
            continue
        try:
            check_values(image)
        except WrongOutputError as error:
            outcomes.append(Outcome(error=str(error), cost=cost))
            again.append(index)
        else:
            outcomes.append(Outcome(image, cost=cost))
    return outcomes, again


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on a GPU or on the CPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def release_memory() -> None:
    """Hand memory that torch keeps for reuse back to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
