"""What the judges of identity say together: the mean rank of each method, and its verification rates.

The mean rank depends on the methods that are compared, so it is a value of the whole set, like FID. Each judge ranks
the methods case by case; a judge whose network a method was trained with or is conditioned on does not judge it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.images import to_tensor
from ffhqref.metrics.base import GROUND_TRUTH
from ffhqref.metrics.dataset_metrics import ImageFeatures
from ffhqref.metrics.dataset_scoring import DatasetScore, FeatureStage, feature_vectors, score_frame

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.engine import Engine
    from ffhqref.engine.run import Progress
    from ffhqref.metrics.identity import FaceEmbedder
    from ffhqref.metrics.judges import JudgeIDS
    from ffhqref.metrics.scoring import ScoreRow

MEAN_RANK = "ids_jury"
JUDGES = ("ids_adaface", "ids_arcface_r50", "ids_arcface_r100", "ids_dlib", "ids_edgeface", "ids_facenet")
FAR = 1e-3
"""Share of impostors that may be accepted."""


def rate_name(judge: str) -> str:
    """Return the name of a judge's verification rate."""
    return f"{judge}_tar"


def counts_failures(metric: str) -> bool:
    """Return whether a metric of whole sets counts failed outputs: those of this module do, distances cannot."""
    return metric == MEAN_RANK or metric.endswith(rate_name(""))


JURY_METRICS = (MEAN_RANK, *(rate_name(judge) for judge in JUDGES))
"""Names of the values of this module, as far as judges keep theirs."""


@dataclass(frozen=True)
class Verification:
    """A verification rate at a false-accept rate."""

    rate: float
    """Share of genuine pairs above the threshold; NaN without any, or without impostors."""
    threshold: float
    """The smallest cosine that is not accepted any more."""
    impostors: int
    note: str
    """What cannot be resolved; empty: nothing."""


def verification_rate(genuine: NDArray[np.floating], impostors: NDArray[np.floating], far: float = FAR) -> Verification:
    """Return the share of genuine pairs that is accepted where at most ``far`` of the impostors are.

    A pair is accepted above the threshold. With k = floor(far * impostors) acceptances allowed, the threshold is the
    impostors' value number k + 1 from above: ties with it are all refused, so that the rate of false acceptances is
    never above ``far``.

    Args:
        genuine: cosines of pairs of one person; -inf is a pair that is never accepted.
        impostors: cosines of pairs of two people.
        far: the false-accept rate.
    """
    count = len(impostors)
    if not count or not len(genuine):
        return Verification(math.nan, math.nan, count, "no pairs of two people" if not count else "no pairs of one")
    allowed = math.floor(far * count + 1e-9)
    threshold = float(np.sort(impostors)[count - 1 - min(allowed, count - 1)])
    note = ""
    if allowed < 1:
        needed = math.ceil(1.0 / far - 1e-9)
        note = f"{count} pairs of two people: {far:g} needs {needed}, so this is the rate without any false acceptance"
    return Verification(float(np.mean(np.asarray(genuine) > threshold)), threshold, count, note)


def mean_ranks(values: Mapping[str, pd.DataFrame], left_out: Mapping[str, frozenset[str]]) -> pd.Series:
    """Return the mean rank of each method over the judges, 1 is best; NaN where no judge is left.

    Each judge's ranks of a case are averaged over cases, ties share their mean rank. Where a judge has fewer methods
    before it than there are, its ranks are stretched to 1 … number of methods, so that judges count alike.

    Args:
        values: judge to cosines, a row a case, a column a method; -inf: the output failed; NaN: nobody is judged.
        left_out: judge to the methods that it does not judge.
    """
    import pandas as pd

    methods = sorted({name for frame in values.values() for name in frame.columns})
    found = {}
    for judge, frame in values.items():
        judged = frame.drop(columns=[name for name in frame.columns if name in left_out.get(judge, ())]).dropna()
        if len(judged.columns) < 2 or judged.empty:
            continue
        ranks = judged.rank(axis=1, ascending=False, method="average")
        found[judge] = (1.0 + (ranks - 1.0) * (len(methods) - 1) / (len(judged.columns) - 1)).mean()
    return pd.DataFrame(found, index=methods, dtype="float64").mean(axis=1)


class JudgeFeatures(ImageFeatures):
    """A judge's vectors of images.

    Args:
        embedder: the judge's network and crop.
    """

    def __init__(self, embedder: FaceEmbedder) -> None:
        self._embedder = embedder
        self.signature, self.device = f"judge|{embedder.signature}", embedder.device

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 [N, dim] from uint8 RGB images [H, W, 3]."""
        return np.stack([self._embedder(image) for image in to_tensor(images)])


def score_jury(
    rows: Sequence[ScoreRow],
    scores: pd.DataFrame,
    judges: Mapping[str, JudgeIDS],
    people: Mapping[tuple[str, str], str],
    recognisers: Mapping[str, Sequence[str]],
    *,
    engine: Engine,
    journal_dir: str | Path,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the verification rates of every method, and their mean ranks where there are two judges.

    Args:
        rows: as for `ffhqref.metrics.scoring.score`.
        scores: its table.
        judges: those that can run here, by their names in the table.
        people: (benchmark, case) to the person shown.
        recognisers: method to the networks that it was trained with or is conditioned on.
        engine: where vectors are computed.
        journal_dir: folder of the journals.
        progress: told as work goes on.

    Returns:
        See `ffhqref.metrics.dataset_scoring.score_datasets`.
    """
    groups: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in sorted(rows, key=lambda row: (row.benchmark, row.method, row.case_id)):
        groups.setdefault((row.benchmark, row.method), []).append(row)
    table = []
    for name, judge in judges.items():
        files = {digest: path for row in rows for path, digest in (_output(row), _wanted(row, judge)) if path}
        stage = FeatureStage(JudgeFeatures(judge.cache.embedder))
        vectors = feature_vectors(files, stage, engine, journal_dir, progress)
        for (benchmark, method), members in groups.items():
            if method != GROUND_TRUTH or judge.target != "gt":
                line = DatasetScore(method, benchmark, rate_name(name), signature=_signature(judge))
                table.append(_rate(line, judge, members, vectors, people))
    if len(judges) > 1:
        failed = {(row.benchmark, row.method, row.case_id) for row in rows if not _output(row)[0]}
        table += _ranks(scores, failed, judges, recognisers)
    return score_frame(table)


def _output(row: ScoreRow) -> tuple[str, str] | tuple[None, str]:
    """Return the output; an input that was handed through is none, as in the means of the leaderboard."""
    there = row.usable and row.output_path and row.output_sha256
    return (str(row.output_path), str(row.output_sha256)) if there else (None, "")


def _wanted(row: ScoreRow, judge: JudgeIDS) -> tuple[str, str] | tuple[None, str]:
    """Return the image that an output is verified against: the ground truth, or the first reference."""
    if judge.target == "gt":
        return (row.gt_path, row.gt_sha256) if row.gt_path and row.gt_sha256 else (None, "")
    return (row.reference_paths[0], row.reference_sha256[0]) if row.reference_paths else (None, "")


def _signature(judge: JudgeIDS) -> str:
    against = "gt" if judge.target == "gt" else "first reference"
    return f"tar|{judge.cache.embedder.signature}|vs {against}|far {FAR:g} among the benchmark's other people|v1"


def _rate(
    line: DatasetScore,
    judge: JudgeIDS,
    members: Sequence[ScoreRow],
    vectors: Mapping[str, NDArray[np.float32]],
    people: Mapping[tuple[str, str], str],
) -> DatasetScore:
    asked = [row for row in members if _wanted(row, judge)[0]]
    if not asked:
        return dataclasses.replace(line, note="nothing to compare with")
    digests = [_wanted(row, judge)[1] for row in asked]
    made = [_output(row)[1] for row in asked]
    lost = sum(digest not in vectors for digest in [*digests, *filter(None, made)])
    if lost:
        note = f"{lost} images cannot be read, or are not those recorded"
        return dataclasses.replace(line, status="failed", note=note)
    if not any(made):
        return dataclasses.replace(line, status="failed", note="no output to compare")
    gallery = _unit(np.stack([vectors[digest] for digest in digests]))
    none = np.full(gallery.shape[1], np.nan)
    probes = _unit(np.stack([vectors[digest] if digest else none for digest in made]))
    cosines = probes @ gallery.T
    who = np.array([people.get((row.benchmark, row.case_id), row.case_id) for row in asked])
    ok = np.array([bool(digest) for digest in made])
    genuine = np.where(ok, np.diag(cosines), -np.inf)
    # a ground truth that several cases share is one impostor
    _, first = np.unique(np.array(digests), return_index=True)
    others = cosines[np.ix_(ok, first)][who[ok][:, None] != who[first][None]]
    found = verification_rate(genuine, others)
    if math.isnan(found.rate):
        return dataclasses.replace(line, status="failed", note=found.note, n=len(asked))
    return dataclasses.replace(
        line, status="ok", value=found.rate, n=len(asked), n_reference=found.impostors, note=found.note
    )


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(vectors, np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12), np.float64)


def _ranks(
    scores: pd.DataFrame,
    failed: Collection[tuple[str, str, str]],
    judges: Mapping[str, JudgeIDS],
    recognisers: Mapping[str, Sequence[str]],
) -> list[DatasetScore]:
    """Return the mean ranks of every benchmark."""
    told = scores[scores["metric"].isin(list(judges)) & (scores["method"] != GROUND_TRUTH)]
    left_out = {
        name: frozenset(method for method, known in recognisers.items() if judge.recogniser in known)
        for name, judge in judges.items()
    }
    table = []
    for benchmark, every in told.groupby("benchmark", sort=True, observed=True):
        run = every.groupby("method", observed=True)["case_id"].nunique()
        partial = run.index[run < every["case_id"].nunique()]  # would leave the others on its cases alone
        for method in partial:
            line = DatasetScore(str(method), str(benchmark), MEAN_RANK)
            table.append(dataclasses.replace(line, note=f"{method} was not run on all cases"))
        part = every[~every["method"].isin(partial)]
        cosines = part["value"].where(part["status"] == "ok")
        lost = [key in failed for key in zip(part["benchmark"], part["method"], part["case_id"], strict=True)]
        cosines = cosines.mask((part["status"] == "failed") | (np.array(lost) & cosines.notna()), -np.inf)
        values = {
            str(name): found.pivot_table("value", "case_id", "method", aggfunc="first", dropna=False)
            for name, found in part.assign(value=cosines).groupby("metric", sort=True, observed=True)
        }
        methods = sorted(part["method"].unique())
        signature = f"{MEAN_RANK}|mean over cases and judges|judges {', '.join(values)}|among {', '.join(methods)}|v1"
        for method, rank in mean_ranks(values, left_out).items():
            without = [name for name in values if method in left_out[name]]
            note = f"not for {method}: {', '.join(without)} (trained with, or conditioned on)" if without else ""
            line = DatasetScore(str(method), str(benchmark), MEAN_RANK, signature=signature, note=note)
            if math.isnan(rank):
                table.append(dataclasses.replace(line, note=note or "no case on which two methods have a value"))
                continue
            n = max(len(frame.dropna()) for frame in values.values())
            table.append(dataclasses.replace(line, status="ok", value=float(rank), n=n))
    return table
