"""From one score a case to the leaderboard: means, intervals, failures both ways, ranks and comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.core.seeding import case_seed
from ffhqref.leaderboard.case_values import GROUND_TRUTH, WHOLE_SET, case_values
from ffhqref.leaderboard.statistics import mean_interval, paired_tests, rank_intervals

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.leaderboard.case_values import CaseValues
    from ffhqref.leaderboard.published import BenchmarkInfo
    from ffhqref.leaderboard.statistics import PairedTests
    from ffhqref.restorers.base import RestorerInfo

FAILURE_POLICIES = ("worst", "excluded")

ALPHA = 0.05
"""Family-wise error of "A beats B" within a benchmark and metric."""


@dataclass(frozen=True)
class Analysis:
    """A leaderboard with what its fixed columns have no room for."""

    leaderboard: pd.DataFrame
    """Table ``leaderboard`` (ffhqref.store.schemas)."""
    details: pd.DataFrame
    """One row for each row of the leaderboard: ``mean_worst, low_worst, high_worst`` (failures count as the worst
    value any method has), ``mean_excluded, low_excluded, high_excluded`` (failures left out, as many papers do),
    ``n_cases`` (cases of the benchmark in which the metric is defined), ``n_identities``, ``partial`` (the method was
    not run on all cases and is not ranked)."""
    comparisons: pd.DataFrame
    """Paired differences on shared cases: ``benchmark, metric, method_a, method_b, difference`` (a minus b), ``low,
    high`` (interval of this pair alone), ``p_adjusted`` (corrected for all pairs of the benchmark and metric),
    ``better`` (the method, or None while the order is open), ``n, n_identities``."""


def leaderboard(
    scores: pd.DataFrame,
    cases: pd.DataFrame,
    restorations: pd.DataFrame,
    directions: Mapping[str, bool],
    *,
    published: pd.DataFrame | None = None,
    infos: Mapping[str, RestorerInfo] | None = None,
    benchmarks: Mapping[str, BenchmarkInfo] | None = None,
    failures: str = "worst",
    seed: int = 0,
    n_bootstrap: int = 2000,
) -> pd.DataFrame:
    """Return the table ``leaderboard``; see `analyse`, of which this is the first part."""
    return analyse(
        scores,
        cases,
        restorations,
        directions,
        published=published,
        infos=infos,
        benchmarks=benchmarks,
        failures=failures,
        seed=seed,
        n_bootstrap=n_bootstrap,
    ).leaderboard


def analyse(
    scores: pd.DataFrame,
    cases: pd.DataFrame,
    restorations: pd.DataFrame,
    directions: Mapping[str, bool],
    *,
    published: pd.DataFrame | None = None,
    infos: Mapping[str, RestorerInfo] | None = None,
    benchmarks: Mapping[str, BenchmarkInfo] | None = None,
    failures: str = "worst",
    seed: int = 0,
    n_bootstrap: int = 2000,
) -> Analysis:
    """Rank methods within each benchmark and metric.

    A case without a usable output or value is a failure. It counts as the worst value that any method has for the
    metric in the benchmark (``failures="worst"``), so that nobody gains by failing on hard cases, or is left out of
    the mean (``"excluded"``); `Analysis.details` holds both. A case in which no method has a value says nothing about
    methods (no face in the ground truth, no reference) and is left out for all. A method that was not run on every
    case is shown without a rank: means over different cases cannot be ordered.

    Args:
        scores: table ``scores``; rows with ``case_id`` `WHOLE_SET` carry metrics of a whole set.
        cases: table ``cases``. ``identity_id`` is what is resampled; a case without one stands for its own person.
        restorations: table ``restorations``; a status other than ``ok`` makes the case a failure whatever its score.
        directions: metric to whether higher is better, for every metric in ``scores``.
        published: from `ffhqref.leaderboard.published.match_published`; rows that match fill the columns
            ``published`` and ``published_source``.
        infos: descriptions of the restorers, for the leak marks.
        benchmarks: what each benchmark is made of, for the leak marks.
        failures: ``"worst"`` or ``"excluded"``: which mean is shown and ranked.
        seed: of all resampling.
        n_bootstrap: resamples of intervals and sign flips of tests.

    Raises:
        ConfigError: an unknown policy or a metric without direction.
        TableError: scores of cases or benchmarks that ``cases`` does not hold.
    """
    import pandas as pd

    from ffhqref.leaderboard.published import leak_mark

    if failures not in FAILURE_POLICIES:
        raise ConfigError(f"failures={failures!r}: expected one of {', '.join(FAILURE_POLICIES)}")
    unknown = sorted(set(scores["metric"].unique()) - set(directions))
    if unknown:
        raise ConfigError(f"no direction (higher_is_better) is given for the metrics {', '.join(unknown)}")
    rows: list[dict[str, object]] = []
    details: list[dict[str, object]] = []
    comparisons: list[pd.DataFrame] = []
    for block in case_values(scores, cases, restorations):
        sign = np.array([1.0 if directions[metric] else -1.0 for metric in block.metrics])
        found = _benchmark(block, sign, failures, case_seed(seed, "leaderboard", block.benchmark), n_bootstrap)
        rows += found[0]
        details += found[1]
        comparisons += found[2]
    rows += _whole_set_rows(scores, cases, restorations, directions)
    board = pd.DataFrame(rows, columns=[*_BOARD_COLUMNS])
    board["higher_is_better"] = board["metric"].map(dict(directions)).astype(bool)
    for column in ("rank", "rank_low", "rank_high"):
        board[column] = board[column].astype("Int32")
    board = board.merge(_seconds(restorations), on=["benchmark", "method"], how="left")
    board["leak"] = [
        leak_mark((infos or {}).get(method), (benchmarks or {}).get(benchmark))
        for benchmark, method in zip(board["benchmark"], board["method"], strict=True)
    ]
    board = _with_published(board, published)
    board = board.sort_values(["benchmark", "metric", "rank", "method"], ignore_index=True)
    columns = [
        "benchmark", "method", "metric", "higher_is_better", "mean", "ci_low", "ci_high", "n", "n_failed", "rank",
        "rank_low", "rank_high", "published", "published_source", "leak", "seconds_per_image",
    ]  # fmt: skip
    empty = pd.DataFrame(columns=[*_COMPARISON_COLUMNS])
    return Analysis(
        board[columns],
        pd.DataFrame(details, columns=[*_DETAIL_COLUMNS]),
        pd.concat(comparisons, ignore_index=True) if comparisons else empty,
    )


_BOARD_COLUMNS = (
    "benchmark", "method", "metric", "mean", "ci_low", "ci_high", "n", "n_failed", "rank", "rank_low", "rank_high",
)  # fmt: skip
_DETAIL_COLUMNS = (
    "benchmark", "method", "metric", "mean_worst", "low_worst", "high_worst", "mean_excluded", "low_excluded",
    "high_excluded", "n_cases", "n_identities", "partial",
)  # fmt: skip
_COMPARISON_COLUMNS = (
    "benchmark", "metric", "method_a", "method_b", "difference", "low", "high", "p_adjusted", "better", "n",
    "n_identities",
)  # fmt: skip


def _benchmark(
    block: CaseValues, sign: NDArray[np.float64], failures: str, seed: int, n_bootstrap: int
) -> tuple[list[dict[str, object]], list[dict[str, object]], list[pd.DataFrame]]:
    worst = block.filled(sign)
    excluded = block.values
    n_cases, n_methods, n_metrics = worst.shape
    flat = worst.reshape(n_cases, -1)
    differ = np.flatnonzero(block.failed.any(axis=0).ravel())
    every = np.concatenate([flat, block.values.reshape(n_cases, -1)[:, differ]], axis=1)
    interval = mean_interval(every, block.identities, seed=seed, n_bootstrap=n_bootstrap)
    both = {}
    for name in ("mean", "low", "high", "n", "n_identities"):
        found = getattr(interval, name)
        with_failures = found[: flat.shape[1]]
        without = with_failures.copy()
        without[differ] = found[flat.shape[1] :]
        both[name] = np.stack([with_failures, without]).reshape(2, n_methods, n_metrics)
    shown = FAILURE_POLICIES.index(failures)
    has_row = np.isfinite(worst) | block.failed
    counted = has_row.sum(axis=0)
    complete = has_row[:, block.ranked].any(axis=1).sum(axis=0) if block.ranked.any() else np.zeros(n_metrics, int)
    partial = counted < complete
    rows: list[dict[str, object]] = []
    details: list[dict[str, object]] = []
    comparisons: list[pd.DataFrame] = []
    for k, metric in enumerate(block.metrics):
        mean = both["mean"][shown, :, k]
        ranks = np.zeros((3, n_methods), np.int64)
        contenders = np.flatnonzero(block.ranked & np.isfinite(mean))
        full = np.flatnonzero(~partial[contenders, k])
        if len(contenders):
            used = (worst if failures == "worst" else excluded)[:, contenders, k]
            tests = paired_tests(used, block.identities, seed=seed, n_bootstrap=n_bootstrap)
            names = np.array(block.methods, dtype=object)[contenders]
            comparisons.append(_comparison_frame(block.benchmark, metric, names, tests, sign[k]))
            among = tests.among(full)
            order = rank_intervals(mean[contenders[full]], among, higher_is_better=sign[k] > 0, alpha=ALPHA)
            ranks[:, contenders[full]] = np.stack(order)
        for j, method in enumerate(block.methods):
            rank = [int(value) or None for value in ranks[:, j]]
            rows.append(
                dict(
                    zip(
                        _BOARD_COLUMNS,
                        [
                            block.benchmark, method, metric, mean[j], both["low"][shown, j, k],
                            both["high"][shown, j, k], int(both["n"][1, j, k]), int(block.failed[:, j, k].sum()),
                            *rank,
                        ],
                        strict=True,
                    )
                )
            )  # fmt: skip
            limits = [both[name][way, j, k] for way in (0, 1) for name in ("mean", "low", "high")]
            about = [int(complete[k]), int(both["n_identities"][shown, j, k]), bool(partial[j, k])]
            details.append(dict(zip(_DETAIL_COLUMNS, [block.benchmark, method, metric, *limits, *about], strict=True)))
    return rows, details, comparisons


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


def _whole_set_rows(
    scores: pd.DataFrame, cases: pd.DataFrame, restorations: pd.DataFrame, directions: Mapping[str, bool]
) -> list[dict[str, object]]:
    """Rows of metrics that have one value a benchmark: ranked, without an interval.

    Such a distance depends on the number of pictures and cannot count a failure: a method with fewer pictures than
    another is shown without a rank.
    """
    states = restorations.groupby(["benchmark", "method"], observed=True)["status"]
    made = states.agg(lambda status: int((status == "ok").sum())).to_dict()
    broken = states.agg(lambda status: int((status != "ok").sum())).to_dict()
    truths = cases[cases["gt_path"].notna()].groupby("benchmark").size().to_dict()
    whole = scores[scores["case_id"] == WHOLE_SET].copy()
    whole["value"] = whole["value"].where(whole["status"] == "ok").astype(float)
    rows: list[dict[str, object]] = []
    for (benchmark, metric), part in whole.groupby(["benchmark", "metric"], sort=True, observed=True):
        sign = 1.0 if directions[str(metric)] else -1.0
        benchmark = str(benchmark)
        made[benchmark, GROUND_TRUTH] = int(truths.get(benchmark, 0))
        contends = (part["method"] != GROUND_TRUTH) & part["value"].notna()
        n = part["method"].map(lambda method, of=benchmark: made.get((of, method), 0))
        contends &= n == n[contends].max()
        rank = (-sign * part["value"]).where(contends).rank(method="min")
        columns = (part["method"], part["value"], part["status"], n, rank)
        for method, value, status, pictures, place in zip(*columns, strict=True):
            known = place == place
            failed = 0 if status == "unavailable" else max(broken.get((benchmark, method), 0), int(status == "failed"))
            rows.append(
                {
                    "benchmark": benchmark,
                    "method": method,
                    "metric": metric,
                    "mean": value,
                    "ci_low": np.nan,
                    "ci_high": np.nan,
                    "n": int(pictures) if status == "ok" else 0,
                    "n_failed": failed,
                    "rank": int(place) if known else None,
                    # One number a set leaves every order open.
                    "rank_low": 1 if known else None,
                    "rank_high": int(contends.sum()) if known else None,
                }
            )
    return rows


def _seconds(restorations: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds an image of the cases that ended well."""
    well = restorations[restorations["status"] == "ok"]
    seconds = well.groupby(["benchmark", "method"], observed=True)["seconds"].mean()
    return seconds.rename("seconds_per_image").reset_index()


def _with_published(board: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    import pandas as pd

    keys = ["benchmark", "method", "metric"]
    if published is None or not published["comparable"].any():
        board["published"] = pd.Series(np.nan, index=board.index, dtype="float64")
        board["published_source"] = pd.Series(None, index=board.index, dtype=object)
        return board
    fit = published[published["comparable"]].drop_duplicates(keys)
    fit = fit.assign(published_source=fit["source"] + " (" + fit["trust"] + ")")
    return board.merge(fit[[*keys, "published", "published_source"]], on=keys, how="left")
