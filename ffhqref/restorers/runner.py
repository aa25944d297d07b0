"""Restoring as a stage of the engine: rows of cases in, rows of table ``restorations`` out."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import FfhqrefError, cannot_write, one_line
from ffhqref.core.hashing import content_key, sha256_bytes, sha256_file
from ffhqref.core.images import SIZE, read_rgb, save_png, to_tensor, to_uint8
from ffhqref.core.seeding import case_seed, seeded_generators
from ffhqref.engine.base import Row, Stage
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.restorers import Restorer, make_restorer
from ffhqref.restorers.base import PartialResult, RestorationBatch
from ffhqref.restorers.cache_key import restorer_identity
from ffhqref.restorers.check import WrongOutputError, check_values, checked_batch
from ffhqref.store.workspace import inside

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class _Case:
    """One row with its pictures read."""

    row: Row
    lq: NDArray[np.uint8]
    references: list[NDArray[np.uint8]]
    seed: int


class RestoreStage(Stage[Row, dict[str, Any]]):
    """Run one method over cases and write its pictures as PNG.

    A row has ``benchmark``, ``case_id``, ``lq_path``, ``lq_sha256``, ``reference_paths`` and ``reference_sha256``
    (two lists of one order: that of the references table), ``seed`` (the run's), ``age`` (years or None) and
    ``out_path`` (relative to ``root``). Other relative paths are taken from ``root``. A hash of None is not checked.

    A result has the columns of table ``restorations`` and, for `intact`, ``file_size`` and ``file_mtime_ns``:

    - status ``ok``: ``output_path`` is a PNG of the input's size.
    - status ``passthrough``: so too, but the picture equals the input bit for bit although the restorer does not
      say it does that; some published scripts hide their failures in this way.
    - status ``failed``: no picture; ``error`` is one line.

    A batch that fails, or a case of it with a wrong output, is run again case by case, so that no case takes its
    neighbours along. Each case's seed is ``case_seed(seed, benchmark, case_id)``, the same for all methods, so that
    methods meet the same luck; global generators are seeded with it as well, for restorers that draw from those.

    Args:
        root: workspace that paths in rows and results are relative to.
        method: name of the method in the tables.
        options: of the restorer's constructor.
        restorer: name in `ffhqref.restorers.RESTORERS`, for a second variant of one; the method's when None. Not
            looked at when the options have ``_target_``.
        device: where networks run, for restorers that take a ``device`` and have none in their options.
        batch_size: cases of one call; the restorer's own ``batch_size``, or 1, when None.
        retry_failed: do cases again that failed in an earlier run; otherwise a failure is remembered until
            something that the result depends on changes.

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
    ) -> None:
        self.root = Path(root)
        self.method = method
        self._registered = restorer or method
        self.options = dict(options or {})
        self.device = device
        self.retry_failed = retry_failed
        self.name = f"restore-{method}"
        self._restorer: Restorer | None = None
        self.batch_size = batch_size or int(getattr(self.restorer, "batch_size", 1))
        on_gpu = self._place.startswith("cuda")
        self.gpus = 1.0 if on_gpu else 0.0
        # a GPU's memory is not for all cores
        self.one_at_a_time = bool(getattr(self.restorer, "one_at_a_time", on_gpu))
        self._identity = [self.version, *restorer_identity(self._registered, self.options, self.restorer)]

    @property
    def restorer(self) -> Restorer:
        """The method under test, made on first use in each process."""
        if self._restorer is None:
            self._restorer = make_restorer(self._registered, **{"device": self.device, **self.options})
        return self._restorer

    @property
    def _place(self) -> str:
        """Where the restorer works: its attribute ``device``; those without one work on the CPU."""
        return str(getattr(self.restorer, "device", "cpu"))

    @property
    def _rule(self) -> str:
        return str(getattr(self.restorer, "eight_bit_rule", "round"))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_restorer": None}  # each worker makes its own

    def group(self, row: Row) -> str:
        """Return what rows of one batch should share; empty where the restorer does not mind."""
        if not getattr(self.restorer, "groups_references", False):
            return ""
        return content_key(list(row["reference_sha256"])[: self.restorer.info.max_references])

    def key(self, row: Row) -> str:
        """Return the content key: inputs, method, options, weights, code version and, of a plug-in, its module.

        The device is left out: it is told in the result, and a run may go on somewhere else.
        """
        info = self.restorer.info
        hashes = list(row["reference_sha256"])[: info.max_references]
        return content_key(
            self._identity, [row[name] for name in ("benchmark", "case_id", "lq_sha256", "out_path")], hashes,
            row["seed"] if info.uses_seed or not info.deterministic else None, _age(row),
        )  # fmt: skip

    def setup(self) -> None:
        """Make the restorer."""
        assert self.restorer is not None

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return one result a row; see the class."""
        results: dict[int, dict[str, Any]] = {}
        groups: dict[tuple[int, ...], list[tuple[int, _Case]]] = {}
        for index, row in enumerate(rows):
            try:
                case = self._read(row)
            except (FfhqrefError, OSError) as error:
                results[index] = self._result(row, error=one_line(error))
            else:
                groups.setdefault(case.lq.shape, []).append((index, case))
        for members in groups.values():
            made = self._restore([case for _, case in members])
            results.update(zip([index for index, _ in members], made, strict=True))
        return [results[index] for index in range(len(rows))]

    def failure(self, row: Row, reason: str) -> dict[str, Any]:
        """Return the result of a case that could not be tried to the end."""
        return self._result(row, error=reason)

    def intact(self, row: Row, result: Row) -> bool:
        """Return whether the restored file is there and unchanged; a remembered failure stands unless retried."""
        if result["status"] == "failed":
            return not self.retry_failed
        return file_intact(self.root / row["out_path"], result, str(result["output_sha256"]))

    def _read(self, row: Row) -> _Case:
        info = self.restorer.info
        paths, hashes = list(row["reference_paths"]), list(row["reference_sha256"])
        if len(paths) < info.min_references:
            raise FfhqrefError(f"missing references: {len(paths)} of at least {info.min_references}")
        used = list(zip(paths, hashes, strict=True))[: info.max_references]
        return _Case(
            row=row,
            lq=self._picture(row["lq_path"], row["lq_sha256"]),
            references=[self._picture(path, sha256) for path, sha256 in used],
            seed=case_seed(int(row["seed"]), row["benchmark"], row["case_id"]),
        )

    def _picture(self, relative: str, sha256: str | None) -> NDArray[np.uint8]:
        path = self.root / relative
        if sha256 is not None and sha256_file(path) != sha256:
            raise FfhqrefError(f"changed since its table was made, run degrade or build again: {path}")
        return read_rgb(path, SIZE)

    def _restore(self, cases: list[_Case]) -> list[dict[str, Any]]:
        """Restore cases of one size together, and those that went wrong on their own."""
        try:
            output, reasons, cost = self._call(cases)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may fail in any way
            failure, memory = one_line(error), _out_of_memory(error)
        else:
            return [
                self._result(case.row, error=reasons[index], **cost)
                if index in reasons
                else self._finish(case, output[index], cost, len(cases))
                for index, case in enumerate(cases)
            ]
        # outside the handler, where its traceback holds no tensors any more
        _release(memory)
        if len(cases) > 1:
            return [result for case in cases for result in self._restore([case])]
        return [self._result(cases[0].row, error=f"out of memory: {failure}" if memory else failure)]

    def _call(self, cases: list[_Case]) -> tuple[torch.Tensor, Mapping[int, str], dict[str, Any]]:
        import torch

        ages = [_age(case.row) for case in cases]
        batch = RestorationBatch(
            lq=to_tensor([case.lq for case in cases]),
            references=[_strip(case) for case in cases],
            seeds=[case.seed for case in cases],
            case_ids=[case.row["case_id"] for case in cases],
            ages=ages if any(age is not None for age in ages) else None,
        )
        shape = tuple(batch.lq.shape)
        place = self._place if getattr(self.restorer, "in_process", True) else ""
        reasons: Mapping[int, str] = {}
        with _measured(place) as cost, seeded_generators(cases[0].seed), torch.no_grad():
            made = self.restorer.restore(batch)
            if isinstance(made, PartialResult):
                reasons, made = made.reasons, made.pictures
            output = checked_batch(made, shape)
        return output, reasons, {**cost, "seconds": cost["seconds"] / len(cases)}

    def _finish(self, case: _Case, picture: torch.Tensor, cost: dict[str, Any], neighbours: int) -> dict[str, Any]:
        try:
            check_values(picture)
        except WrongOutputError as error:
            if neighbours > 1:
                return self._restore([case])[0]
            return self._result(case.row, error=str(error), **cost)
        levels = to_uint8(picture[None], self._rule)[0]
        try:
            target = inside(self.root, case.row["out_path"])
            data = save_png(target, levels)
        except (FfhqrefError, OSError) as error:
            if cannot_write(error):
                raise
            return self._result(case.row, error=one_line(error), **cost)
        same = not self.restorer.info.passthrough and np.array_equal(levels, case.lq)
        return self._result(
            case.row,
            status="passthrough" if same else "ok",
            error="the output equals the input" if same else None,
            output_path=case.row["out_path"],
            output_sha256=sha256_bytes(data),
            **cost,
            **file_stamp(target),
        )

    def _result(self, row: Row, **found: Any) -> dict[str, Any]:
        nothing = {
            "output_path": None,
            "output_sha256": None,
            "status": "failed",
            "error": None,
            "seconds": 0.0,
            "peak_memory_bytes": None,
            "device": self._place,
            "file_size": None,
            "file_mtime_ns": None,
        }
        names = {"method": self.method, "benchmark": row["benchmark"], "case_id": row["case_id"]}
        return {**names, **nothing, **found}


def _age(row: Row) -> float | None:
    age = row.get("age")
    return None if age is None or math.isnan(age) else float(age)


def _strip(case: _Case) -> torch.Tensor:
    import torch

    if not case.references:
        return torch.zeros((0, 3, *case.lq.shape[:2]))
    return to_tensor(case.references)


@contextlib.contextmanager
def _measured(device: str) -> Iterator[dict[str, Any]]:
    """Fill in seconds, and on a GPU the peak of allocated memory in bytes."""
    import torch

    cost: dict[str, Any] = {"seconds": 0.0, "peak_memory_bytes": None}
    gpu = device.startswith("cuda") and torch.cuda.is_available()
    if gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    yield cost
    if gpu:
        torch.cuda.synchronize(device)
        cost["peak_memory_bytes"] = int(torch.cuda.max_memory_allocated(device))
    cost["seconds"] = time.perf_counter() - start


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _release(memory: bool) -> None:
    """Hand memory back to the device after it ran out."""
    if not memory:
        return
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
