"""The local engine: this process, or several worker processes that live as long as the engine."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError, EngineError
from ffhqref.engine.base import LoadingStage
from ffhqref.engine.worker import prepare, stage_of, usable_cores

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    from ffhqref.engine.base import LoadedT, Results, ResultT, RowT, Stage

AHEAD = 3
"""Batches loaded ahead of the one that is computed."""


class LocalEngine:
    """Batches on this machine.

    A stage whose networks run on GPUs goes to all of them where there are several: each has processes of its own, which
    see no other GPU.

    Args:
        workers: processes, or threads that load the rows of a `LoadingStage`; 0 or 1: all in this process; None: one
            for each usable core.
        gpus: use at most this many GPUs; None: all that are visible.

    Raises:
        ConfigError: fewer than one GPU.
    """

    distributed = False

    def __init__(self, workers: int | None = 1, gpus: int | None = None) -> None:
        self.workers = usable_cores() if workers is None else workers
        if gpus is not None and gpus < 1:
            raise ConfigError(f"engine.gpus={gpus}: expected 1 or more, or null for all; device=cpu uses none")
        self.gpus = gpus
        self._pool: ProcessPoolExecutor | None = None
        self._places: tuple[str, ...] = ()

    def imap(
        self, stage: Stage[RowT, ResultT], batches: Sequence[Sequence[RowT]]
    ) -> Iterator[tuple[int, Results[ResultT]]]:
        """Yield (index of the batch, its results) as they finish.

        Raises:
            EngineError: a worker process ended abruptly.
        """
        if not batches:
            return
        places = self._spread(stage, len(batches))
        if not places and isinstance(stage, LoadingStage) and stage.overlapped:
            yield from _overlapped(stage, batches, max(1, self.workers))
            return
        if not places and (min(self.workers, len(batches)) <= 1 or stage.one_at_a_time):
            stage.setup()
            for index, batch in enumerate(batches):
                yield index, stage.process(batch)
            return
        from concurrent.futures import as_completed
        from concurrent.futures.process import BrokenProcessPool

        packed = pickle.dumps(stage)
        pool = self._workers(places)
        try:
            futures: dict[Future[list[ResultT]], int] = {
                pool.submit(_process, packed, list(batch)): index for index, batch in enumerate(batches)
            }
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            self._kill()
            raise EngineError(
                f"a worker process of stage '{stage.name}' ended abruptly (killed, or out of memory); finished work "
                "is kept: run again, with fewer processes (engine.workers=1) if it happens again"
            ) from None
        except BaseException:
            self._kill()
            raise

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _kill(self) -> None:
        """End the workers without waiting for what they are at.

        Leaving a pool to itself (``wait=False``) can end in a traceback at exit, from its own clean-up.
        """
        for process in list((getattr(self._pool, "_processes", None) or {}).values()):
            process.kill()
        self.close()

    def _spread(self, stage: Stage[RowT, ResultT], batches: int) -> tuple[str, ...]:
        """Return the GPU of each process where a stage goes to several GPUs, else nothing."""
        if not stage.gpus or not stage.any_gpu or isinstance(stage, LoadingStage) or self.gpus == 1 or batches < 2:
            return ()
        visible = visible_gpus()[: self.gpus]
        share = max(1, min(int(1 / stage.gpus), self.workers // max(1, len(visible))))
        return tuple(name for _ in range(share) for name in visible) if len(visible) > 1 else ()

    def _workers(self, places: tuple[str, ...] = ()) -> ProcessPoolExecutor:
        """Return the worker processes; one for each of ``places``, the names of their GPUs, where there are any."""
        if self._pool is not None and self._places != places:
            self.close()
        if self._pool is None:
            import multiprocessing

            count = len(places) or self.workers
            threads = max(1, usable_cores() // count)
            context = multiprocessing.get_context("spawn")
            free = context.SimpleQueue() if places else None
            for place in places:
                assert free is not None
                free.put(place)
            self._places = places
            self._pool = ProcessPoolExecutor(count, context, _start_worker, (os.getpid(), threads, free))
        return self._pool


def _overlapped(
    stage: LoadingStage[RowT, ResultT, LoadedT], batches: Sequence[Sequence[RowT]], threads: int
) -> Iterator[tuple[int, list[ResultT]]]:
    """Compute batches in order, while threads load the rows of at most `AHEAD` later ones."""
    stage.setup()
    loading: deque[list[Future[LoadedT]]] = deque()
    ahead = iter(batches)
    with ThreadPoolExecutor(threads, "load") as pool:
        try:
            for index in range(len(batches)):
                for batch in itertools.islice(ahead, AHEAD + 1 - len(loading)):
                    loading.append([pool.submit(stage.load, row) for row in batch])
                yield index, stage.compute([future.result() for future in loading.popleft()])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] or [str(index) for index in range(count)]


def _start_worker(parent: int, threads: int, gpus: SimpleQueue[str] | None) -> None:
    import signal

    if gpus is not None:  # before CUDA starts in this process
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    prepare(threads)


def _process(packed: bytes, batch: list[RowT]) -> list[ResultT]:
    results: list[ResultT] = stage_of(packed).process(batch)
    return results


def _die_with(parent: int) -> None:
    """End this worker when its parent is gone (kill -9 leaves no one to tell it)."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
