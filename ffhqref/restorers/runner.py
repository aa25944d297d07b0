"""Restore as a stage of the engine: cases in, rows of table ``restorations`` out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import FfhqrefError, WeightsError, cannot_write, one_line
from ffhqref.core.hashing import content_key, sha256_bytes, sha256_file
from ffhqref.core.images import SIZE, read_rgb, save_png, to_tensor, to_uint8
from ffhqref.core.seeding import case_seed
from ffhqref.engine.base import Stage
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.restorers import Restorer, make_restorer
from ffhqref.restorers.base import RestorationBatch
from ffhqref.restorers.cache_key import restorer_identity
from ffhqref.restorers.match import CaseName
from ffhqref.restorers.passthrough import same_as_input
from ffhqref.restorers.run_cases import Outcome, Stopwatch, run_cases
from ffhqref.store.workspace import owned

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RestoreRow:
    """One case to restore. Relative paths start from the workspace."""

    benchmark: str
    case_id: str
    lq_path: str
    lq_sha256: str | None
    """None: not checked."""
    reference_paths: tuple[str, ...]
    """In the order of the references table."""
    reference_sha256: tuple[str | None, ...]
    seed: int
    """Of the run."""
    age: float | None
    """Of the target in years."""
    out_path: str
    lq_name: str = ""
    """Name of an imported LQ file as given, without ending."""
    file: tuple[str, str] | None = None
    """Path and SHA-256 of the output, where it exists already (`Restorer.match`)."""


@dataclass(frozen=True)
class RestoreResult:
    """One row of table ``restorations``, and the stamp of its file.

    Status ``ok``: `output_path` is a PNG of the input's size. ``passthrough``: so too, but the image is the input again
    (see `ffhqref.restorers.passthrough`) although the restorer does not declare that. ``failed``: no image; `error` is
    one line.
    """

    method: str
    benchmark: str
    case_id: str
    output_path: str | None = None
    output_sha256: str | None = None
    status: str = "failed"
    error: str | None = None
    seconds: float | None = 0.0
    """None: the case was in the first call of its worker, which loads and warms up, or its program loads at each call.
    """
    peak_memory_bytes: int | None = None
    device: str = "cpu"
    file_size: int | None = None
    file_mtime_ns: int | None = None
    first_seconds: float | None = None
    """Time of the case in a first call."""


@dataclass(frozen=True)
class _Case:
    """A row with its images read."""

    row: RestoreRow
    lq: NDArray[np.uint8]
    references: list[NDArray[np.uint8]]

    @property
    def seed(self) -> int:
        return case_seed(self.row.seed, self.row.benchmark, self.row.case_id)


class RestoreStage(Stage[RestoreRow, RestoreResult]):
    """Run one restorer over cases and write its images as PNG.

    Each case's seed is ``case_seed(seed, benchmark, case_id)``, the same for all restorers.

    Args:
        root: workspace that paths in rows and results are relative to.
        method: name of the restorer in the tables.
        options: of the restorer's constructor.
        restorer: name in `ffhqref.restorers.RESTORERS`, for a second variant of one; ``method`` when None. Ignored when
            the options have ``_target_``.
        device: where networks run, for restorers that take a ``device`` and have none in their options.
        batch_size: cases of one call; the restorer's own when None.
        retry_failed: restore cases again that failed in an earlier run; otherwise a failure is remembered until
            something that the result depends on changes.
        made: the restorer itself, which then works in this process alone.

    Raises:
        ConfigError, DependencyError, WeightsError: the restorer cannot be made.
    """

    version = "1"

    def __init__(
        self,
        root: str | Path,
        method: str,
        options: Mapping[str, Any] | None = None,
        *,
        restorer: str | None = None,
        device: str = "cpu",
        batch_size: int | None = None,
        retry_failed: bool = False,
        made: Restorer | None = None,
    ) -> None:
        self.root = Path(root)
        self.method = method
        self.name = f"restore-{method}"
        self.retry_failed = retry_failed
        self._registered = restorer or method
        self._given = dict(options or {})
        self._options = {"device": device, **self._given}
        self._made: tuple[Restorer, Stopwatch] | None = None if made is None else _timed(made)
        self.batch_size = batch_size or int(self.restorer.batch_size)
        self.one_at_a_time = made is not None or bool(self.restorer.exclusive)
        self.gpus = 1.0 if self.restorer.device.startswith("cuda") else 0.0
        self.any_gpu = made is None and self.restorer.device == "cuda"
        self._identity = self._made_of()

    def _made_of(self) -> list[Any]:
        """Return everything but the case that an output depends on."""
        return [self.version, *restorer_identity(self._registered, self._given, self.restorer)]

    @property
    def restorer(self) -> Restorer:
        """The restorer under test, made on first use in each process."""
        return self._worker()[0]

    def _worker(self) -> tuple[Restorer, Stopwatch]:
        if self._made is None:
            self._made = _timed(make_restorer(self._registered, **self._options))
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}  # each worker makes its own

    def setup(self) -> None:
        """Make the restorer.

        Raises:
            WeightsError: it is not the one that results are recorded for: a file was replaced meanwhile.
        """
        if self._made is None and self._identity != self._made_of():
            raise WeightsError(f"restorer '{self.method}': a file of it changed since the run began; run again")

    def group(self, row: RestoreRow) -> str:
        """Return what rows of one batch should share; empty where the restorer does not mind."""
        return content_key(self._reference_hashes(row)) if self.restorer.groups_references else ""

    def key(self, row: RestoreRow) -> str:
        """Return the content key: inputs, method, options, weights, code version and, of a plug-in, its module.

        The device is left out: the result tells it, and a run may go on somewhere else.
        """
        info = self.restorer.info
        return content_key(
            self._identity, [row.benchmark, row.case_id, row.lq_sha256, row.out_path], self._reference_hashes(row),
            row.seed if info.uses_seed or not info.deterministic else None, _age(row),
            *([row.file and row.file[1]] if self.restorer.by_file else []),
        )  # fmt: skip

    def matched(self, rows: Sequence[RestoreRow], say: Callable[[str], None]) -> list[RestoreRow]:
        """Return the rows with their files, where outputs exist already; any other restorer's as they are.

        Args:
            rows: of all cases of the run.
            say: told what a user must know, one line at a time.

        Raises:
            FfhqrefError: the files cannot be matched; one line.
        """
        if not self.restorer.by_file:
            return list(rows)
        names = [CaseName(row.benchmark, row.case_id, row.lq_name) for row in rows]
        found = self.restorer.match(names, self.method)
        for line in found.remarks:
            say(line)
        left_out = set(found.absent)
        return [
            replace(row, file=_with_hash(found.files.get(name)))
            for row, name in zip(rows, names, strict=True)
            if name not in left_out
        ]

    def _reference_hashes(self, row: RestoreRow) -> list[str | None]:
        return list(row.reference_sha256)[: self.restorer.info.max_references]

    def process(self, rows: Sequence[RestoreRow]) -> list[RestoreResult]:
        """Return one result for each row."""
        results: dict[int, RestoreResult] = {}
        cases: dict[int, _Case] = {}
        for index, row in enumerate(rows):
            try:
                cases[index] = self._read(row)
            except (FfhqrefError, OSError) as error:
                results[index] = self.failure(row, one_line(error))
        if cases:
            restorer, stopwatch = self._worker()
            outcomes = run_cases(restorer.restore, _batch(list(cases.values())), stopwatch=stopwatch)
            for (index, case), outcome in zip(cases.items(), outcomes, strict=True):
                results[index] = self._written(case, outcome)
        return [results[index] for index in range(len(rows))]

    def failure(self, row: RestoreRow, reason: str) -> RestoreResult:
        """Return the result of a case that could not be tried to the end."""
        return self._result(row, Outcome(error=reason))

    def intact(self, row: RestoreRow, result: RestoreResult) -> bool:
        """Return whether the restored file is there and unchanged; a remembered failure stands unless retried."""
        if result.status == "failed":
            return not self.retry_failed
        return file_intact(self.root / row.out_path, result, str(result.output_sha256))

    def _read(self, row: RestoreRow) -> _Case:
        info = self.restorer.info
        if len(row.reference_paths) < info.min_references:
            raise FfhqrefError(f"missing references: {len(row.reference_paths)} of at least {info.min_references}")
        used = list(zip(row.reference_paths, row.reference_sha256, strict=True))[: info.max_references]
        return _Case(
            row,
            read_rgb(self.root / row.lq_path, SIZE, sha256=row.lq_sha256),
            [read_rgb(self.root / path, SIZE, sha256=sha256) for path, sha256 in used],
        )

    def _written(self, case: _Case, outcome: Outcome) -> RestoreResult:
        """Write the image of an outcome, and return the case's result."""
        if outcome.image is None:
            return self._result(case.row, outcome)
        levels = to_uint8(outcome.image[None], self.restorer.quantization)[0]
        try:
            target = owned(self.root, case.row.out_path)
            data = save_png(target, levels)
        except (FfhqrefError, OSError) as error:
            if cannot_write(error):
                raise
            return self._result(case.row, Outcome(error=one_line(error), cost=outcome.cost))
        same = None if self.restorer.info.passthrough else same_as_input(levels, case.lq)
        return self._result(
            case.row,
            Outcome(error=same, cost=outcome.cost),
            status="passthrough" if same else "ok",
            output_path=case.row.out_path,
            output_sha256=sha256_bytes(data),
            **file_stamp(target),
        )

    def _result(self, row: RestoreRow, outcome: Outcome, **found: Any) -> RestoreResult:
        first, seconds = outcome.cost.first_call, None if self.restorer.by_file else outcome.cost.seconds
        return RestoreResult(
            self.method,
            row.benchmark,
            row.case_id,
            error=outcome.error,
            seconds=None if first else seconds,
            first_seconds=seconds if first else None,
            peak_memory_bytes=outcome.cost.peak_memory_bytes,
            device=str(self.restorer.device),
            **found,
        )


def _timed(restorer: Restorer) -> tuple[Restorer, Stopwatch]:
    """Return a restorer with the clock of its calls."""
    here = restorer.in_process
    return restorer, Stopwatch(str(restorer.device) if here else "", restarts=not here)


def _with_hash(file: Path | None) -> tuple[str, str] | None:
    """Return a file with its hash, empty where it cannot be read: that is told when it is read as an image."""
    if file is None:
        return None
    try:
        return str(file), sha256_file(file)
    except OSError:
        return str(file), ""


def _age(row: RestoreRow) -> float | None:
    return None if row.age is None or math.isnan(row.age) else float(row.age)


def _batch(cases: Sequence[_Case]) -> RestorationBatch:
    ages = [_age(case.row) for case in cases]
    return RestorationBatch(
        lq=to_tensor([case.lq for case in cases]),
        references=[_stacked(case.references) for case in cases],
        seeds=[case.seed for case in cases],
        case_ids=[case.row.case_id for case in cases],
        ages=ages if any(age is not None for age in ages) else None,
        files=[case.row.file for case in cases],
    )


def _stacked(images: list[NDArray[np.uint8]]) -> torch.Tensor:
    import torch

    return to_tensor(images) if images else torch.zeros((0, 3, SIZE, SIZE))
