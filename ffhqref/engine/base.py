"""How work is spread: a stage, an engine that maps it, and the journal that remembers what is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

Row = Mapping[str, Any]
"""One unit of work, or its result: JSON-like values and float32 arrays."""

Results = Sequence[dict[str, Any] | None]
"""Of a batch, in the order of its rows."""

GPU_SHARE = 0.25
"""`Stage.gpus` of small networks: several workers on one GPU, for reading pictures takes longer than the network."""


class Stage(Protocol):
    """One step of the chain for independent rows. It must pickle; heavy state is made in `setup`.

    Attributes:
        name: names the journal.
        version: part of every content key; raised when results change.
        batch_size: rows handed to one `process` call.

    An engine and `run_stage` also look at these where a stage has them:

    - ``one_at_a_time``: no two batches may run at once on a machine.
    - ``group(row) -> str``: rows of one group are put next to one another, so that they share batches as far as those
      reach.
    - ``gpus``: the part of a GPU that a worker of a cluster needs (else 0: none). 1 gives one worker each GPU.
    - ``failure(row, reason)``: the result of a row that ends its worker process each time it is tried on a cluster.
      Without it such a row ends the run, once everything else is done.
    """

    name: str
    version: str
    batch_size: int

    def key(self, row: Row) -> str:
        """Return the content key: a hash of the inputs, the config, the weights and the code version."""
        ...

    def setup(self) -> None:
        """Load what is heavy; called once in each worker, and only when there is work to do."""
        ...

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return one result for each row, in order. A failing row is a result too, never an exception."""
        ...

    def intact(self, row: Row, result: Row) -> bool:
        """Return whether a remembered result still holds, for instance whether its file is still the same."""
        ...


class Engine(Protocol):
    """Where batches run.

    Attributes:
        workers: processes or threads of this machine that work outside the stages may use.
        distributed: whether batches may run on other machines.
    """

    workers: int
    distributed: bool

    def imap(self, stage: Stage, batches: Sequence[Sequence[Row]]) -> Iterator[tuple[int, Results]]:
        """Yield (index of the batch, its results) in any order.

        A result is None where the engine gave a row up; it then raises in the end, once all others are yielded.
        """
        ...

    def close(self) -> None:
        """Let go of processes and connections."""
        ...
