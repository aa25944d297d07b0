"""What the page's scripts read: one JSON object and packed little-endian float32 arrays."""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.leaderboard.case_values import CaseValues


def script_json(value: Any) -> str:
    """Return JSON that may stand in a ``<script>`` element: no tag or comment can begin inside it."""
    text = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def packed(values: NDArray[Any]) -> str:
    """Return an array as base64 of little-endian float32, in C order."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not know, by null; NumPy scalars by Python's."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def benchmark_payload(
    block: CaseValues, cases: pd.DataFrame, features: pd.DataFrame | None, restorations: pd.DataFrame
) -> dict[str, Any]:
    """Return what the case browser and the plots need of one benchmark; its values follow in a packed array."""
    mine = cases[cases["benchmark"] == block.benchmark].sort_values("case_id", ignore_index=True)
    person = mine["identity_id"].astype(object).where(mine["identity_id"].notna(), None)
    about: dict[str, list[Any]] = {"age": _column(mine["age"]), "age_gap": _column(mine["age_gap"])}
    if features is not None:
        of_case = features[features["benchmark"] == block.benchmark].set_index("case_id").reindex(mine["case_id"])
        for name in features.columns.difference(["benchmark", "case_id", "age_gap"]):
            about[str(name)] = _column(of_case[name])
    place = {case_id: index for index, case_id in enumerate(block.case_ids)}
    column = {method: index for index, method in enumerate(block.methods)}
    errors: dict[str, str] = {}
    bad = restorations[(restorations["benchmark"] == block.benchmark) & (restorations["status"] != "ok")]
    for row in bad.to_dict("records"):
        if row["case_id"] in place and row["method"] in column:
            reason = row["error"] if isinstance(row["error"], str) else ""
            errors[f"{place[row['case_id']]},{column[row['method']]}"] = f"{row['status']}: {reason}".rstrip(": ")
    return {
        "name": block.benchmark,
        "cases": block.case_ids,
        "targets": mine["target_id"].tolist(),
        "people": [None if value is None else int(value) for value in person],
        "groups": block.identities.tolist(),
        "methods": block.methods,
        "metrics": block.metrics,
        "about": about,
        "errors": errors,
        "states": _states(block),
    }


def _states(block: CaseValues) -> dict[str, str]:
    """Return the place in the flat values of each that is missing to why."""
    found = dict.fromkeys(np.flatnonzero(block.failed.ravel()).tolist(), "failed")
    found |= dict.fromkeys(np.flatnonzero(block.left_out.ravel()).tolist(), "left out")
    return {str(place): state for place, state in found.items()}


def comparison_payload(comparisons: pd.DataFrame, methods: list[str], metrics: list[str]) -> str:
    """Return packed ``difference, low, high, p`` [metrics, methods, methods, 4]; a minus b at [a, b], NaN unknown."""
    values = np.full((len(metrics), len(methods), len(methods), 4), np.nan, np.float32)
    if len(comparisons):
        place = {name: index for index, name in enumerate(methods)}
        a, b = (comparisons[side].map(place).to_numpy(np.int64) for side in ("method_a", "method_b"))
        k = comparisons["metric"].map({name: index for index, name in enumerate(metrics)}).to_numpy(np.int64)
        facts = comparisons[["difference", "low", "high", "p_adjusted"]].to_numpy(np.float64)
        values[k, a, b] = facts
        values[k, b, a] = facts[:, [0, 2, 1, 3]] * np.array([-1, -1, -1, 1])
    return packed(values)


def subgroup_payload(subgroups: pd.DataFrame, methods: list[str], metrics: list[str]) -> list[dict[str, Any]]:
    """Return for each feature its groups and packed ``mean, low, high`` [groups, methods, metrics, 3]."""
    found = []
    row_of = {name: index for index, name in enumerate(methods)}
    column_of = {name: index for index, name in enumerate(metrics)}
    for feature, part in subgroups.groupby("feature", sort=True):
        groups = part.drop_duplicates("order").sort_values("order")
        place = {order: index for index, order in enumerate(groups["order"])}
        values = np.full((len(groups), len(methods), len(metrics), 3), np.nan, np.float32)
        where = (
            part["order"].map(place).to_numpy(np.int64),
            part["method"].map(row_of).to_numpy(np.int64),
            part["metric"].map(column_of).to_numpy(np.int64),
        )
        values[where] = part[["mean", "low", "high"]].to_numpy(np.float64)
        sizes = part.groupby("order")["n"].max()
        found.append(
            {
                "feature": feature,
                "groups": groups["group"].tolist(),
                "n": [int(sizes[order]) for order in groups["order"]],
                "values": packed(values),
            }
        )
    return found


def _column(values: pd.Series[Any]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 4) for value in values.astype(float)]
