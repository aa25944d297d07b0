"""Score outputs: each image is decoded once for all metrics, each (image, metric) pair is computed once for ever.

The unit of work is one metric on one output. Its content key holds the hashes of the images that the metric uses and
the metric's signature, and nothing else: adding a metric computes that metric only, two methods with equal outputs
share their values, and a ground truth is scored once for all its benchmarks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, DependencyError, WeightsError
from ffhqref.core.images import SIZE
from ffhqref.engine import Engine, run_stage
from ffhqref.metrics import make_metric, metric_traits
from ffhqref.metrics.base import GROUND_TRUTH, Metric, MetricRuntime, MetricTraits
from ffhqref.metrics.stage import MetricRow, ScoreStage

if TYPE_CHECKING:
    import pandas as pd

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
    traits: Mapping[str, MetricTraits] = field(default_factory=dict)
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
            **{name: traits.higher_is_better for name, traits in self.traits.items()},
        }


@dataclass(frozen=True)
class Scores:
    """The outcome of `score`."""

    frame: pd.DataFrame
    """Table ``scores``: method, benchmark, case_id, metric, value, status."""
    reasons: Mapping[tuple[str, str], int]
    """How often each (metric, reason) made a value fail."""
    undefined: Mapping[tuple[str, str], int]
    """How often each (metric, reason) left a value out because of the ground truth or a reference."""
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
        ConfigError: unknown metric or option, two metrics of one label, a file that ``path`` names is absent, or an
            unavailable metric whose direction is not declared.
    """
    available: dict[str, Metric] = {}
    unavailable: dict[str, str] = {}
    traits: dict[str, MetricTraits] = {}
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
            named = [options.get("path"), embedder.get("path") if embedder else None]
            if any(path is not None and str(path) in str(error) for path in named):
                raise ConfigError(f"metric '{label}': {error}") from None
            unavailable[label], traits[label] = str(error), metric_traits(name, options)
    return MetricSet(available, unavailable, traits)


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
    value out of its mean, or the metric is undefined for the ground truth or a reference, whatever the output;
    ``unavailable``: the metric cannot run here, or the case lacks what it compares with. The value is null unless
    ``ok``. Rows of the method `GROUND_TRUTH` get only the metrics that need no ground truth.

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
    table: list[_Value] = []
    work: list[tuple[int, MetricRow]] = []
    for row in sorted(rows, key=lambda row: (row.benchmark, row.case_id, row.method)):
        for name in (*metrics.available, *metrics.unavailable):
            metric = metrics.available.get(name)
            if row.method == GROUND_TRUTH and metric is not None and "gt" in metric.needs:
                continue
            status = "unavailable" if metric is None or _lacks(row, metric) else "failed"
            if status == "failed" and row.output_path is not None and row.output_sha256 is not None:
                files = (row.gt_path, row.gt_sha256, row.reference_paths, row.reference_sha256)
                work.append((len(table), MetricRow(name, row.output_path, row.output_sha256, *files)))
            table.append(_Value(row.method, row.benchmark, row.case_id, name, None, status))
    results = run_stage(stage, [item for _, item in work], engine=engine, journal_dir=journal_dir, progress=progress)
    reasons: Counter[tuple[str, str]] = Counter()
    undefined: Counter[tuple[str, str]] = Counter()
    for (position, item), result in zip(work, results, strict=True):
        table[position] = replace(table[position], value=result.value, status=result.status)
        if result.status == "failed":
            reasons[item.metric, str(result.error)] += 1
        elif result.status == "left_out" and result.error:
            undefined[item.metric, result.error] += 1
    frame = pd.DataFrame([astuple(value) for value in table], columns=[field.name for field in fields(_Value)])
    frame["value"] = frame["value"].astype("float64")
    return Scores(
        frame,
        dict(reasons),
        dict(undefined),
        {name: text + size_note(size) for name, text in metrics.signatures.items()},
    )


@dataclass(frozen=True)
class _Value:
    """One row of table ``scores``."""

    method: str
    benchmark: str
    case_id: str
    metric: str
    value: float | None
    status: str


def size_note(size: int | None) -> str:
    """Return what a signature says of the image size; empty at 512 px."""
    if size == SIZE:
        return ""
    return "|sizes as they are" if size is None else f"|resized to {size} px"


def _lacks(row: ScoreRow, metric: Metric) -> bool:
    return ("gt" in metric.needs and row.gt_path is None) or ("references" in metric.needs and not row.reference_paths)
