"""Score whole sets of outputs: dataset-level metrics of each (method, benchmark), features computed once per image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import DependencyError, FfhqrefError, ImageError, WeightsError
from ffhqref.core.hashing import content_key
from ffhqref.core.images import SIZE, read_rgb
from ffhqref.engine import Engine, Stage, run_stage
from ffhqref.engine.base import GPU_SHARE
from ffhqref.metrics.base import GROUND_TRUTH, MetricRuntime
from ffhqref.metrics.dataset_metrics import DatasetMetric, ImageFeatures, dataset_metric_class

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.engine.run import Progress
    from ffhqref.metrics.scoring import ScoreRow


@dataclass(frozen=True)
class DatasetScore:
    """One dataset-level value of a method on a benchmark, or why there is none."""

    method: str
    benchmark: str
    metric: str
    value: float | None = None
    n: int = 0
    """Outputs compared."""
    n_reference: int | None = None
    status: str = "unavailable"
    """``ok``, ``failed`` or ``unavailable``."""
    note: str = ""
    """The warning on few images, or the reason."""
    signature: str | None = None


@dataclass(frozen=True)
class _Chosen:
    """A metric of the run by name; ``made`` is None where it cannot run here, and ``reason`` says why."""

    name: str
    kind: type[DatasetMetric]
    made: DatasetMetric | None
    reason: str = ""


@dataclass(frozen=True)
class FeatureRow:
    """One image."""

    path: str
    sha256: str


@dataclass(frozen=True)
class FeatureResult:
    """The features of an image, float32 [D], or why there are none."""

    vector: NDArray[np.float32] | None = None
    error: str | None = None


class FeatureStage(Stage[FeatureRow, FeatureResult]):
    """Features of images for dataset-level metrics.

    Args:
        features: the network.
        size: images of another size are resized to this square.
    """

    name = "set_features"
    version = "1"
    batch_size = 16

    def __init__(self, features: ImageFeatures, size: int = SIZE) -> None:
        self.features, self.size = features, size
        self.gpus = GPU_SHARE if features.device.startswith("cuda") else 0.0
        self.any_gpu = features.device == "cuda"

    def key(self, row: FeatureRow) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, self.size, self.features.signature, row.sha256)

    def intact(self, row: FeatureRow, result: FeatureResult) -> bool:  # noqa: ARG002
        """Return whether there are features; an image that could not be read is tried again."""
        return result.vector is not None

    def process(self, rows: Sequence[FeatureRow]) -> list[FeatureResult]:
        """Return the features of each image, or why there are none."""
        results = []
        for row in rows:
            try:
                image = read_rgb(row.path, self.size, sha256=row.sha256)
                results.append(FeatureResult(vector=self.features([image])[0]))
            except ImageError as error:
                results.append(FeatureResult(error=str(error)))
        return results


def check_dataset_metrics(names: Sequence[str]) -> list[str]:
    """Return the names of a run's dataset-level metrics, each once.

    Raises:
        ConfigError: unknown dataset-level metric.
    """
    for name in names:
        dataset_metric_class(name)
    return list(dict.fromkeys(names))


def score_datasets(
    rows: Sequence[ScoreRow],
    metrics: Sequence[str],
    *,
    engine: Engine,
    journal_dir: str | Path,
    runtime: MetricRuntime | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    features: ImageFeatures | None = None,
) -> pd.DataFrame:
    """Return the dataset-level metrics of every (method, benchmark).

    Failed restorations and pass-through outputs are left out; ``n`` says how many outputs were compared. The ground
    truth (rows of the method `GROUND_TRUTH`) is not compared with itself.

    Args:
        rows: as for `ffhqref.metrics.scoring.score`.
        metrics: names of `ffhqref.metrics.dataset_metrics.DATASET_METRICS`.
        engine: where features are computed.
        journal_dir: folder of the journals.
        runtime: where weights lie and the networks run.
        seed: of what metrics draw.
        progress: told as work goes on.
        features: another network than FID's Inception-v3.

    Returns:
        One row per `DatasetScore`, its fields as columns.

    Raises:
        ConfigError: unknown dataset-level metric.
    """
    groups: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in sorted(rows, key=lambda row: (row.benchmark, row.method, row.case_id)):
        groups.setdefault((row.method, row.benchmark), []).append(row)
    chosen = [_make(name, runtime, seed, features) for name in check_dataset_metrics(metrics)]
    vectors: dict[str, dict[str, NDArray[np.float32]]] = {}
    for one in chosen:
        if one.made is not None and one.made.features.signature not in vectors:
            stage = FeatureStage(one.made.features)
            vectors[one.made.features.signature] = _vectors(rows, stage, engine, journal_dir, progress)
    table = [
        _score(one, method, benchmark, members, vectors)
        for (method, benchmark), members in groups.items()
        for one in chosen
        if not (method == GROUND_TRUTH and "gt" in one.kind.needs)
    ]
    return score_frame(table)


def score_frame(table: Sequence[DatasetScore]) -> pd.DataFrame:
    """Return values of whole sets as a table: their fields as columns."""
    import pandas as pd

    columns = [field.name for field in dataclasses.fields(DatasetScore)]
    frame = pd.DataFrame([dataclasses.astuple(line) for line in table], columns=columns)
    return frame.astype({"value": "float64", "n": "int32", "n_reference": pd.Int32Dtype()})


def _make(name: str, runtime: MetricRuntime | None, seed: int, features: ImageFeatures | None) -> _Chosen:
    kind = dataset_metric_class(name)
    try:
        return _Chosen(name, kind, kind(runtime, seed, features))
    except (WeightsError, DependencyError) as error:
        return _Chosen(name, kind, None, str(error))


def _score(
    chosen: _Chosen,
    method: str,
    benchmark: str,
    members: Sequence[ScoreRow],
    vectors: Mapping[str, Mapping[str, NDArray[np.float32]]],
) -> DatasetScore:
    line = DatasetScore(method, benchmark, chosen.name)
    metric = chosen.made
    if metric is None:
        return dataclasses.replace(line, note=chosen.reason)
    known = vectors[metric.features.signature]
    wanted = [row.output_sha256 for row in members if row.usable and row.output_sha256]
    outputs = [known[digest] for digest in wanted if digest in known]
    line = dataclasses.replace(line, signature=metric.signature, n=len(outputs))
    compared = {row.gt_sha256 for row in members if row.gt_sha256} if "gt" in metric.needs else set()
    lost = len(wanted) - len(outputs) + len(compared - known.keys())
    if lost:  # of the others it would be another number
        note = f"{lost} images cannot be read, or are not those recorded"
        return dataclasses.replace(line, status="failed", note=note)
    truths = None
    if "gt" in metric.needs:
        truths = [known[digest] for digest in sorted(row.gt_sha256 for row in members if row.gt_sha256)]
        if not truths:
            return dataclasses.replace(line, note="the benchmark has no ground truth")
    if min(len(side) for side in (outputs, truths) if side is not None) < 2:
        return dataclasses.replace(line, status="failed", note="at least two images are needed on each side")
    try:
        found = metric(np.stack(outputs), None if truths is None else np.stack(truths))
    except FfhqrefError as error:
        return dataclasses.replace(line, status="failed", note=str(error))
    return dataclasses.replace(
        line, status="ok", value=found.value, n=found.n, n_reference=found.n_reference, note=found.warning or ""
    )


def dataset_reasons(found: pd.DataFrame) -> dict[str, str]:
    """Return why a dataset-level metric has no value for any method and benchmark: metric to reason.

    Args:
        found: from `score_datasets`.
    """
    reasons = {}
    for name, part in found.groupby("metric", sort=False):
        if (part["status"] == "unavailable").all():
            reasons[str(name)] = "; ".join(dict.fromkeys(part["note"]))
    return reasons


def dataset_notes(found: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return what a reader must know of each dataset-level column: benchmark to metric to a line.

    Methods are named only where they differ: one that failed on some cases is compared on fewer images.

    Args:
        found: from `score_datasets`.
    """
    notes: dict[str, dict[str, str]] = {}
    silent = dataset_reasons(found)
    said = found[(found["note"] != "") & ~found["metric"].isin(list(silent))]
    for (benchmark, name), part in said.groupby(["benchmark", "metric"], sort=False):
        methods: dict[str, list[str]] = {}
        for method, note in zip(part["method"], part["note"], strict=True):
            methods.setdefault(note, []).append(method)
        lines = list(methods) if len(methods) == 1 else [f"{', '.join(who)}: {note}" for note, who in methods.items()]
        notes.setdefault(str(benchmark), {})[str(name)] = "; ".join(lines)
    return notes


def _vectors(
    rows: Sequence[ScoreRow], stage: FeatureStage, engine: Engine, journal_dir: str | Path, progress: Progress | None
) -> dict[str, NDArray[np.float32]]:
    """Return the vector of every usable output and every ground truth by content hash."""
    files: dict[str, str] = {}
    for row in rows:
        output = (row.output_path, row.output_sha256) if row.usable else (None, None)
        for path, digest in (output, (row.gt_path, row.gt_sha256)):
            if path is not None and digest is not None:
                files.setdefault(digest, path)
    return feature_vectors(files, stage, engine, journal_dir, progress)


def feature_vectors(
    files: Mapping[str, str],
    stage: FeatureStage,
    engine: Engine,
    journal_dir: str | Path,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return the vector of every image that can be read, by its content hash.

    Args:
        files: content hash to where the image lies.
        stage: the network.
        engine: where it runs.
        journal_dir: folder of the journals.
        progress: told as work goes on.
    """
    work = [FeatureRow(path, digest) for digest, path in sorted(files.items())]
    results = run_stage(stage, work, engine=engine, journal_dir=journal_dir, progress=progress)
    return {row.sha256: result.vector for row, result in zip(work, results, strict=True) if result.vector is not None}
