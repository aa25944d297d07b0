"""The loop around every training: steps, curves, samples, states to resume from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.files import open_own, sweep, write_atomic
from ffhqref.core.hashing import content_key
from ffhqref.core.images import save_png
from ffhqref.core.parsing import parsing
from ffhqref.core.seeding import case_seed
from ffhqref.training.curves import draw_curve
from ffhqref.training.files import State, save_whole
from ffhqref.training.finished import mark_finished

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.training.runtime import TrainingRuntime
    from ffhqref.training.settings import RunSettings

S = TypeVar("S", covariant=True)
T = TypeVar("T")

StepCallback = Callable[[int, dict[str, float]], None]
"""Called after each step with the number of steps done and the step's losses."""


class BatchSource(Protocol[S]):
    """Where batches come from. The same (index, rank, processes) must always give the same batch."""

    def __call__(self, index: int, rank: int, processes: int) -> S:
        """Return the batch of a number that counts on through the run, for one of several processes."""
        ...


class Task(Protocol[T]):
    """One kind of training: its networks, its optimisers, and a step of it."""

    run: RunSettings
    runtime: TrainingRuntime
    curve: tuple[str, ...]
    settings: Any
    config: Any

    def step(self, batches: list[T], rate: float, generator: torch.Generator) -> dict[str, float]:
        """Do one optimiser step and return its losses."""
        ...

    def samples(self, batch: T) -> torch.Tensor:
        """Return images to look at, [B, columns, 3, H, W] in −1..1."""
        ...

    def state_dict(self) -> State:
        """Return all that a resumed run needs."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Take up a saved state."""
        ...

    def export(self, folder: Path) -> list[Path]:
        """Write checkpoints in the published layout."""
        ...


def train(
    task: Task[T],
    source: BatchSource[T],
    folder: str | Path,
    *,
    look: T | None = None,
    max_steps: int | None = None,
    callback: StepCallback | None = None,
    export_every: int = 0,
    key: str | None = None,
) -> list[Path]:
    """Train to the end, from where the last run in this folder stopped, and write the checkpoints.

    The folder holds ``state.pt`` (the last saved state), ``curve.csv`` (one row a step) and ``curve.png`` (drawn with
    each sample grid and at the end), ``samples/`` and the checkpoints in the published layout. Killed at any moment and
    started again, a run on the CPU ends with the same numbers as an unbroken one: every draw is keyed by (seed, step),
    and the curve is cut back to the saved step.

    Args:
        task: what is trained.
        source: batches by number.
        folder: where the run lives.
        look: cases for the sample grids; None: no grids.
        max_steps: stop after this step with the state saved, for a run in parts; None: the settings' number of steps.
        callback: see `StepCallback`.
        export_every: steps between checkpoints besides the last; 0: the last only.
        key: recorded with the checkpoints by `ffhqref.training.finished.mark_finished`; None: nothing is recorded.

    Returns:
        The checkpoints written.

    Raises:
        ConfigError: the folder belongs to a run with other settings.
        WeightsError: the saved state cannot be read.
    """
    folder = Path(folder)
    run, runtime = task.run, task.runtime
    identity = content_key(asdict(task.settings), task.config.to_tree(), runtime.processes)
    start = _resume(task, folder / "state.pt", identity, runtime)
    end = run.steps if max_steps is None else min(max_steps, run.steps)
    curve = folder / "curve.csv"
    if runtime.is_main:
        sweep(folder)
        _cut_curve(curve, start, task.curve)
    for step, given in _read_ahead(task, source, range(start, end)):
        generator = torch.Generator().manual_seed(case_seed(run.seed, "step", step, runtime.rank))
        losses = _finite(task.step(given, run.rate(step), generator), step)
        if not runtime.is_main:
            continue
        done = step + 1
        _append(curve, [step, run.rate(step), *(losses[name] for name in task.curve)])
        if callback:
            callback(done, losses)
        if look is not None and run.sample_every and done % run.sample_every == 0:
            save_png(folder / "samples" / f"{done:07d}.png", grid(task.samples(look)))
            draw_curve(curve, folder / "curve.png")
        if done % run.save_every == 0 or done == end:
            parts = {"task": task.state_dict(), "runtime": runtime.state_dict()}
            save_whole(folder / "state.pt", {"identity": identity, "step": done, **parts})
        if export_every and done % export_every == 0 and done < end:
            task.export(folder)
    written = task.export(folder) if runtime.is_main else []
    if runtime.is_main and start < end:
        draw_curve(curve, folder / "curve.png")
    if written and key is not None:
        mark_finished(folder, key, written)
    runtime.wait()  # what comes next may start from these files, in every process
    return written


def _read_ahead(task: Task[T], source: BatchSource[T], steps: range) -> Iterator[tuple[int, list[T]]]:
    """Yield each step with its batches; those of the next step are read meanwhile."""

    def batches(step: int) -> list[T]:
        parts = range(step * task.run.accumulate, (step + 1) * task.run.accumulate)
        return [source(part, task.runtime.rank, task.runtime.processes) for part in parts]

    with ThreadPoolExecutor(1) as ahead:
        coming = None
        for step in steps:
            given = coming.result() if coming else batches(step)
            coming = ahead.submit(batches, step + 1) if step + 1 in steps else None
            yield step, given


def _finite(losses: dict[str, float], step: int) -> dict[str, float]:
    if not all(np.isfinite(value) for value in losses.values()):
        raise ConfigError(f"training: step {step} gave {losses}; lower the learning rate")
    return losses


def grid(images: torch.Tensor) -> NDArray[np.uint8]:
    """Return one uint8 RGB image, a row for each case, of [B, columns, 3, H, W] in −1..1."""
    rows, columns, _, height, width = images.shape
    unit = ((images.detach().float().cpu() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(unit.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3).numpy())


def _resume(task: Task[Any], path: Path, identity: str, runtime: TrainingRuntime) -> int:
    if not path.is_file():
        return 0
    with parsing(path, WeightsError, "delete it to start this training anew"):
        # each tensor is copied to its place from here; on the device a whole second state might not fit
        state = torch.load(path, map_location="cpu", weights_only=True)
        step, found = int(state["step"]), state["identity"]
        if found != identity:
            raise ConfigError(f"{path} belongs to a training with other settings; take another folder, or delete it")
        task.load_state_dict(state["task"])
        runtime.load_state_dict(state.get("runtime", {}))
    return step


def _cut_curve(path: Path, steps: int, names: tuple[str, ...]) -> None:
    """Keep the rows of the first steps; a run that was killed may have written more than it saved."""
    rows: list[list[str]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))[1 : steps + 1]
    write_atomic(path, _lines([["step", "learning_rate", *names], *rows]), lasting=True)


def _append(path: Path, row: list[float]) -> None:
    with open_own(path, "ab") as stream:
        stream.write(_lines([[json.dumps(value) for value in row]]))


def _lines(rows: list[list[str]]) -> bytes:
    made = io.StringIO(newline="")
    csv.writer(made).writerows(rows)
    return made.getvalue().encode()
