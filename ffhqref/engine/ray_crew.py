"""The workers of a Ray cluster, and how the batches of one stage get through them whatever happens to them."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any, Generic

from ffhqref.core.errors import EngineError, one_line
from ffhqref.engine.base import Results, ResultT, RowT, Stage

if TYPE_CHECKING:
    from ffhqref.engine.ray_worker import Site

AHEAD = 0.2
"""Seconds of work a worker is given at once, so that it need not wait for the next batch when these are short."""

IN_FLIGHT = 8
"""At most so many batches make them up."""

LOOK_EVERY = 10.0
"""Seconds after which nodes that joined or left are looked for."""

PATIENCE = 600.0
"""Seconds in which the cluster must be able to start a first worker."""

DEATH = "its worker process ended each time it was tried (killed, or out of memory)"


@dataclass(eq=False)
class _Task(Generic[RowT]):
    """A batch, or one row of a batch that ended its worker too often."""

    index: int
    rows: list[RowT]
    position: int | None = None
    """Of the single row in its batch."""
    deaths: int = 0


@dataclass(eq=False)
class _Worker:
    """One actor, its node, and what it was asked for, oldest first; without a task it is a step of its start."""

    handle: Any
    node: str | None = None
    asked: deque[tuple[Any, _Task[Any] | None]] = field(default_factory=deque)

    @property
    def started(self) -> bool:
        """Whether the stage is set up."""
        return all(task is not None for _, task in self.asked)


class Crew:
    """Workers of one kind, which live from stage to stage.

    Args:
        actor: Ray's class of the workers, with the resources of each.
        site: what they share with this process.
        check: raises when what a worker tells of its node will not do.
        room: returns how many workers the cluster can hold at present.
        retries: times that a batch is tried again after it ended its worker.
    """

    def __init__(
        self,
        actor: Any,
        site: Site,
        check: Callable[[Mapping[str, Any]], None],
        room: Callable[[], int],
        retries: int,
    ) -> None:
        self._actor, self._site = actor, site
        self.check, self.room, self.retries = check, room, retries
        self.workers: list[_Worker] = []

    def imap(
        self, stage: Stage[RowT, ResultT], batches: Sequence[Sequence[RowT]]
    ) -> Iterator[tuple[int, Results[ResultT]]]:
        """Yield (index of the batch, its results) as they finish.

        Raises:
            EngineError: workers end while they set the stage up, or none can be started; or, at the end, rows are left
                over that ended their workers. Their results were yielded as None.
        """
        try:
            yield from _Dispatch(self, stage, batches).run()
        finally:
            for worker in [worker for worker in self.workers if worker.asked]:
                self.end(worker)  # at work that an error made needless, or started too late

    def hire(self, wanted: int, packed: Any) -> None:
        """Start workers until there are so many; they answer once the cluster has room for them."""
        while len(self.workers) < wanted:
            worker = _Worker(self._actor.remote())
            worker.asked.append((worker.handle.settle.remote(self._site.plain()), None))
            worker.asked.append((worker.handle.begin.remote(packed), None))
            self.workers.append(worker)

    def end(self, worker: _Worker) -> None:
        """End a worker, which may be dead or out of reach."""
        import ray

        ray.kill(worker.handle)
        self.workers.remove(worker)

    def dismiss(self) -> None:
        """End all workers, whatever they are at."""
        for worker in list(self.workers):
            self.end(worker)


class _Dispatch(Generic[RowT, ResultT]):
    """One stage's way through the crew.

    A batch whose worker ends goes to another one, whole, so that it is computed as it would have been. After so many
    retries its rows go one by one, and a row that ends its worker once more becomes the stage's ``failure`` or is left
    over. The loss of a whole node is no fault of the batch and does not count.
    """

    def __init__(self, crew: Crew, stage: Stage[RowT, ResultT], batches: Sequence[Sequence[RowT]]) -> None:
        import ray

        self._crew, self._stage, self._batches = crew, stage, batches
        # cloudpickle takes classes of a script or notebook along, which no worker could import
        self._packed = ray.put(ray.cloudpickle.dumps(stage))
        self._queue = deque(_Task(index, list(batch)) for index, batch in enumerate(batches))
        self._parts: dict[int, dict[int, ResultT | None]] = {}
        self._left_over: list[RowT] = []
        self._failed_starts = 0
        self._answers = 0
        self._heard = self._first = time.monotonic()

    def run(self) -> Iterator[tuple[int, Results[ResultT]]]:
        """Yield as `Crew.imap` does."""
        import ray

        workers = self._crew.workers
        for worker in workers:
            worker.asked.append((worker.handle.begin.remote(self._packed), None))
        looked, room = -LOOK_EVERY, 0
        while self._queue or any(task for worker in workers for _, task in worker.asked):
            if time.monotonic() - looked >= LOOK_EVERY:
                looked, room = time.monotonic(), self._crew.room()
            self._crew.hire(min(room, len(self._queue)), self._packed)
            self._hand_out()
            asked = {worker.asked[0][0]: worker for worker in workers if worker.asked}
            if not asked:  # the last node left
                time.sleep(1.0)
                self._lose_patience()
                continue
            ready, _ = ray.wait(list(asked), num_returns=1, timeout=LOOK_EVERY)
            if ready:
                ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
                self._heard = time.monotonic()
            else:
                self._lose_patience()
            for reference in ready:
                yield from self._answer(asked[reference], reference)
        if self._left_over:
            raise EngineError(
                f"stage '{self._stage.name}': {len(self._left_over)} rows left over, first "
                f"{_named(self._left_over[0])}: {DEATH}; all others are done and kept"
            )

    def _hand_out(self) -> None:
        """Give started workers something to do: some batches at once, where these are short and enough are left."""
        workers, depth = self._crew.workers, 1
        if self._answers > 1 and len(self._queue) > IN_FLIGHT * len(workers):
            seconds = (time.monotonic() - self._first) * len(workers) / (self._answers - 1)
            depth = max(1, min(IN_FLIGHT, int(AHEAD / max(seconds, 1e-9))))
        for worker in workers:
            while self._queue and worker.started and len(worker.asked) < depth:
                task = self._queue.popleft()
                worker.asked.append((worker.handle.process.remote(task.rows), task))

    def _answer(self, worker: _Worker, reference: Any) -> Iterator[tuple[int, Results[ResultT]]]:
        """Take what a worker returned for the first thing it was asked for."""
        import ray

        task = worker.asked[0][1]
        try:
            found = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if task is None and isinstance(cause, ImportError):
                raise EngineError(
                    f"stage '{self._stage.name}': a worker of the cluster cannot load it ({one_line(cause)}); each "
                    "node must see the package where this process does, or have it installed"
                ) from None
            raise cause from error
        except ray.exceptions.RayError as error:
            yield from self._bury(worker, error)
            return
        worker.asked.popleft()
        if task is not None:
            self._answers += 1
            if self._answers == 1:
                self._first = time.monotonic()
            yield from self._merge(task, found)
        elif found is not None:  # it has settled
            worker.node = found["node"]
            self._crew.check(found)
        else:
            self._failed_starts = 0

    def _bury(self, worker: _Worker, error: Exception) -> Iterator[tuple[int, Results[ResultT]]]:
        """See what becomes of the work of a worker that ended: it was at the first thing that it was asked for."""
        import ray

        self._crew.end(worker)
        task, *behind = [task for _, task in worker.asked]
        self._queue.extendleft(other for other in reversed(behind) if other is not None)
        to_blame = worker.node is None or node_answers(ray.nodes(), worker.node)
        if task is None:
            self._failed_starts += to_blame
            if self._failed_starts > self._crew.retries:
                raise EngineError(
                    f"stage '{self._stage.name}': {self._failed_starts} workers in a row ended before they were ready, "
                    f"as when memory runs out while networks are loaded ({one_line(error)}); finished work is kept: "
                    "run again with fewer of them on a node (engine.cpus_per_worker=4)"
                ) from None
            return
        task.deaths += to_blame
        if task.deaths <= self._crew.retries:
            self._queue.appendleft(task)
        elif task.position is None and len(task.rows) > 1:
            self._parts[task.index] = {}
            singles = [_Task(task.index, [row], place, self._crew.retries) for place, row in enumerate(task.rows)]
            self._queue.extendleft(reversed(singles))
        else:
            (row,) = task.rows
            told = self._stage.failure(row, DEATH)
            if told is None:
                self._left_over.append(row)
            yield from self._merge(task, [told])

    def _merge(self, task: _Task[RowT], results: Results[ResultT]) -> Iterator[tuple[int, Results[ResultT]]]:
        """Yield a batch's results; those of single rows once all of its rows are there."""
        if task.position is None:
            yield task.index, results
            return
        parts = self._parts[task.index]
        parts[task.position] = results[0]
        if len(parts) == len(self._batches[task.index]):
            yield task.index, [parts[place] for place in range(len(parts))]

    def _lose_patience(self) -> None:
        import ray

        if time.monotonic() - self._heard > PATIENCE and not any(worker.node for worker in self._crew.workers):
            free = {name: amount for name, amount in ray.available_resources().items() if name in ("CPU", "GPU")}
            raise EngineError(
                f"stage '{self._stage.name}': the cluster started no worker within {PATIENCE / 60:.0f} minutes, free "
                f"are {free or 'no CPUs'}; is someone else at work there? Finished work is kept"
            )


def node_answers(nodes: Sequence[Mapping[str, Any]], node_id: str) -> bool:
    """Return whether a node is still there; Ray itself notices its loss half a minute later.

    Args:
        nodes: as `ray.nodes` tells them.
        node_id: the node.
    """
    for node in nodes:
        if node["NodeID"] == node_id and node["Alive"]:
            try:
                socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=5.0).close()
            except OSError:
                return False
            return True
    return False


def _named(row: Any) -> str:
    """Return the name of a row for messages.

    >>> _named({"case_id": "a", "benchmark": "severe", "seed": 3})
    'severe/a'
    """
    facts = asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row)
    names = [str(facts[key]) for key in ("benchmark", "case_id", "image_id", "metric", "output_path") if facts.get(key)]
    return "/".join(names) or str(facts)[:80]
