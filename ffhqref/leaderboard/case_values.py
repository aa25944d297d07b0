"""Tables of scores, cases and restorations as arrays, one set for each benchmark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError, TableError
from ffhqref.metrics.base import GROUND_TRUTH, WHOLE_SET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.leaderboard.options import FailurePolicy

CASE = ["benchmark", "case_id"]
"""Columns that name a case."""


RULE = (
    "A case without a usable output or value is a failure. With failures=worst it counts as the worst finite value "
    "that a method or baseline has on the metric in the benchmark (benchmarks that differ in the age of the references "
    "only share it); with failures=excluded it is left out, and a method with failures is not ranked. A value that a "
    "metric leaves out by its definition counts nowhere. A value that is infinite by definition counts as the best "
    "finite value, or as the worst where it is infinitely bad. A method without any value has no mean. A metric of "
    "whole sets leaves failures out, and a method with fewer images than others is not ranked by it; the mean rank and "
    "the verification rates of judges count a failure as refused."
)
"""How cases without a finite value count, for users."""


@dataclass(frozen=True)
class CaseValues:
    """Scores of one benchmark as arrays: values and states are [cases, methods, metrics]."""

    benchmark: str
    case_ids: list[str]
    identities: NDArray[np.int64]
    methods: list[str]
    metrics: list[str]
    sign: NDArray[np.float64]
    """[metrics], 1 where higher is better and -1 elsewhere."""
    values: NDArray[np.float64]
    """NaN where there is no value; infinite where the metric says so."""
    failed: NDArray[np.bool_]
    """The method was run on the case and has no usable output or value."""
    left_out: NDArray[np.bool_]
    """There is a value, which the metric's definition leaves out."""
    worst: NDArray[np.float64]
    """[metrics], the worst finite value of the methods and baselines; NaN without any."""
    best: NDArray[np.float64]
    """[metrics], the best finite value of the methods and baselines."""

    @property
    def ranked(self) -> NDArray[np.bool_]:
        """Methods that compete, [methods]: all but the ceiling row."""
        return np.array([method != GROUND_TRUTH for method in self.methods], dtype=bool)

    @property
    def binary(self) -> NDArray[np.bool_]:
        """Metrics whose values are 0 or 1 throughout, [metrics]."""
        known = np.isin(self.values, (0.0, 1.0)).all(axis=(0, 1), where=~np.isnan(self.values))
        return np.asarray(known & (np.isnan(self.worst) | np.isin(self.worst, (0.0, 1.0))))  # a failure counts as that

    @cached_property
    def measured(self) -> NDArray[np.float64]:
        """Values with finite stand-ins for infinite ones, NaN where there is none: failures left out."""
        good = np.isinf(self.values) & (self.values * self.sign > 0)
        bad = np.isinf(self.values) & ~good
        known = np.isfinite(self.best)  # else all values are infinite, and stay
        found = np.where(good & known, self.best, self.values)
        return np.where(bad & known, self.worst, found)

    @cached_property
    def filled(self) -> NDArray[np.float64]:
        """Values with finite stand-ins for infinite ones and for failures; a method without any value has none."""
        made = ~np.isnan(self.values).all(axis=0)
        return np.where(self.failed & made, self.worst, self.measured)

    def counted(self, failures: FailurePolicy) -> NDArray[np.float64]:
        """Return the values that enter means and differences, by the policy on failures."""
        return self.filled if failures == "worst" else self.measured

    def told(self) -> dict[str, str]:
        """Return for metrics with values that are infinite or left out how many there are of each method."""
        lines: dict[str, list[str]] = {}
        states = (
            (np.isinf(self.values), "infinite by definition, counted as the best (or worst) finite value"),
            (self.left_out, "left out by the metric's definition"),
        )
        for state, words in states:
            counts = state.sum(axis=0)
            for k in np.flatnonzero(counts.any(axis=0)):
                of = ", ".join(f"{self.methods[j]} {counts[j, k]}" for j in np.flatnonzero(counts[:, k]))
                lines.setdefault(self.metrics[k], []).append(f"{words}: {of} of {len(self.case_ids)} cases")
        return {metric: "; ".join(parts) for metric, parts in lines.items()}


def case_values(
    scores: pd.DataFrame,
    cases: pd.DataFrame,
    restorations: pd.DataFrame | None,
    directions: Mapping[str, bool],
    compared: Iterable[tuple[str, str]] = (),
) -> tuple[CaseValues, ...]:
    """Return the scores of each benchmark as arrays, benchmarks, methods, metrics and cases in sorted order.

    Args:
        scores: table ``scores``.
        cases: table ``cases``.
        restorations: table ``restorations``; a status other than ``ok`` makes the case a failure whatever its score.
        directions: metric to whether higher is better.
        compared: benchmarks that are compared with each other, and so share the worst and the best value.

    Raises:
        ConfigError: a metric without direction.
        TableError: scores of cases that ``cases`` does not hold.
    """
    unknown = sorted(set(scores["metric"].unique()) - set(directions))
    if unknown:
        raise ConfigError(f"no direction (higher_is_better) is given for the metrics {', '.join(unknown)}")
    single = scores[scores["case_id"] != WHOLE_SET]
    broken = _broken(restorations)
    blocks = {
        str(benchmark): _block(str(benchmark), part, cases, broken.get(str(benchmark), []), directions)
        for benchmark, part in single.groupby("benchmark", sort=True, observed=True)
    }
    for _ in list(compared):  # so often that benchmarks compared through a third one share theirs too
        for pair in compared:
            if set(pair) <= set(blocks):
                blocks |= _sharing(*(blocks[name] for name in pair))
    return tuple(blocks.values())


def _block(
    benchmark: str,
    part: pd.DataFrame,
    cases: pd.DataFrame,
    broken: list[tuple[str, str]],
    directions: Mapping[str, bool],
) -> CaseValues:
    of_benchmark = cases[cases["benchmark"] == benchmark].sort_values("case_id", ignore_index=True)
    case_ids = of_benchmark["case_id"].tolist()
    place = {case_id: index for index, case_id in enumerate(case_ids)}
    i = part["case_id"].map(place)
    if i.isna().any():
        lost = part.loc[i.isna(), "case_id"].iloc[0]
        raise TableError(
            f"scores hold {int(i.isna().sum())} rows of benchmark '{benchmark}' whose case is not in table "
            f"'cases' (first: '{lost}'); score that benchmark again"
        )
    methods, metrics = sorted(part["method"].unique()), sorted(part["metric"].unique())
    j = part["method"].map({method: index for index, method in enumerate(methods)})
    k = part["metric"].map({metric: index for index, metric in enumerate(metrics)})
    where = (i.to_numpy(np.int64), j.to_numpy(np.int64), k.to_numpy(np.int64))
    shape = (len(case_ids), len(methods), len(metrics))
    value = part["value"].to_numpy(np.float64, na_value=np.nan)
    status = part["status"].to_numpy(object)
    no_output = np.zeros(shape[:2], bool)
    for method, case_id in broken:
        if method in methods and case_id in place:
            no_output[place[case_id], methods.index(method)] = True
    values, left_out, tried = np.full(shape, np.nan), np.zeros(shape, bool), np.zeros(shape, bool)
    values[where] = np.where(status == "ok", value, np.nan)
    values[no_output] = np.nan
    left_out[where] = status == "left_out"
    left_out[no_output] = False
    tried[where] = status != "unavailable"
    sign = np.array([1.0 if directions[metric] else -1.0 for metric in metrics])
    competing = np.array([method != GROUND_TRUTH for method in methods], bool)
    finite = np.where(np.isfinite(values[:, competing]), values[:, competing] * sign, np.nan).reshape(-1, len(metrics))
    worst, best = (
        extreme.reduce(finite, axis=0) * sign if len(finite) else np.full(len(metrics), np.nan)
        for extreme in (np.fmin, np.fmax)
    )
    return CaseValues(
        benchmark, case_ids, identity_codes(of_benchmark), methods, metrics, sign, values,
        tried & np.isnan(values) & ~left_out, left_out, worst, best,
    )  # fmt: skip


def _sharing(a: CaseValues, b: CaseValues) -> dict[str, CaseValues]:
    """Return two benchmarks with the worst and the best value of both."""
    found = {}
    for mine, theirs in ((a, b), (b, a)):
        place = [theirs.metrics.index(name) if name in theirs.metrics else None for name in mine.metrics]
        worst, best = (
            np.array([np.nan if k is None else values[k] for k in place]) for values in (theirs.worst, theirs.best)
        )
        sign = mine.sign
        found[mine.benchmark] = replace(
            mine,
            worst=np.fmin(mine.worst * sign, worst * sign) * sign,
            best=np.fmax(mine.best * sign, best * sign) * sign,
        )
    return found


def identity_codes(cases: pd.DataFrame) -> NDArray[np.int64]:
    """Return one integer a case, equal for cases of one person; a case without identity stands for its target."""
    identity = cases["identity_id"]
    names = np.where(identity.isna(), "target " + cases["target_id"].astype(str), identity.astype(str))
    _, codes = np.unique(names.astype(str), return_inverse=True)
    return codes.astype(np.int64)


def _broken(restorations: pd.DataFrame | None) -> dict[str, list[tuple[str, str]]]:
    if restorations is None:
        return {}
    bad = restorations[restorations["status"] != "ok"]
    found: dict[str, list[tuple[str, str]]] = {}
    for benchmark, method, case_id in zip(bad["benchmark"], bad["method"], bad["case_id"], strict=True):
        found.setdefault(benchmark, []).append((method, case_id))
    return found
