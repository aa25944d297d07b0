"""The local engine: this process, or several worker processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ffhqref.engine.base import Row, Stage
from ffhqref.errors import EngineError

_STAGE: Stage | None = None


class LocalEngine:
    """Batches on this machine.

    Args:
        workers: processes; 0 or 1: all in this process; None: one for each usable core.
    """

    def __init__(self, workers: int | None = 1) -> None:
        self.workers = usable_cores() if workers is None else workers

    def imap(self, stage: Stage, batches: Sequence[Sequence[Row]]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Yield (index of the batch, its results) as they finish."""
        workers = min(self.workers, len(batches))
        if workers <= 1:
            stage.setup()
            for index, batch in enumerate(batches):
                yield index, stage.process(batch)
            return
        import concurrent.futures.process
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        threads = max(1, usable_cores() // workers)
        pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker, (stage, os.getpid(), threads))
        broken = concurrent.futures.process.BrokenProcessPool
        try:
            futures = {pool.submit(_process, list(batch)): index for index, batch in enumerate(batches)}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except broken:
            pool.shutdown(wait=False, cancel_futures=True)
            raise EngineError(
                f"a worker process of stage '{stage.name}' ended abruptly (killed, or out of memory); finished work "
                "is kept: run again, with fewer processes (engine.workers=1) if it happens again"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()


def usable_cores() -> int:
    """Return the number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _start_worker(stage: Stage, parent: int, threads: int) -> None:
    global _STAGE  # noqa: PLW0603 - a worker process holds exactly one stage
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    import cv2

    cv2.setNumThreads(threads)
    stage.setup()
    _STAGE = stage


def _process(batch: list[Row]) -> list[dict[str, Any]]:
    assert _STAGE is not None
    return _STAGE.process(batch)


def _die_with(parent: int) -> None:
    """End this worker when its parent is gone (kill -9 leaves no one to tell it)."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
