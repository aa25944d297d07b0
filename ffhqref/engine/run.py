"""Run a stage over rows: skip what is stored, distribute the rest, keep the order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from ffhqref.engine.base import ResultT
from ffhqref.engine.journal import Journal

if TYPE_CHECKING:
    from ffhqref.engine.base import Engine, ResultStore, RowT, Stage

Progress = Callable[[str, int, int], None]
"""Called with (stage name, rows done, rows in all), first with the rows that were already known."""


def run_stage(
    stage: Stage[RowT, ResultT],
    rows: Sequence[RowT],
    *,
    engine: Engine,
    journal_dir: str | Path,
    progress: Progress | None = None,
) -> list[ResultT]:
    """Run a stage with the journal of its name as store; see `run_with_store`.

    Args:
        stage: what is done to a row.
        rows: the work.
        engine: where the missing rows run.
        journal_dir: folder of the journals.
        progress: called as work goes on.
    """
    with Journal(Path(journal_dir) / f"{stage.name}.jsonl", stage.result_type) as journal:
        return run_with_store(stage, rows, engine=engine, store=journal, progress=progress)


def rehearse_stage(
    stage: Stage[RowT, ResultT], rows: Sequence[RowT], *, engine: Engine, journal_dir: str | Path
) -> list[ResultT]:
    """Return what `run_stage` would, and keep nothing of it.

    Args:
        stage: what is done to a row; its `Stage.rehearsal` is run.
        rows: the work.
        engine: where the rows run that the journal does not have.
        journal_dir: folder of the journals.
    """
    with Journal(Path(journal_dir) / f"{stage.name}.jsonl", stage.result_type) as journal:
        return run_with_store(stage.rehearsal(), rows, engine=engine, store=_Aside(journal))


class _Aside(Generic[ResultT]):
    """A journal whose new results are lost with it."""

    def __init__(self, journal: Journal[ResultT]) -> None:
        self._journal = journal
        self._made: dict[str, ResultT] = {}

    def get(self, key: str) -> ResultT | None:
        found = self._made.get(key)
        return self._journal.get(key) if found is None else found

    def add(self, results: Mapping[str, ResultT]) -> None:
        self._made.update(results)


def run_with_store(
    stage: Stage[RowT, ResultT],
    rows: Sequence[RowT],
    *,
    engine: Engine,
    store: ResultStore[ResultT],
    progress: Progress | None = None,
) -> list[ResultT]:
    """Return one result for each row, in the order of the rows, whatever the engine and the number of workers.

    Args:
        stage: what is done to a row.
        rows: the work. Rows with equal content keys are done once.
        engine: where the missing rows run.
        store: results found there are not computed again, provided `Stage.intact` holds for them.
        progress: called as work goes on.
    """
    keys = [stage.key(row) for row in rows]
    pending: dict[str, RowT] = {}
    for key, row in zip(keys, rows, strict=True):
        if key in pending:
            continue
        known = store.get(key)
        if known is None or not stage.intact(row, known):
            pending[key] = row
    total = len(set(keys))
    done = total - len(pending)
    if progress:
        progress(stage.name, done, total)
    items = sorted(pending.items(), key=lambda item: stage.group(item[1]))  # stable: a group keeps its order
    size = max(1, stage.batch_size)
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    unstored: dict[str, ResultT] = {}
    for index, results in engine.imap(stage, [[row for _, row in chunk] for chunk in chunks]):
        chunk = chunks[index]
        made = {key: result for (key, _), result in zip(chunk, results, strict=True) if result is not None}
        store.add(made)
        unstored.update({key: result for key, result in made.items() if store.get(key) is None})
        done += len(chunk)
        if progress:
            progress(stage.name, done, total)
    found = [unstored[key] if key in unstored else store.get(key) for key in keys]
    assert all(result is not None for result in found)
    return [result for result in found if result is not None]
