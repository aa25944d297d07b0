"""Score outputs: each image is decoded once for all metrics, each (image, metric) pair is computed once for ever.

The unit of work is one metric on one output. Its content key holds the hashes of the images that the metric uses and
the metric's signature, and nothing else: adding a metric computes that metric only, two methods with equal outputs
share their values, and a ground truth is scored once for all its benchmarks.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ffhqref.core.errors import ConfigError, DependencyError, FfhqrefError, ImageError, WeightsError
from ffhqref.core.hashing import content_key
from ffhqref.core.images import SIZE, read_rgb, to_tensor
from ffhqref.engine import Engine, Row, Stage, run_stage
from ffhqref.engine.base import GPU_SHARE
from ffhqref.metrics import make_metric, metric_facts
from ffhqref.metrics.base import GROUND_TRUTH, Metric, MetricBatch, MetricFacts, MetricRuntime
from ffhqref.metrics.identity import share_caches

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from numpy.typing import NDArray

    from ffhqref.engine.run import Progress


@dataclass(frozen=True)
class ScoreRow:
    """One output to score."""

    method: str
    benchmark: str
    case_id: str
    output_path: str | None
    """File to read; None: the restoration failed."""
    output_sha256: str | None
    gt_path: str | None = None
    gt_sha256: str | None = None
    reference_paths: tuple[str, ...] = ()
    """In the order of the references table."""
    reference_sha256: tuple[str, ...] = ()
    usable: bool = True
    """Whether dataset-level metrics count the output; they leave out failed and pass-through ones."""


@dataclass(frozen=True)
class MetricSet:
    """Metrics of one run by their name in the tables, and those that cannot run here with the reason."""

    available: Mapping[str, Metric]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, MetricFacts] = field(default_factory=dict)
    """What the classes of the unavailable metrics declare."""

    @property
    def signatures(self) -> dict[str, str]:
        """Return the signature of every available metric, for the provenance of the table."""
        return {name: metric.signature for name, metric in self.available.items()}

    @property
    def directions(self) -> dict[str, bool]:
        """Return whether higher is better, for every metric."""
        return {
            **{name: metric.higher_is_better for name, metric in self.available.items()},
            **{name: facts.higher_is_better for name, facts in self.facts.items()},
        }


@dataclass(frozen=True)
class Scores:
    """The outcome of `score`."""

    frame: pd.DataFrame
    """Table ``scores``: method, benchmark, case_id, metric, value, status."""
    reasons: Mapping[tuple[str, str], int]
    """How often each (metric, reason) made a value fail."""
    signatures: Mapping[str, str]
    """Of every available metric, with the image size where it is not 512 px."""


def resolve_metrics(
    requests: Sequence[str | Mapping[str, Any]],
    runtime: MetricRuntime | None = None,
    embedder: Mapping[str, Any] | None = None,
) -> MetricSet:
    """Make the metrics of a run; those whose weights or packages are absent become unavailable with the reason.

    Args:
        requests: names of metrics, or mappings with ``name``, an optional ``label`` (its name in the tables) and the
            metric's options.
        runtime: device and weights folder.
        embedder: the run's embedder, used by ``ids`` and ``ids_ref`` where the request names none: its ``name``,
            ``crop`` and options. A request that names another must give that one's options itself.

    Raises:
        ConfigError: unknown metric or option, two metrics of one label, or an unavailable metric whose direction is
            not declared.
    """
    available: dict[str, Metric] = {}
    unavailable: dict[str, str] = {}
    facts: dict[str, MetricFacts] = {}
    for request in requests:
        options = {"name": request} if isinstance(request, str) else dict(request)
        if "name" not in options:
            raise ConfigError(f"a metric needs a name: {options}")
        name = str(options.pop("name"))
        label = str(options.pop("label", name))
        if label in available or label in unavailable:
            raise ConfigError(f"two metrics are called '{label}'; give one of them another label")
        try:
            chosen = options.pop("embedder", embedder)
            available[label] = make_metric(name, runtime=runtime, embedder=chosen, **options)
        except (WeightsError, DependencyError) as error:
            unavailable[label], facts[label] = str(error), metric_facts(name, options)
    return MetricSet(available, unavailable, facts)


class _UnreadableError(ImageError):
    """A file changed or cannot be read. It may come back, so it is tried again; other errors lie in the image."""


class _References(Sequence["torch.Tensor"]):
    """References of one case, decoded on access: one whose vector is cached is never read."""

    def __init__(self, stage: ScoreStage, paths: Sequence[str], hashes: Sequence[str]) -> None:
        self._stage, self._paths, self._hashes = stage, paths, hashes

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[torch.Tensor]: ...
    def __getitem__(self, index: int | slice) -> torch.Tensor | Sequence[torch.Tensor]:
        if isinstance(index, slice):
            return _References(self._stage, self._paths[index], self._hashes[index])
        return to_tensor([self._stage.picture(self._paths[index], self._hashes[index])])[0]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[index] for index in range(len(self)))


class ScoreStage(Stage[Row, dict[str, Any]]):
    """Rows of one output and one metric to {value, status, error}; see `score`.

    Args:
        metrics: by name.
        size: images of another size are resized to this square (PIL bicubic), as ReF-LDM's ``scripts/eval.py``
            does; None: sizes are left, and must agree.
        cases_per_batch: outputs handed to one `process` call with all their metrics.
    """

    name = "score"
    version = "1"

    def __init__(self, metrics: Mapping[str, Metric], size: int | None = SIZE, cases_per_batch: int = 8) -> None:
        self.metrics, self.size = dict(metrics), size
        self.batch_size = max(1, cases_per_batch * len(self.metrics))
        on_gpu = any(metric.device.startswith("cuda") for metric in self.metrics.values())
        self.gpus = GPU_SHARE if on_gpu else 0.0
        share_caches(list(self.metrics.values()))
        self._pictures: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pictures": OrderedDict()}

    def key(self, row: Row) -> str:
        """Return the content key."""
        metric = self.metrics[row["metric"]]
        gt = row["gt_sha256"] if "gt" in metric.needs else None
        references = list(row["reference_sha256"]) if "references" in metric.needs else None
        return content_key(self.name, self.version, self.size, metric.signature, row["output_sha256"], gt, references)

    def setup(self) -> None:
        """Do nothing: metrics load their networks when they are first called."""

    def failure(self, row: Row, reason: str) -> dict[str, Any]:  # noqa: ARG002
        """Return the result of a row that could not be tried to the end."""
        return {"value": None, "status": "failed", "error": reason, "retry": True}

    def intact(self, row: Row, result: Row) -> bool:  # noqa: ARG002
        """Return whether the result stands; what failed for reasons outside the pictures is tried again."""
        return not result.get("retry", False)

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Compute one value a row; pictures of later cases are decoded while earlier ones are computed."""
        cases: dict[tuple[Any, ...], list[int]] = {}
        for position, row in enumerate(rows):
            case = (row["output_sha256"], row["gt_sha256"], tuple(row["reference_sha256"]))
            cases.setdefault(case, []).append(position)
        results: list[dict[str, Any]] = [{}] * len(rows)
        firsts = [rows[positions[0]] for positions in cases.values()]
        with ThreadPoolExecutor(2) as pool:
            outputs = [pool.submit(self._read, row["output_path"], row["output_sha256"]) for row in firsts]
            truths: dict[str, Future[NDArray[np.uint8]]] = {}
            for row in firsts:
                wanted = row["gt_sha256"]
                if row["gt_path"] and wanted not in truths and wanted not in self._pictures:
                    truths[wanted] = pool.submit(self._read, row["gt_path"], wanted)
            for positions, output in zip(cases.values(), outputs, strict=True):
                gt = truths.get(rows[positions[0]]["gt_sha256"])
                for position, result in zip(positions, self._case(rows, positions, output, gt), strict=True):
                    results[position] = result
        return results

    def _case(
        self,
        rows: Sequence[Row],
        positions: Sequence[int],
        output: Future[NDArray[np.uint8]],
        gt: Future[NDArray[np.uint8]] | None,
    ) -> list[dict[str, Any]]:
        first = rows[positions[0]]
        try:
            truth = None
            if first["gt_path"]:
                truth = self.picture(first["gt_path"], first["gt_sha256"], None if gt is None else gt.result())
            batch = MetricBatch(
                output=to_tensor([output.result()]),
                gt=None if truth is None else to_tensor([truth]),
                references=[_References(self, first["reference_paths"], first["reference_sha256"])],
                output_ids=[first["output_sha256"]],
                gt_ids=[] if truth is None else [first["gt_sha256"]],
                reference_ids=[first["reference_sha256"]],
            )
        except _UnreadableError as error:
            return [{"value": None, "status": "failed", "error": str(error), "retry": True} for _ in positions]
        return [self._value(self.metrics[rows[position]["metric"]], batch) for position in positions]

    def _value(self, metric: Metric, batch: MetricBatch) -> dict[str, Any]:
        try:
            values = metric(batch)[:1]
            value, left_out = float(values[0]), bool(metric.left_out(values)[0])
        except _UnreadableError as error:  # of a reference
            return {"value": None, "status": "failed", "error": str(error), "retry": True}
        except FfhqrefError as error:
            return {"value": None, "status": "failed", "error": str(error)}
        except Exception as error:  # noqa: BLE001 - a metric out of memory or with a defect must not end the run
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            return {"value": None, "status": "failed", "error": reason, "retry": True}
        if left_out:
            return {"value": None, "status": "left_out"}
        if math.isnan(value):
            return {"value": None, "status": "failed", "error": "the metric is undefined for this image"}
        return {"value": value, "status": "ok"}

    def _read(self, path: str, sha256: str | None) -> NDArray[np.uint8]:
        # values are journalled under this hash for ever, so the bytes must be those
        try:
            return read_rgb(path, self.size, sha256=sha256)
        except ImageError as error:
            raise _UnreadableError(str(error)) from None

    def picture(self, path: str, sha256: str, read: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return a ground truth or reference, from memory when it was met lately: many outputs share it.

        Args:
            path: the file.
            sha256: its hash, checked.
            read: what was read from it already.

        Raises:
            ImageError: the file cannot be read, or has another hash.
        """
        known = self._pictures.get(sha256)
        if known is None:
            known = self._read(path, sha256) if read is None else read
            self._pictures[sha256] = known
            if len(self._pictures) > _PICTURES_KEPT:
                self._pictures.popitem(last=False)
        return known


_PICTURES_KEPT = 96
"""Decoded pictures a worker keeps, 0.75 MiB each at 512x512."""


def score(
    rows: Sequence[ScoreRow],
    metrics: MetricSet,
    *,
    engine: Engine,
    journal_dir: str | Path,
    progress: Progress | None = None,
    size: int | None = SIZE,
) -> Scores:
    """Score outputs with every metric and return the table ``scores`` in long form.

    Status: ``ok``: there is a value, which may be infinite (PSNR of an output equal to its target); ``failed``: the
    restoration failed, or the metric is undefined for this image; ``left_out``: the metric's definition leaves the
    value out of its mean; ``unavailable``: the metric cannot run here, or the case lacks what it compares with. The
    value is null unless ``ok``. Rows of the method `GROUND_TRUTH` get only the metrics that need no ground truth.

    Args:
        rows: the outputs; (method, benchmark, case_id) is unique.
        metrics: from `resolve_metrics`.
        engine: where the work runs.
        journal_dir: folder of the journals.
        progress: told as work goes on.
        size: see `ScoreStage`.
    """
    import pandas as pd

    stage = ScoreStage(metrics.available, size)
    table: list[dict[str, Any]] = []
    work: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for row in sorted(rows, key=lambda row: (row.benchmark, row.case_id, row.method)):
        for name in (*metrics.available, *metrics.unavailable):
            metric = metrics.available.get(name)
            if row.method == GROUND_TRUTH and metric is not None and "gt" in metric.needs:
                continue
            line = {"method": row.method, "benchmark": row.benchmark, "case_id": row.case_id, "metric": name}
            entry = {**line, "value": None, "status": "unavailable"}
            table.append(entry)
            if metric is None or _lacks(row, metric):
                continue
            entry["status"] = "failed"
            if row.output_path is not None and row.output_sha256 is not None:
                work.append((entry, _work_row(row, name)))
    results = run_stage(stage, [item for _, item in work], engine=engine, journal_dir=journal_dir, progress=progress)
    reasons: Counter[tuple[str, str]] = Counter()
    for (entry, _), result in zip(work, results, strict=True):
        entry.update(value=result["value"], status=result["status"])
        if result["status"] == "failed":
            reasons[str(entry["metric"]), str(result["error"])] += 1
    frame = pd.DataFrame(table, columns=["method", "benchmark", "case_id", "metric", "value", "status"])
    frame["value"] = frame["value"].astype("float64")
    return Scores(frame, dict(reasons), {name: text + _of_size(size) for name, text in metrics.signatures.items()})


def _of_size(size: int | None) -> str:
    if size == SIZE:
        return ""
    return "|sizes as they are" if size is None else f"|resized to {size} px"


def _lacks(row: ScoreRow, metric: Metric) -> bool:
    return ("gt" in metric.needs and row.gt_path is None) or ("references" in metric.needs and not row.reference_paths)


def _work_row(row: ScoreRow, metric: str) -> dict[str, Any]:
    return {
        "metric": metric,
        "output_path": row.output_path,
        "output_sha256": row.output_sha256,
        "gt_path": row.gt_path,
        "gt_sha256": row.gt_sha256,
        "reference_paths": list(row.reference_paths),
        "reference_sha256": list(row.reference_sha256),
    }
