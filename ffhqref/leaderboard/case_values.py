"""Tables of scores, cases and restorations as arrays, one set for each benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import TableError
from ffhqref.metrics.scoring import GROUND_TRUTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

CASE = ["benchmark", "case_id"]
"""Columns that name a case."""

WHOLE_SET = "*"
"""``case_id`` of a score that belongs to a whole benchmark and has no value a case, such as FID."""


@dataclass(frozen=True)
class CaseValues:
    """Scores of one benchmark as arrays: values and states are [cases, methods, metrics]."""

    benchmark: str
    case_ids: list[str]
    identities: NDArray[np.int64]
    methods: list[str]
    metrics: list[str]
    values: NDArray[np.float64]
    """NaN where there is no value."""
    failed: NDArray[np.bool_]
    """The method was run on the case and has no usable output or value."""

    @property
    def ranked(self) -> NDArray[np.bool_]:
        """Methods that compete, [methods]: all but the ceiling row."""
        return np.array([method != GROUND_TRUTH for method in self.methods], dtype=bool)

    def signs(self, directions: Mapping[str, bool]) -> NDArray[np.float64]:
        """Return 1 for each metric that is better when high and -1 for the others, [metrics]."""
        return np.array([1.0 if directions[metric] else -1.0 for metric in self.metrics])

    def filled(self, sign: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values with each failure replaced by the worst value that a competing method has.

        Args:
            sign: [metrics], 1 where higher is better and -1 elsewhere.
        """
        signed = np.where(self.ranked[None, :, None], self.values * sign, np.nan).reshape(-1, len(self.metrics))
        worst = np.fmin.reduce(signed, axis=0) if len(signed) else np.full(len(self.metrics), np.nan)
        return np.where(self.failed, (worst * sign)[None, None, :], self.values)


def case_values(
    scores: pd.DataFrame, cases: pd.DataFrame, restorations: pd.DataFrame | None = None
) -> Iterator[CaseValues]:
    """Yield the scores of each benchmark as arrays, benchmarks, methods, metrics and cases in sorted order.

    Raises:
        TableError: scores of cases that ``cases`` does not hold.
    """
    single = scores[scores["case_id"] != WHOLE_SET]
    broken = _broken(restorations)
    for benchmark, part in single.groupby("benchmark", sort=True, observed=True):
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
        lost_case = np.zeros(shape[:2], bool)
        for method, case_id in broken.get(str(benchmark), ()):
            if method in methods and case_id in place:
                lost_case[place[case_id], methods.index(method)] = True
        values = np.full(shape, np.nan)
        values[where] = np.where((status == "ok") & np.isfinite(value), value, np.nan)
        values[lost_case] = np.nan
        tried = np.zeros(shape, bool)
        tried[where] = status != "unavailable"
        failed = tried & np.isnan(values)
        competes = np.array([method != GROUND_TRUTH for method in methods])
        healthy = (tried & ~lost_case[:, :, None])[:, competes]
        undefined = (healthy.sum(axis=1) >= 2) & ~np.isfinite(values[:, competes]).any(axis=1)
        failed &= ~undefined[:, None, :]
        yield CaseValues(
            str(benchmark), case_ids, identity_codes(of_benchmark), methods, metrics, values, failed
        )  # fmt: skip


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
