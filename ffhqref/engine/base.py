"""The contract between stages, engines and journals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, get_args

RowT = TypeVar("RowT")
"""One unit of work: a frozen dataclass."""

ResultT = TypeVar("ResultT")
"""Its result: a frozen dataclass of JSON values and float32 arrays."""

Row = Mapping[str, Any]
"""Row or result of a stage without dataclasses."""

GPU_SHARE = 0.25
"""`Stage.gpus` of small networks: several workers share a GPU, because reading images takes longer than the network."""


class Stage(ABC, Generic[RowT, ResultT]):
    """One step of the chain, for independent rows.

    A stage must pickle. Load heavy state in `setup`.

    A journal stores a result as a JSON object of its fields. A field whose default is None is left out while it is
    None.

    Attributes:
        name: names the journal.
        version: part of every content key. Raise it when results change.
        batch_size: rows of one `process` call.
        one_at_a_time: whether no two batches may run at once on a machine; of a GPU stage, on a GPU.
        gpus: the part of a GPU that a worker of a cluster needs; 0: none; 1: each worker has a GPU of its own.
        any_gpu: whether its networks may run on any GPU; False where the user named one, or where it cannot pickle.
        result_type: class of the results, taken from the type arguments of the stage.
    """

    name: str
    version: str = "1"
    batch_size: int = 1
    one_at_a_time: bool = False
    gpus: float = 0.0
    any_gpu: bool = True
    result_type: type[Any] = dict

    def __init_subclass__(cls) -> None:
        """Note the class of the results."""
        super().__init_subclass__()
        for base in cls.__dict__.get("__orig_bases__", ()):
            arguments = get_args(base)
            if len(arguments) >= 2 and isinstance(arguments[1], type):
                cls.result_type = arguments[1]

    @abstractmethod
    def key(self, row: RowT) -> str:
        """Return the content key: a hash of the inputs, the config, the weights and the version of the code."""

    @abstractmethod
    def process(self, rows: Sequence[RowT]) -> list[ResultT]:
        """Return one result for each row, in order. A failing row is a result too, never an exception."""

    def setup(self) -> None:
        """Load what is heavy. Called once in each worker, and only when there is work to do."""

    def intact(self, row: RowT, result: ResultT) -> bool:  # noqa: ARG002
        """Return whether a stored result still holds, for instance whether its file is unchanged."""
        return True

    def rehearsal(self) -> Stage[RowT, ResultT]:
        """Return the stage that has the same results and writes no file; one that writes none is its own."""
        return self

    def group(self, row: RowT) -> str:  # noqa: ARG002
        """Return the group of a row. Rows of one group are put next to each other, so that they share batches."""
        return ""

    def failure(self, row: RowT, reason: str) -> ResultT | None:  # noqa: ARG002
        """Return the result of a row that ends its worker process each time it is tried on a cluster.

        None: such a row raises, once all others are done.
        """
        return None


LoadedT = TypeVar("LoadedT")
"""What `LoadingStage.load` returns for a row, or the reason why there is nothing."""


class LoadingStage(Stage[RowT, ResultT], Generic[RowT, ResultT, LoadedT]):
    """A stage that loads each row on its own, and computes on batches.

    Attributes:
        overlapped: whether `load` may run in threads of this process while `compute` works on earlier batches. False
            for code that holds Python's lock while it computes; batches then run in worker processes.
    """

    overlapped: bool = True

    @abstractmethod
    def load(self, row: RowT) -> LoadedT:
        """Read one row; called from any thread. What cannot be read is told by the returned value."""

    @abstractmethod
    def compute(self, loaded: Sequence[LoadedT]) -> list[ResultT]:
        """Return one result for each loaded row, in order."""

    def process(self, rows: Sequence[RowT]) -> list[ResultT]:
        """Load and compute."""
        return self.compute([self.load(row) for row in rows])


Results = Sequence[ResultT | None]
"""Of a batch, in the order of its rows."""


class ResultStore(Protocol[ResultT]):
    """Results of a stage by content key."""

    def get(self, key: str) -> ResultT | None:
        """Return the stored result, or None."""
        ...

    def add(self, results: Mapping[str, ResultT]) -> None:
        """Store results; a store may leave out what should be tried again."""
        ...


class Engine(Protocol):
    """Where batches run.

    Attributes:
        workers: processes or threads of this machine that work outside the stages may use.
        distributed: whether batches may run on other machines.
    """

    workers: int
    distributed: bool

    def imap(
        self, stage: Stage[RowT, ResultT], batches: Sequence[Sequence[RowT]]
    ) -> Iterator[tuple[int, Results[ResultT]]]:
        """Yield (index of the batch, its results) in any order.

        A result is None where the engine gave up on a row. The engine raises once all others are yielded.
        """
        ...

    def close(self) -> None:
        """Release processes and connections."""
        ...
