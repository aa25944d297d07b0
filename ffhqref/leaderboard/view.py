"""The leaderboard as a reader sees it: methods down, metrics across, a table a benchmark; shared by all renderers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ffhqref.leaderboard.board import BoardRow
from ffhqref.leaderboard.subgroups import is_pose
from ffhqref.metrics.base import GROUND_TRUTH

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.leaderboard.case_values import CaseValues


FEW_PEOPLE = 8
"""Below so many people no order of methods is told: paired tests over people have no power, intervals little sense."""


@dataclass(frozen=True)
class Arrangement:
    """How the leaderboard is laid out; what the table ``leaderboard`` does not say itself."""

    baselines: tuple[str, ...] = ()
    """Methods that show what was given, not what was restored: a block of their own, not ranked."""
    people: Mapping[str, int] = field(default_factory=dict)
    """Benchmark to people tested."""
    order: str = "rank"
    """``rank`` (mean rank over the metrics), ``name``, or a metric."""
    devices: Mapping[str, str] = field(default_factory=dict)
    """Method to the device that it ran on."""
    one_machine: bool = True
    """All methods ran on one machine; times of several are not set side by side."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the table's metadata keeps of it."""
        return {
            "baselines": list(self.baselines),
            "people": dict(self.people),
            "order": self.order,
            "devices": dict(self.devices),
            "one_machine": self.one_machine,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Arrangement:
        """Return the arrangement that a table's metadata keeps."""
        return cls(
            tuple(facts["baselines"]), facts["people"], facts["order"], facts["devices"], bool(facts["one_machine"])
        )

    @property
    def order_words(self) -> str:
        """What the rows are ordered by, in words."""
        return {"rank": "mean rank over the metrics", "name": "name"}.get(self.order, self.order)


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
    device: str = ""
    """It ran on, where the methods ran on several."""
    baseline: bool = False
    """Stands in the block of baselines; the ground truth too."""
    multiply_adds: float | None = None
    """Of one image, in units of 1e9."""

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
    """Methods in the chosen order, those without a rank after the others; then the baselines, ground truth last."""
    people: int | None = None
    """People tested; None: not known."""
    device: str = ""
    """That all methods ran on; empty: several, or not known."""

    @property
    def seconds_title(self) -> str:
        """Heading of the times."""
        return f"s/image on {self.device}" if self.device else "s/image"

    @property
    def too_few(self) -> bool:
        """Has too few people to tell an order of methods."""
        return self.people is not None and self.people < FEW_PEOPLE

    @property
    def warning(self) -> str:
        """What is said in place of an order; empty where there is one."""
        if not self.too_few:
            return ""
        return f"{self.people} {'person' if self.people == 1 else 'people'}: too few people to rank"

    @property
    def competing(self) -> list[MethodRow]:
        """The rows that are compared."""
        return [row for row in self.rows if not row.baseline]

    @property
    def baselines(self) -> list[MethodRow]:
        """The rows below them."""
        return [row for row in self.rows if row.baseline]

    def best(self, cell: BoardRow) -> bool:
        """Return whether a cell is shown as the best."""
        return cell.best and not self.too_few

    def tied(self, cell: BoardRow) -> bool:
        """Return whether a cell is shown as one that cannot be told from the best."""
        return cell.tied and not self.too_few


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


def tables(board: pd.DataFrame, arrangement: Arrangement | None = None) -> list[BenchmarkTable]:
    """Return one table for each benchmark of a leaderboard, benchmarks and metrics in sorted order.

    Args:
        board: table ``leaderboard``.
        arrangement: of its rows.
    """
    found = []
    arrangement = arrangement or Arrangement()
    apart = {GROUND_TRUTH, *arrangement.baselines}
    devices = set(arrangement.devices.values())
    for benchmark, part in board.groupby("benchmark", sort=True):
        known = part[part["mean"].notna()]
        metrics = sorted(known["metric"].unique())
        absent = sorted(set(part["metric"]) - set(metrics))
        largest = known["mean"].abs().groupby(known["metric"]).max()
        rows = [
            _method_row(str(method), of_method, apart, arrangement)
            for method, of_method in part.groupby("method", sort=True)
        ]
        rows.sort(key=lambda row: _order(row, arrangement.order))
        found.append(
            BenchmarkTable(
                str(benchmark),
                metrics,
                absent,
                dict(zip(part["metric"], part["higher_is_better"].astype(bool), strict=True)),
                {metric: decimals(float(largest.get(metric, math.nan))) for metric in metrics},
                rows,
                arrangement.people.get(str(benchmark)),
                next(iter(devices)) if len(devices) == 1 else "",
            )
        )
    return found


def _method_row(method: str, part: pd.DataFrame, apart: set[str], arrangement: Arrangement) -> MethodRow:
    rows = [BoardRow.of(record) for record in part.to_dict("records")]
    cells = {row.metric: row for row in rows if row.known}
    unranked = bool(cells) and method not in apart and all(cell.rank is None for cell in cells.values())
    leak = next((row.leak for row in rows if row.leak), None)
    failed = max(row.n_failed for row in rows)
    seconds = rows[0].seconds_per_image if arrangement.one_machine else None
    several = len(set(arrangement.devices.values())) > 1
    device = arrangement.devices.get(method, "") if several else ""
    work = None if rows[0].multiply_adds is None else rows[0].multiply_adds / 1e9
    return MethodRow(method, cells, failed, unranked, seconds, leak, device, method in apart, work)


def _order(row: MethodRow, order: str) -> tuple[bool, bool, bool, float, str]:
    ranks = [cell.rank for cell in row.cells.values() if cell.rank is not None]
    if order == "name":
        place: float | None = 0.0
    elif order == "rank":
        place = sum(ranks) / len(ranks) if ranks else None
    else:
        cell = row.cells.get(order)
        place = None if cell is None else -cell.mean if cell.higher_is_better else cell.mean
    return row.baseline, row.ceiling, place is None, place or 0.0, row.method
