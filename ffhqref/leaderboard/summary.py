"""Summaries over several metrics: an identity gate before quality, and the methods that nothing dominates.

A sum of unlike scales hides what was traded for what (the NTIRE face-restoration score adds CLIP-IQA, MUSIQ, NIQE
and FID terms). Here quality metrics are combined by rank, and only among methods that keep the person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.leaderboard.case_values import GROUND_TRUTH, case_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True)
class IdentityGate:
    """What a method must keep of the person before its quality counts.

    The form is that of the NTIRE 2025/2026 face-restoration challenge: a similarity threshold a case (AdaFace cosine
    0.30, 0.60 or 0.50 by set) that at most ten cases may miss. Here the allowance is a share, for benchmarks of any
    size.
    """

    metric: str
    """A similarity with higher_is_better."""
    threshold: float
    max_missed_share: float = 0.1
    """Largest share of cases below the threshold or failed."""


def identity_gate(
    scores: pd.DataFrame,
    cases: pd.DataFrame,
    restorations: pd.DataFrame,
    board: pd.DataFrame,
    gate: IdentityGate,
    quality: Sequence[str],
) -> pd.DataFrame:
    """Rank by quality the methods that pass an identity gate.

    Args:
        scores: table ``scores``.
        cases: table ``cases``.
        restorations: table ``restorations``.
        board: table ``leaderboard`` of the same scores.
        gate: the gate.
        quality: metrics whose ranks, taken anew among the methods that pass, are averaged.

    Returns:
        ``benchmark, method, missed_share`` (cases under the threshold or failed), ``passed, mean_rank`` (null: did
        not pass or lacks a quality metric), best first.

    Raises:
        ConfigError: the gate's metric has no score.
    """
    import pandas as pd

    rows = []
    for block in case_values(scores, cases, restorations):
        if gate.metric not in block.metrics:
            continue
        k = block.metrics.index(gate.metric)
        for j in np.flatnonzero(block.ranked):
            values, failed = block.values[:, j, k], block.failed[:, j, k]
            tried = np.isfinite(values) | failed
            missed = failed | (np.isfinite(values) & (values < gate.threshold))
            if tried.any():
                share = float(missed.sum() / tried.sum())
                rows.append((block.benchmark, block.methods[j], share, share <= gate.max_missed_share))
    if not rows:
        raise ConfigError(f"identity gate: no scores of metric '{gate.metric}'; score it or choose another gate")
    frame = pd.DataFrame(rows, columns=["benchmark", "method", "missed_share", "passed"])
    passed = frame[frame["passed"]][["benchmark", "method"]]
    means = board[board["metric"].isin(quality) & board["mean"].notna() & board["rank"].notna()].merge(passed)
    signed = means["mean"].where(~means["higher_is_better"], -means["mean"])
    means = means.assign(place=signed.groupby([means["benchmark"], means["metric"]]).rank(method="average"))
    grouped = means.groupby(["benchmark", "method"])["place"].agg(["mean", "size"])
    present = board[board["metric"].isin(quality) & board["rank"].notna()].groupby("benchmark")["metric"].nunique()
    complete = grouped[grouped["size"] == present.reindex(grouped.index.get_level_values(0)).to_numpy()]
    frame = frame.merge(complete["mean"].rename("mean_rank").reset_index(), on=["benchmark", "method"], how="left")
    return frame.sort_values(["benchmark", "mean_rank", "missed_share", "method"], ignore_index=True)


def pareto(values: NDArray[np.float64], higher_is_better: Sequence[bool]) -> NDArray[np.bool_]:
    """Return which rows no other row dominates: at least as good in every column and better in one.

    Args:
        values: float64 [rows, columns]; a row with NaN is on no front.
        higher_is_better: direction of each column.

    >>> pareto(np.array([[30.0, 0.2], [28.0, 0.1], [27.0, 0.3]]), [True, False]).tolist()
    [True, True, False]
    """
    signed = values * np.where(np.asarray(higher_is_better), 1.0, -1.0)
    known = ~np.isnan(signed).any(axis=1)
    at_least = (signed[:, None, :] >= signed[None, :, :]).all(axis=2)
    better = (signed[:, None, :] > signed[None, :, :]).any(axis=2)
    dominated = (at_least & better).any(axis=0)
    return np.asarray(known & ~dominated, dtype=np.bool_)


def pareto_front(board: pd.DataFrame, metrics: Sequence[str], *, seconds: bool = True) -> pd.DataFrame:
    """Mark the methods of each benchmark that no other beats in all of some metrics and speed at once.

    Args:
        board: table ``leaderboard``.
        metrics: for instance one of fidelity and one of perceptual quality.
        seconds: take ``seconds_per_image`` as a further axis.

    Returns:
        ``benchmark, method``, one column a metric, ``seconds_per_image``, ``pareto``. The ceiling row is left out.
    """
    import pandas as pd

    board = board[board["method"] != GROUND_TRUTH]
    directions: Mapping[str, bool] = dict(zip(board["metric"], board["higher_is_better"], strict=True))
    missing = [metric for metric in metrics if metric not in directions]
    if missing:
        raise ConfigError(f"the leaderboard holds no metric {', '.join(missing)}")
    frames = []
    for benchmark, part in board.groupby("benchmark", sort=True):
        ranked = part[part["rank"].notna()]
        wide = ranked.pivot_table(index="method", columns="metric", values="mean").reindex(columns=list(metrics))
        wide["seconds_per_image"] = part.groupby("method")["seconds_per_image"].first()
        axes = [*metrics, "seconds_per_image"] if seconds else list(metrics)
        ways = [*(bool(directions[metric]) for metric in metrics), False][: len(axes)]
        wide["pareto"] = pareto(wide[axes].to_numpy(float), ways)
        frames.append(wide.reset_index().assign(benchmark=benchmark))
    columns = ["benchmark", "method", *metrics, "seconds_per_image", "pareto"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
