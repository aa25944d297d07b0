"""Score whole sets of outputs: FID and KID for each (method, benchmark), with features computed once a picture."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ffhqref.core.errors import ConfigError, DependencyError, ImageError, WeightsError, did_you_mean
from ffhqref.core.hashing import content_key
from ffhqref.core.images import SIZE, read_rgb
from ffhqref.engine import Engine, Row, Stage, run_stage
from ffhqref.engine.base import GPU_SHARE
from ffhqref.metrics.base import Runtime
from ffhqref.metrics.scoring import GROUND_TRUTH, ScoreRow
from ffhqref.metrics.sets import SUBSET_SIZE, SUBSETS, InceptionFeatures, fid, kid, stored_statistics
from ffhqref.weights import files as weights

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.engine.run import Progress

SET_METRICS = {"fid": "gt", "fid_ffhq": "ffhq 70k at 512", "kid": "gt"}
"""Set metrics and what they compare with. ``fid_ffhq`` is ReF-LDM's choice (protocols.md 3.1)."""


class Features(Protocol):
    """What gives each picture the vector that set distances compare."""

    @property
    def signature(self) -> str:
        """Return network, weights hash and preprocessing."""
        ...

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 [N, D] from uint8 RGB pictures [H, W, 3]."""
        ...


class FeatureStage(Stage[Row, dict[str, Any]]):
    """Rows {path, sha256} to {vector} or {error}.

    Args:
        features: the network.
        size: pictures of another size are resized to this square.
    """

    name = "set_features"
    version = "1"
    batch_size = 16

    def __init__(self, features: Features, size: int = SIZE) -> None:
        self.features, self.size = features, size
        self.gpus = GPU_SHARE if str(getattr(features, "device", "cpu")).startswith("cuda") else 0.0

    def key(self, row: Row) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, self.size, self.features.signature, row["sha256"])

    def setup(self) -> None:
        """Do nothing: the network is loaded on its first call."""

    def intact(self, row: Row, result: Row) -> bool:  # noqa: ARG002
        """Return whether there is a vector; a picture that could not be read is tried again."""
        return "vector" in result

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the vector of each picture, or why there is none."""
        results: list[dict[str, Any]] = []
        for row in rows:
            try:
                results.append({"vector": self.features([read_rgb(row["path"], self.size, sha256=row["sha256"])])[0]})
            except ImageError as error:
                results.append({"error": str(error)})
        return results


def check_set_metrics(names: Sequence[str]) -> list[str]:
    """Return the names of set metrics of a run, each once.

    Raises:
        ConfigError: unknown set metric.
    """
    for name in names:
        if name not in SET_METRICS:
            raise ConfigError(f"unknown set metric '{name}'.{did_you_mean(name, SET_METRICS)}")
    return list(dict.fromkeys(names))


def score_sets(
    rows: Sequence[ScoreRow],
    metrics: Sequence[str] = tuple(SET_METRICS),
    *,
    engine: Engine,
    journal_dir: str | Path,
    runtime: Runtime | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    features: Features | None = None,
) -> pd.DataFrame:
    """Return FID and KID of every (method, benchmark).

    Failed restorations cannot enter a set distance; ``n`` says how many pictures did. The ground truth (rows of the
    method `GROUND_TRUTH`) is compared with stored statistics only.

    Args:
        rows: as for `ffhqref.metrics.scoring.score`.
        metrics: names of `SET_METRICS`.
        engine: where features are computed.
        journal_dir: folder of the journals.
        runtime: where weights lie and the network runs.
        seed: of KID's subsets.
        progress: told as work goes on.
        features: another network than FID's Inception-v3.

    Returns:
        Columns method, benchmark, metric, value (null where there is none), n, n_reference, status (``ok``,
        ``failed``, ``unavailable``), note (the warning on few pictures, or the reason) and signature.

    Raises:
        ConfigError: unknown set metric.
    """
    import pandas as pd

    metrics = check_set_metrics(metrics)
    groups: OrderedDict[tuple[str, str], list[ScoreRow]] = OrderedDict()
    for row in sorted(rows, key=lambda row: (row.benchmark, row.method, row.case_id)):
        groups.setdefault((row.method, row.benchmark), []).append(row)
    reason = ""
    try:
        features = features or InceptionFeatures(runtime=runtime)
    except (WeightsError, DependencyError) as error:
        reason = str(error)
    vectors: dict[str, NDArray[np.float32]] = {}
    if features is not None:
        vectors = _vectors(rows, FeatureStage(features), engine, journal_dir, progress)
    needs_stored = features is not None and any(SET_METRICS[name] != "gt" for name in metrics)
    stored = _Stored(runtime) if needs_stored else None
    table = []
    for (method, benchmark), members in groups.items():
        for name in metrics:
            if method == GROUND_TRUTH and SET_METRICS[name] == "gt":
                continue
            line: dict[str, Any] = {"method": method, "benchmark": benchmark, "metric": name}
            line |= {"value": None, "n": 0, "n_reference": None, "status": "unavailable", "note": reason}
            against = stored if SET_METRICS[name] != "gt" else None
            if against is not None and against.reason:
                line["note"] = against.reason
            elif features is not None:
                more = f" {against.signature}" if against is not None else ""
                more += f"|subsets {SUBSETS}x{SUBSET_SIZE} seed {seed}" if name == "kid" else ""
                line["signature"] = f"{name}|{features.signature}|vs {SET_METRICS[name]}{more}|v1"
                line |= _compare(name, members, vectors, against, seed)
            table.append(line)
    columns = ["method", "benchmark", "metric", "value", "n", "n_reference", "status", "note", "signature"]
    frame = pd.DataFrame(table, columns=columns)
    return frame.astype({"value": "float64", "n": "int32", "n_reference": pd.Int32Dtype()})


def set_reasons(found: pd.DataFrame) -> dict[str, str]:
    """Return why a set metric has no value for any method and benchmark: metric to reason.

    Args:
        found: from `score_sets`.
    """
    reasons = {}
    for name, part in found.groupby("metric", sort=False):
        if (part["status"] == "unavailable").all():
            reasons[str(name)] = "; ".join(dict.fromkeys(part["note"]))
    return reasons


def set_notes(found: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return what a reader must know of each column of set distances: benchmark to metric to a line.

    Methods are named only where they differ: one that failed on some cases is compared on fewer pictures.

    Args:
        found: from `score_sets`.
    """
    notes: dict[str, dict[str, str]] = {}
    silent = set_reasons(found)
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
    """Return the vector of every output and ground truth by content hash."""
    files: dict[str, str] = {}
    for row in rows:
        for path, digest in ((row.output_path, row.output_sha256), (row.gt_path, row.gt_sha256)):
            if path is not None and digest is not None:
                files.setdefault(digest, path)
    work = [{"sha256": digest, "path": path} for digest, path in sorted(files.items())]
    results = run_stage(stage, work, engine=engine, journal_dir=journal_dir, progress=progress)
    return {item["sha256"]: result["vector"] for item, result in zip(work, results, strict=True) if "vector" in result}


class _Stored:
    """The statistics of all of FFHQ, read once; ``reason`` says why they are not there."""

    def __init__(self, runtime: Runtime | None) -> None:
        place = runtime or Runtime()
        self.reason = self.signature = ""
        self.moments: tuple[NDArray[Any], NDArray[Any]] | None = None
        try:
            self.moments = stored_statistics("ffhq-fid-statistics", runtime=place)
            file = weights.require("ffhq-fid-statistics", folder=place.weights_dir, download=place.download)
            self.signature = file.signature
        except (WeightsError, DependencyError) as error:
            self.reason = str(error)


def _compare(
    name: str,
    members: Sequence[ScoreRow],
    vectors: Mapping[str, NDArray[np.float32]],
    stored: _Stored | None,
    seed: int,
) -> dict[str, Any]:
    outputs = [vectors[digest] for row in members if (digest := row.output_sha256 or "") in vectors]
    truths = [vectors[digest] for digest in sorted({row.gt_sha256 or "" for row in members}) if digest in vectors]
    if stored is None and not truths:
        return {"note": "the benchmark has no ground truth", "n": len(outputs)}
    if min(len(outputs), len(truths) if stored is None else len(outputs)) < 2:
        return {"status": "failed", "note": "at least two pictures are needed on each side", "n": len(outputs)}
    if name == "kid":
        found = kid(np.stack(outputs), np.stack(truths), seed=seed)
    elif stored is None:
        found = fid(np.stack(outputs), np.stack(truths))
    else:
        found = fid(np.stack(outputs), statistics=stored.moments)
    return {
        "status": "ok",
        "value": found.value,
        "n": found.n,
        "n_reference": found.n_reference,
        "note": found.warning or "",
    }
