"""From one score a case to the leaderboard: means, intervals, failures both ways, ranks and comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ffhqref.core.seeding import case_seed
from ffhqref.leaderboard.board import BoardRow, board_frame
from ffhqref.leaderboard.options import FAILURE_POLICIES
from ffhqref.leaderboard.published import leak_mark
from ffhqref.leaderboard.statistics import ALPHA, mean_interval, paired_tests, rank_intervals
from ffhqref.metrics.base import GROUND_TRUTH, WHOLE_SET
from ffhqref.metrics.jury import counts_failures
from ffhqref.zoo.openness import openness

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.leaderboard.case_values import CaseValues
    from ffhqref.leaderboard.report_data import ReportData
    from ffhqref.leaderboard.statistics import PairedTests

N = TypeVar("N", np.float64, np.int64)


@dataclass(frozen=True)
class Detail:
    """What the fixed columns of the leaderboard have no room for; one for each row of single cases."""

    benchmark: str
    method: str
    metric: str
    mean_worst: float
    low_worst: float
    high_worst: float
    mean_excluded: float
    low_excluded: float
    high_excluded: float
    n_cases: int
    """Cases of the benchmark in which the metric is defined."""
    n_identities: int
    partial: bool
    """The method was not run on all cases and is not ranked."""
    n_infinite: int
    """Values that are infinite by definition."""
    n_left_out: int
    """Values that the metric's definition leaves out."""


@dataclass(frozen=True)
class Analysis:
    """A leaderboard with what its columns have no room for."""

    leaderboard: pd.DataFrame
    """Table ``leaderboard`` (ffhqref.store.schemas)."""
    details: pd.DataFrame
    """Columns: the fields of `Detail`."""
    comparisons: pd.DataFrame
    """Paired differences on shared cases: ``benchmark, metric, method_a, method_b, difference`` (a minus b), ``low,
    high`` (interval of this pair alone), ``p_adjusted`` (corrected for all pairs of the benchmark and metric),
    ``better`` (the method, or None while the order is open), ``n, n_identities``."""


def analyse(report: ReportData) -> Analysis:
    """Rank methods within each benchmark and metric.

    How cases without a finite value count is said by `ffhqref.leaderboard.case_values.RULE`; `Analysis.details` holds
    the means by both policies. A method that was not run on every case is shown without a rank: means over different
    cases cannot be ordered. Baselines (`ReportData.baselines`) are tested against the methods and have no rank.

    Raises:
        ConfigError: a metric without direction.
        TableError: scores of cases or benchmarks that ``cases`` does not hold.
    """
    import pandas as pd

    about = _Facts(report)
    rows: list[BoardRow] = []
    details: list[Detail] = []
    comparisons: list[pd.DataFrame] = []
    for block in report.blocks:
        found = _Means(block, report)
        for k, metric in enumerate(block.metrics):
            ranks, tested = found.ranks(k)
            comparisons += tested
            for j, method in enumerate(block.methods):
                rows.append(found.row(j, k, ranks[:, j], about.of(block.benchmark, method, metric)))
                details.append(found.detail(j, k))
    rows += _whole_set_rows(report, about)
    empty = pd.DataFrame(columns=list(_COMPARISON_COLUMNS))
    return Analysis(
        board_frame(rows),
        pd.DataFrame([vars(detail) for detail in details], columns=[column.name for column in fields(Detail)]),
        pd.concat(comparisons, ignore_index=True) if comparisons else empty,
    )


_COMPARISON_COLUMNS = (
    "benchmark", "metric", "method_a", "method_b", "difference", "low", "high", "p_adjusted", "better", "n",
    "n_identities",
)  # fmt: skip


class _Facts:
    """What the leaderboard says of a method or a metric beside its mean."""

    def __init__(self, report: ReportData) -> None:
        self.report = report
        timed = report.restorations.dropna(subset=["seconds"])  # first calls, which load, have none
        well = timed[timed["status"] == "ok"]
        of_method = well.groupby(["benchmark", "method"], observed=True)
        self.seconds = of_method["seconds"].median().to_dict()
        self.memory = of_method["peak_memory_bytes"].max().dropna().to_dict()
        fit = report.published[report.published["comparable"]].drop_duplicates(["benchmark", "method", "metric"])
        self.published = {
            (row.benchmark, row.method, row.metric): (row.published, f"{row.source} ({row.trust})")
            for row in fit.itertuples()
        }

    def of(self, benchmark: str, method: str, metric: str) -> dict[str, object]:
        """Return the last columns of a row."""
        value, source = self.published.get((benchmark, method, metric), (None, None))
        return {
            "higher_is_better": self.report.metrics[metric].higher_is_better,
            "published": value,
            "published_source": source,
            "leak": leak_mark(self.report.infos.get(method), self.report.benchmarks.get(benchmark)),
            "seconds_per_image": self.seconds.get((benchmark, method)),
            **self._costs(benchmark, method),
        }

    def _costs(self, benchmark: str, method: str) -> dict[str, object]:
        facts = self.report.methods.get(method)
        cost = None if facts is None else facts.cost
        memory = self.memory.get((benchmark, method))
        return {
            "peak_memory_mb": None if memory is None else memory / 1e6,
            "parameters": cost and cost.parameters,
            "multiply_adds": cost and cost.multiply_adds,
            "evaluations": cost and cost.evaluations,
            "openness": (facts and openness(facts.info)) or None,
        }


class _Means:
    """Means, intervals and ranks of one benchmark, with failures as the worst value and without them."""

    def __init__(self, block: CaseValues, report: ReportData) -> None:
        self.block, self.n_bootstrap = block, report.options.n_bootstrap
        self.seed = case_seed(report.seed, "leaderboard", block.benchmark)
        self.sign = block.sign
        self.shown = FAILURE_POLICIES.index(report.options.failures)
        n_cases, *shape = block.filled.shape
        flat = block.filled.reshape(n_cases, -1)
        differ = np.flatnonzero(block.failed.any(axis=0).ravel())
        every = np.concatenate([flat, block.measured.reshape(n_cases, -1)[:, differ]], axis=1)
        binary = np.tile(block.binary, len(block.methods))
        interval = mean_interval(
            every, block.identities, seed=self.seed, n_bootstrap=self.n_bootstrap,
            binary=np.concatenate([binary, binary[differ]]),
        )  # fmt: skip

        def both(found: NDArray[N]) -> NDArray[N]:
            """Return [policy, methods, metrics]."""
            without = found[: flat.shape[1]].copy()
            without[differ] = found[flat.shape[1] :]
            return np.stack([found[: flat.shape[1]], without]).reshape(2, *shape)

        self.mean, self.low, self.high = both(interval.mean), both(interval.low), both(interval.high)
        self.n, self.n_identities = both(interval.n)[1], both(interval.n_identities)
        # one person's values say nothing of others, whatever failures of others count as
        few = (self.n_identities[1] < 2) & ~block.binary
        self.low[:, few] = self.high[:, few] = np.nan
        has_row = ~np.isnan(block.values) | block.failed
        run = has_row | block.left_out
        self.complete = has_row[:, block.ranked].any(axis=1).sum(axis=0)
        self.partial = run.sum(axis=0) < run[:, block.ranked].any(axis=1).sum(axis=0)
        self.unranked = self.partial | (block.failed.any(axis=0) & (report.options.failures == "excluded"))
        self.unranked |= np.isin(block.methods, report.baselines)[:, None]

    def ranks(self, k: int) -> tuple[NDArray[np.int64], list[pd.DataFrame]]:
        """Return rank, lowest and highest rank [3, methods] of a metric, 0 where there is none, and its tests."""
        block, mean = self.block, self.mean[self.shown, :, k]
        ranks = np.zeros((3, len(block.methods)), np.int64)
        contenders = np.flatnonzero(block.ranked & ~np.isnan(mean))
        if not len(contenders):
            return ranks, []
        full = np.flatnonzero(~self.unranked[contenders, k])
        used = block.counted(FAILURE_POLICIES[self.shown])[:, contenders, k]
        tests = paired_tests(
            used, block.identities, seed=self.seed, n_bootstrap=self.n_bootstrap, binary=bool(block.binary[k])
        )
        higher = self.sign[k] > 0
        ranks[:, contenders[full]] = np.stack(
            rank_intervals(mean[contenders[full]], tests.among(full), higher_is_better=higher, alpha=ALPHA)
        )
        names = np.array(block.methods, dtype=object)[contenders]
        return ranks, [_comparison_frame(block.benchmark, block.metrics[k], names, tests, self.sign[k])]

    def row(self, j: int, k: int, ranks: NDArray[np.int64], about: dict[str, object]) -> BoardRow:
        """Return the row of a method and a metric."""
        block, p = self.block, self.shown
        rank, rank_low, rank_high = (int(value) or None for value in ranks)
        return BoardRow(
            benchmark=block.benchmark,
            method=block.methods[j],
            metric=block.metrics[k],
            mean=float(self.mean[p, j, k]),
            ci_low=float(self.low[p, j, k]),
            ci_high=float(self.high[p, j, k]),
            n=int(self.n[j, k]),
            n_failed=int(block.failed[:, j, k].sum()),
            rank=rank,
            rank_low=rank_low,
            rank_high=rank_high,
            **about,  # type: ignore[arg-type]
        )

    def detail(self, j: int, k: int) -> Detail:
        """Return what the row has no room for."""
        block, (worst, excluded) = self.block, ((0, j, k), (1, j, k))
        return Detail(
            benchmark=block.benchmark,
            method=block.methods[j],
            metric=block.metrics[k],
            mean_worst=float(self.mean[worst]),
            low_worst=float(self.low[worst]),
            high_worst=float(self.high[worst]),
            mean_excluded=float(self.mean[excluded]),
            low_excluded=float(self.low[excluded]),
            high_excluded=float(self.high[excluded]),
            n_cases=int(self.complete[k]),
            n_identities=int(self.n_identities[self.shown, j, k]),
            partial=bool(self.partial[j, k]),
            n_infinite=int(np.isinf(block.values[:, j, k]).sum()),
            n_left_out=int(block.left_out[:, j, k].sum()),
        )


def _comparison_frame(
    benchmark: str, metric: str, names: NDArray[np.object_], tests: PairedTests, sign: float
) -> pd.DataFrame:
    import pandas as pd

    difference = tests.difference
    ahead = np.where(difference.mean * sign > 0, names[tests.first], names[tests.second])
    return pd.DataFrame(
        {
            "benchmark": benchmark,
            "metric": metric,
            "method_a": names[tests.first],
            "method_b": names[tests.second],
            "difference": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "p_adjusted": tests.p_adjusted,
            "better": [name if sure else None for name, sure in zip(ahead, tests.p_adjusted <= ALPHA, strict=True)],
            "n": difference.n,
            "n_identities": difference.n_identities,
        }
    )


def _whole_set_rows(report: ReportData, about: _Facts) -> Iterator[BoardRow]:
    """Yield the rows of metrics that have one value a benchmark: ranked, without an interval.

    Such a distance depends on the number of images and cannot count a failure: a method with fewer images than
    another is shown without a rank. What the judges of identity say counts failures itself.
    """
    states = report.restorations.groupby(["benchmark", "method"], observed=True)["status"]
    made = states.agg(lambda status: int((status == "ok").sum())).to_dict()
    broken = states.agg(lambda status: int((status != "ok").sum())).to_dict()
    truths = report.cases[report.cases["gt_path"].notna()].groupby("benchmark").size().to_dict()
    whole = report.scores[report.scores["case_id"] == WHOLE_SET].copy()
    whole["value"] = whole["value"].where(whole["status"] == "ok").astype(float)
    for (benchmark, metric), part in whole.groupby(["benchmark", "metric"], sort=True, observed=True):
        benchmark, metric = str(benchmark), str(metric)
        sign = 1.0 if report.metrics[metric].higher_is_better else -1.0
        made[benchmark, GROUND_TRUTH] = int(truths.get(benchmark, 0))
        contends = ~part["method"].isin([GROUND_TRUTH, *report.baselines]) & part["value"].notna()
        n = part["method"].map(lambda method, of=benchmark: made.get((of, method), 0))
        counted = n
        if counts_failures(metric):
            counted = n + part["method"].map(lambda method, of=benchmark: broken.get((of, method), 0))
        contends &= counted == counted[contends].max()
        rank = (-sign * part["value"]).where(contends).rank(method="min")
        columns = (part["method"], part["value"], part["status"], n, rank)
        for method, value, status, images, place in zip(*columns, strict=True):
            known = not math.isnan(place)
            failed = 0 if status == "unavailable" else max(broken.get((benchmark, method), 0), int(status == "failed"))
            yield BoardRow(
                benchmark=benchmark,
                method=method,
                metric=metric,
                mean=value,
                ci_low=math.nan,
                ci_high=math.nan,
                n=int(images) if status == "ok" else 0,
                n_failed=failed,
                rank=int(place) if known else None,
                # One number a set leaves every order open.
                rank_low=1 if known else None,
                rank_high=int(contends.sum()) if known else None,
                **about.of(benchmark, method, metric),  # type: ignore[arg-type]
            )
