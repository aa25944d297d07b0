"""Outputs that are no restorations: the ground truth again, or one of the references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ImageError
from ffhqref.core.hashing import content_key
from ffhqref.core.images import SIZE, read_rgb
from ffhqref.engine import Engine, Stage, run_stage
from ffhqref.metrics.base import GROUND_TRUTH
from ffhqref.reference_sets.copies import are_alike

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.engine.run import Progress
    from ffhqref.metrics.scoring import ScoreRow

SAME = 1.0
"""Mean absolute difference in grey levels below which an output is its ground truth: PNG, WebP and good JPEG copies
are; a restoration, even of a mild degradation, is not (35 dB are about 3 levels)."""

TRUTH, REFERENCE, LEAK = "the ground truth itself", "one of the references", "a copy of the ground truth"


@dataclass(frozen=True)
class CaseRow:
    """The images of one case: (path, SHA-256) each."""

    benchmark: str
    case_id: str
    gt: tuple[str, str] | None
    references: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CaseResult:
    """What is a copy of what."""

    truth: list[bool]
    """Of each output: it is the ground truth."""
    reference: list[bool]
    """Of each output: it shows the same photograph as a reference."""
    leak: bool
    """A reference shows the same photograph as the ground truth."""


class CopiedStage(Stage[CaseRow, CaseResult]):
    """Compare the outputs of a case with its ground truth and its references, by pixels."""

    name = "copied"
    version = "1"
    batch_size = 4

    def key(self, row: CaseRow) -> str:
        """Return the content key."""
        files = [row.gt, *row.references, *row.outputs]
        counts = [len(row.references), len(row.outputs)]
        return content_key(self.name, self.version, counts, [file and file[1] for file in files])

    def process(self, rows: Sequence[CaseRow]) -> list[CaseResult]:
        """Compare the images of each case."""
        return [self._one(row) for row in rows]

    def _one(self, row: CaseRow) -> CaseResult:
        gt = _read(row.gt)
        references = [image for image in map(_read, row.references) if image is not None]
        outputs = [_read(output) for output in row.outputs]
        return CaseResult(
            [image is not None and gt is not None and _are_same(image, gt) for image in outputs],
            [image is not None and any(are_alike(image, other) for other in references) for image in outputs],
            gt is not None and any(are_alike(gt, other) for other in references),
        )


def copied_outputs(
    rows: Sequence[ScoreRow], *, engine: Engine, journal_dir: str | Path, progress: Progress | None = None
) -> dict[str, dict[str, str]]:
    """Return by benchmark and method which outputs are copies of what a restorer shall not, or need not, return.

    A benchmark whose references hold its ground truth has a line under `GROUND_TRUTH`.

    Args:
        rows: the outputs, those of the method `GROUND_TRUTH` too.
        engine: where the work runs.
        journal_dir: folder of the journals.
        progress: told as work goes on.
    """
    cases: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in rows:
        made = cases.setdefault((row.benchmark, row.case_id), [])
        if row.method != GROUND_TRUTH and row.usable and row.output_path and row.output_sha256:
            made.append(row)
    mine = [sorted(made, key=lambda row: row.method) for made in cases.values()]
    work = {index: _case(made) for index, made in enumerate(mine) if made}
    results = run_stage(CopiedStage(), list(work.values()), engine=engine, journal_dir=journal_dir, progress=progress)
    found: Counter[tuple[str, str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for made, result in zip((mine[index] for index in work), results, strict=True):
        benchmark = made[0].benchmark
        for row, truth, reference in zip(made, result.truth, result.reference, strict=True):
            total[benchmark, row.method] += 1
            found[benchmark, row.method, TRUTH] += truth
            found[benchmark, row.method, REFERENCE] += reference and not truth
        total[benchmark, GROUND_TRUTH] += 1
        found[benchmark, GROUND_TRUTH, LEAK] += result.leak
    return _told(found, total)


def _told(found: Mapping[tuple[str, str, str], int], total: Mapping[tuple[str, str], int]) -> dict[str, dict[str, str]]:
    told: dict[str, dict[str, str]] = {}
    for (benchmark, method, what), count in sorted(found.items()):
        if count:
            of = total[benchmark, method]
            things = "cases have a reference that is" if what == LEAK else "outputs are"
            mine = told.setdefault(benchmark, {})
            mine[method] = "; ".join(filter(None, (mine.get(method), f"{count} of {of} {things} {what}")))
    return told


def _case(made: Sequence[ScoreRow]) -> CaseRow:
    first = made[0]
    return CaseRow(
        first.benchmark,
        first.case_id,
        (first.gt_path, first.gt_sha256) if first.gt_path and first.gt_sha256 else None,
        tuple(zip(first.reference_paths, first.reference_sha256, strict=True)),
        tuple((str(row.output_path), str(row.output_sha256)) for row in made),
    )


def _read(file: tuple[str, str] | None) -> NDArray[np.uint8] | None:
    """Return an image at 512x512; None for none, and for one that cannot be read, of which the scores tell."""
    if file is None:
        return None
    try:
        return read_rgb(file[0], SIZE, sha256=file[1])
    except ImageError:
        return None


def _are_same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return float(np.abs(one.astype(np.int16) - other).mean()) < SAME
