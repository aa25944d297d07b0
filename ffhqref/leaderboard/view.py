"""The leaderboard as a reader sees it: methods down, metrics across, a table a benchmark; shared by all renderers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffhqref.leaderboard.board import BoardRow
from ffhqref.leaderboard.case_values import GROUND_TRUTH
from ffhqref.leaderboard.subgroups import is_pose

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.leaderboard.case_values import CaseValues


@dataclass(frozen=True)
class MethodRow:
    """A method in one benchmark."""

    method: str
    cells: dict[str, BoardRow]
    """By metric; a metric without a value is absent."""
    n_failed: int
    """The largest number of failed cases over the metrics."""
    partial: bool
    """Was not run on every case: no ranks."""
    seconds: float | None
    leak: str | None

    @property
    def ceiling(self) -> bool:
        """The ground truth itself."""
        return self.method == GROUND_TRUTH


@dataclass(frozen=True)
class BenchmarkTable:
    """The leaderboard of one benchmark."""

    benchmark: str
    metrics: list[str]
    """Those with a value."""
    absent: list[str]
    """Metrics that were asked for and have no value: their weights are missing, for instance."""
    higher_is_better: dict[str, bool]
    decimals: dict[str, int]
    rows: list[MethodRow]
    """Best mean rank over the metrics first, then unranked methods, then the ceiling row."""


def arrow(higher_is_better: bool) -> str:
    """Return ↑ where higher is better and ↓ elsewhere."""
    return "↑" if higher_is_better else "↓"


def decimals(largest: float) -> int:
    """Return the digits after the point that the field prints for values of this size (LPIPS .429, PSNR 24.37).

    Values far below one (KID) get more, or all methods would look alike.
    """
    if not math.isfinite(largest):
        return 3
    return 5 if largest < 0.05 else 3 if largest < 1.5 else 2 if largest < 200 else 1


ROLES = (
    ("identity", ("ids", "id", "arcface", "adaface")),
    ("fidelity", ("lpips", "flpips", "psnr", "ssim", "ms", "dists", "lmd")),
    ("perception", ("musiq", "niqe", "maniqa", "clipiqa", "topiq", "fid", "kid")),
)
"""What a metric judges, by the beginning of its name; within a role the one to show first comes first."""


def metric_of_role(metrics: list[str], role: str) -> str | None:
    """Return the metric to show for ``identity``, ``fidelity`` or ``perception``, or None when there is none."""
    for stem in dict(ROLES)[role]:
        for metric in metrics:
            if metric.lower().replace("-", "_").split("_")[0] == stem:
                return metric
    return None


FEATURES = {
    "age_gap": "mean years between target and references",
    "n_references": "number of references",
    "best_distance": "distance of the best reference (1 − cosine)",
    "strength": "strength of the degradation (0–1)",
    "age": "age in years",
}
"""Features of a case in words."""


def feature_name(feature: str) -> str:
    """Return a feature of a case in words."""
    return FEATURES.get(feature) or (f"{feature} (degrees, without sign)" if is_pose(feature) else feature)


def scored_metrics(table: BenchmarkTable, block: CaseValues) -> list[str]:
    """Return the metrics in which single cases of a competing method have values; those of whole sets have none."""
    competing = [row for row in table.rows if not row.ceiling]
    return [name for name in table.metrics if name in block.metrics and any(name in row.cells for row in competing)]


def tables(board: pd.DataFrame) -> list[BenchmarkTable]:
    """Return one table for each benchmark of a leaderboard, benchmarks and metrics in sorted order.

    Args:
        board: table ``leaderboard``.
    """
    found = []
    for benchmark, part in board.groupby("benchmark", sort=True):
        known = part[part["mean"].notna()]
        metrics = sorted(known["metric"].unique())
        absent = sorted(set(part["metric"]) - set(metrics))
        largest = known["mean"].abs().groupby(known["metric"]).max()
        rows = [_method_row(str(method), of_method) for method, of_method in part.groupby("method", sort=True)]
        rows.sort(key=_order)
        found.append(
            BenchmarkTable(
                str(benchmark),
                metrics,
                absent,
                dict(zip(part["metric"], part["higher_is_better"].astype(bool), strict=True)),
                {metric: decimals(float(largest.get(metric, math.nan))) for metric in metrics},
                rows,
            )
        )
    return found


def _method_row(method: str, part: pd.DataFrame) -> MethodRow:
    rows = [BoardRow.of(record) for record in part.to_dict("records")]
    cells = {row.metric: row for row in rows if row.known}
    unranked = bool(cells) and method != GROUND_TRUTH and all(cell.rank is None for cell in cells.values())
    leak = next((row.leak for row in rows if row.leak), None)
    return MethodRow(method, cells, max(row.n_failed for row in rows), unranked, rows[0].seconds_per_image, leak)


def _order(row: MethodRow) -> tuple[bool, bool, float, str]:
    ranks = [cell.rank for cell in row.cells.values() if cell.rank is not None]
    return row.ceiling, not ranks, sum(ranks) / len(ranks) if ranks else 0.0, row.method
