"""Run a stage over rows: skip what the journal holds, distribute the rest, keep the order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.engine.base import Engine, Stage
from ffhqref.engine.journal import Journal

if TYPE_CHECKING:
    from ffhqref.engine.base import Engine, ResultT, RowT, Stage

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
    """Return one result for each row, in the order of the rows, whatever the engine and the number of workers.

    Args:
        stage: what is done to a row.
        rows: the work. Rows with equal content keys are done once.
        engine: where the missing rows run.
        journal_dir: folder of the journals. Results found there are not computed again, provided `Stage.intact`
            holds for them.
        progress: called as work goes on.
    """
    keys = [stage.key(row) for row in rows]
    with Journal(Path(journal_dir) / f"{stage.name}.jsonl", stage.result_type) as journal:
        pending: dict[str, RowT] = {}
        for key, row in zip(keys, rows, strict=True):
            if key in pending:
                continue
            known: ResultT | None = journal.get(key)
            if known is None or not stage.intact(row, known):
                pending[key] = row
        total = len(set(keys))
        done = total - len(pending)
        if progress:
            progress(stage.name, done, total)
        items = sorted(pending.items(), key=lambda item: stage.group(item[1]))  # stable: a group keeps its order
        size = max(1, stage.batch_size)
        chunks = [items[start : start + size] for start in range(0, len(items), size)]
        batches = [[row for _, row in chunk] for chunk in chunks]
        for index, results in engine.imap(stage, batches):
            chunk = chunks[index]
            journal.add({key: result for (key, _), result in zip(chunk, results, strict=True) if result is not None})
            done += len(chunk)
            if progress:
                progress(stage.name, done, total)
        found = [journal.get(key) for key in keys]
    assert all(result is not None for result in found)
    return [result for result in found if result is not None]
