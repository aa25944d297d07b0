"""How work is spread: a stage, an engine that maps it, and the journal that remembers what is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

Row = Mapping[str, Any]
"""One unit of work, or its result: JSON-like values and float32 arrays."""


class Stage(Protocol):
    """One step of the chain for independent rows. It must pickle; heavy state is made in `setup`.

    Attributes:
        name: names the journal.
        version: part of every content key; raised when results change.
        batch_size: rows handed to one `process` call.

    An engine and `run_stage` also look at these where a stage has them: the attribute ``one_at_a_time`` (no two
    batches may run at once on a machine) and the method ``group(row) -> str`` (rows of one group are put next to one
    another, so that they share batches as far as those reach).
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
    """Where batches run."""

    def imap(self, stage: Stage, batches: Sequence[Sequence[Row]]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Yield (index of the batch, its results) in any order."""
        ...

    def close(self) -> None:
        """Let go of processes and connections."""
        ...
