"""Working through many cases with bounded memory: batches that halve, and stores that forget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ffhqref.restorers.run_cases import out_of_memory, release_memory

T = TypeVar("T")


def in_batches(work: Callable[[Sequence[int]], T], count: int, size: int) -> list[T]:
    """Call ``work`` on the indices 0..count-1 in batches, and return its results in order.

    When a batch does not fit into memory, the batch size is halved, for the rest too, and the work goes on.

    Args:
        work: takes a run of neighbouring indices.
        count: number of indices.
        size: indices handed over at once.

    Raises:
        RuntimeError: a single case does not fit into memory.
    """
    results: list[T] = []
    start = 0
    while start < count:
        batch = range(start, min(start + size, count))
        try:
            results.append(work(batch))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or len(batch) == 1:
                raise
            size = (len(batch) + 1) // 2
        else:
            start = batch.stop
            continue
        # Only here, outside the handler, are the failed batch's tensors no longer held by its traceback.
        release_memory()
    return results


class BoundedStore(Generic[T]):
    """Values by key up to a total size in bytes; the one unused for longest goes first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._items: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._held = 0

    def get(self, key: str) -> T | None:
        """Return the value, or None when it is not (any more) there."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key][0]

    def put(self, key: str, value: T, nbytes: int) -> None:
        """Keep a value, unless it is larger than the whole store."""
        if nbytes > self.max_bytes or key in self._items:
            return
        self._items[key] = (value, nbytes)
        self._held += nbytes
        while self._held > self.max_bytes:
            _, (_, freed) = self._items.popitem(last=False)
            self._held -= freed

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self._held = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def nbytes(self) -> int:
        """Return the bytes held."""
        return self._held
