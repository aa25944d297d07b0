"""Summaries over several metrics: an identity gate before quality, and the methods that nothing dominates.

A sum of unlike scales hides what was traded for what (the NTIRE face-restoration score adds CLIP-IQA, MUSIQ, NIQE
and FID terms). Here quality metrics are combined by rank, and only among methods that keep the person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.leaderboard.board import BoardRow
from ffhqref.metrics.base import GROUND_TRUTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.leaderboard.options import IdentityGate
    from ffhqref.leaderboard.report_data import ReportData


def identity_gate(report: ReportData, board: pd.DataFrame, gate: IdentityGate) -> pd.DataFrame:
    """Rank by quality the methods that pass an identity gate.

    Args:
        report: its scores.
        board: its leaderboard; the ranks of the quality metrics, taken anew among the methods that pass, are averaged.
        gate: the gate.

    Returns:
        ``benchmark, method, missed_share`` (cases beyond the threshold in the metric's bad direction, or failed; of a
        metric of whole sets, which has one value, 0 or 1), ``passed, mean_rank`` (null: did not pass or lacks a
        quality metric), best first.

    Raises:
        ConfigError: the gate's metric has no score.
    """
    import pandas as pd

    quality = report.options.quality
    rows = []
    for block in report.blocks:
        if gate.metric not in block.metrics:
            continue
        k = block.metrics.index(gate.metric)
        for j in np.flatnonzero(block.ranked):
            values, failed = block.values[:, j, k], block.failed[:, j, k]
            tried = ~np.isnan(values) | failed
            missed = failed | (values * block.sign[k] < gate.threshold * block.sign[k])
            if tried.any():
                rows.append((block.benchmark, block.methods[j], float(missed.sum() / tried.sum())))
    if not rows:
        rows = _of_whole_sets(board, gate)
    if not rows:
        raise ConfigError(f"identity gate: no scores of metric '{gate.metric}'; score it or choose another gate")
    frame = pd.DataFrame(rows, columns=["benchmark", "method", "missed_share"])
    frame["passed"] = frame["missed_share"] <= gate.max_missed_share
    passed = frame[frame["passed"]][["benchmark", "method"]]
    means = board[board["metric"].isin(quality) & board["mean"].notna() & board["rank"].notna()].merge(passed)
    signed = means["mean"].where(~means["higher_is_better"], -means["mean"])
    means = means.assign(place=signed.groupby([means["benchmark"], means["metric"]]).rank(method="average"))
    grouped = means.groupby(["benchmark", "method"])["place"].agg(["mean", "size"])
    present = board[board["metric"].isin(quality) & board["rank"].notna()].groupby("benchmark")["metric"].nunique()
    complete = grouped[grouped["size"] == present.reindex(grouped.index.get_level_values(0)).to_numpy()]
    frame = frame.merge(complete["mean"].rename("mean_rank").reset_index(), on=["benchmark", "method"], how="left")
    return frame.sort_values(["benchmark", "mean_rank", "missed_share", "method"], ignore_index=True)


def _of_whole_sets(board: pd.DataFrame, gate: IdentityGate) -> list[tuple[str, str, float]]:
    limit = gate.threshold
    rows = [BoardRow.of(record) for record in board[board["metric"] == gate.metric].to_dict("records")]
    return [
        (row.benchmark, row.method, float(not (row.mean >= limit if row.higher_is_better else row.mean <= limit)))
        for row in rows
        if row.method != GROUND_TRUTH and (row.known or row.n_failed)
    ]


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
