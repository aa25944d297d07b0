"""Progress for people: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from ffhqref.core.escape import terminal

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress, TaskID


def show(table: RenderableType, width: int) -> None:
    """Print a table to standard output.

    Args:
        table: anything that ``rich`` prints.
        width: columns where standard output is no terminal.

    Raises:
        BrokenPipeError: the reader has gone; ``rich`` itself would end the process as if rows had failed.
    """
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

    class Output(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for part in super().render(renderable, options):
                yield part if part.control else Segment(terminal(part.text), part.style)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    Output(width=None if sys.stdout.isatty() else width).print(table)


class Reporter:
    """Messages and progress of a pipeline, on standard error so that standard output stays for results.

    Args:
        stream: where to write; standard error when None.
        every: seconds between two lines of one stage in a log.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every
        self._terminal = self._stream.isatty()
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._last: dict[str, float] = {}
        self._ended: set[str] = set()
        self.computed = 0
        """Rows computed in this run, as against rows known from before."""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def begin(self, stage: str) -> None:
        """Tell that work without rows begins."""
        self.computed += 1
        self.say(f"{stage}: writing")

    def say(self, message: str) -> None:
        """Write one line."""
        self._stop()
        print(terminal(message), file=self._stream, flush=True)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tell how far a stage is; the first call of a stage tells what was known from before.

        A stage that is at its end and is called again begins anew, over other rows.
        """
        now = time.monotonic()
        if stage not in self._started or stage in self._ended:
            self._ended.discard(stage)
            self._started[stage] = (now, done)
            self._last[stage] = now
            if done < total:
                known = f", {done} of them done before" if done else ""
                self._plain(f"{stage}: {total} to do{known}")
        else:
            self.computed += 1
        if done == total:
            self._ended.add(stage)
        if self._terminal:
            self._draw(stage, done, total)
            return
        start, before = self._started[stage]
        finished = done == total and done > before
        if finished or (done < total and now - self._last[stage] >= self._every):
            self._last[stage] = now
            seconds = max(now - start, 1e-9)
            rate = (done - before) / seconds
            left = f", {(total - done) / rate:.0f} s left" if rate > 0 and not finished else f" in {seconds:.1f} s"
            self._plain(f"{stage}: {done}/{total}, {rate:.2g}/s{left}")

    def _plain(self, line: str) -> None:
        if not self._terminal:
            print(line, file=self._stream, flush=True)

    def _draw(self, stage: str, done: int, total: int) -> None:
        if done == total and stage not in self._tasks:
            return  # nothing was to do
        if self._bar is None:
            from rich import console, progress

            columns: tuple[Any, ...] = (
                progress.TextColumn("{task.description:>24}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[rate]}"),
                progress.TimeRemainingColumn(),
            )
            self._bar = progress.Progress(*columns, console=console.Console(file=self._stream))
            self._bar.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total, completed=done, rate="")
        start, before = self._started[stage]
        rate = (done - before) / max(time.monotonic() - start, 1e-9)
        self._bar.update(self._tasks[stage], completed=done, total=total, rate=f"{rate:.3g}/s")

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks.clear()


@contextlib.contextmanager
def download_bar(
    name: str, stream: TextIO | None = None, every: float = 10.0
) -> Iterator[Callable[[int, int | None], None]]:
    """Show how far a download is; yields what `ffhqref.weights.files.fetch` takes as ``progress``.

    Args:
        name: what is fetched.
        stream: where to write; standard error when None.
        every: seconds between two lines in a log.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        from rich import console, progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=console.Console(file=stream)) as bar:
            task = bar.add_task(name, total=None)
            yield lambda there, total: bar.update(task, completed=there, total=total)
        return
    last = [0.0]

    def line(there: int, total: int | None) -> None:
        now = time.monotonic()
        if there == total or not last[0] or now - last[0] >= every:
            last[0] = now
            of = f" of {total / 1e6:.1f}" if total else ""
            print(f"{name}: {there / 1e6:.1f}{of} MB", file=stream, flush=True)

    yield line
