"""How failures, infinite values and values that are left out count: one rule in all tables."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ffhqref.leaderboard import subgroups
from ffhqref.leaderboard.options import IdentityGate
from ffhqref.metrics.base import WHOLE_SET

from .conftest import report_of

UP, DOWN = {"psnr": True}, {"lpips": False}
INF = float("inf")


def joined(*parts):
    names = ("scores", "cases", "restorations")
    return SimpleNamespace(**{name: pd.concat([getattr(part, name) for part in parts]) for name in names})


def board_of(report):
    return report.leaderboard.set_index(["benchmark", "method", "metric"])


def set_status(made, method, metric, cases, status):
    rows = (made.scores["method"] == method) & (made.scores["metric"] == metric) & made.scores["case_id"].isin(cases)
    made.scores.loc[rows, ["value", "status"]] = [np.nan, status]


# A value that is infinite by definition


def test_a_perfect_output_counts_as_the_best_value_and_is_told(tables):
    made = tables({"perfect": {"psnr": [28.0, 30, INF]}, "other": {"psnr": [29.0, 30, 31]}})
    report = report_of(made, UP)
    row = board_of(report).loc[("severe", "perfect", "psnr")]
    assert row["mean"] == pytest.approx((28 + 30 + 31) / 3)
    assert (row["n"], row["n_failed"]) == (3, 0)
    assert "infinite by definition" in report.notes["severe"]["psnr"]
    assert "perfect 1 of 3 cases" in report.notes["severe"]["psnr"]
    assert "other" not in report.notes["severe"]["psnr"]


@pytest.mark.parametrize(
    ("metric", "higher", "value", "expected"),
    [("psnr", True, INF, 31.0), ("psnr", True, -INF, 28.0), ("lmd", False, INF, 31.0), ("lmd", False, -INF, 28.0)],
)
def test_the_sign_of_infinity_says_whether_it_is_good(tables, metric, higher, value, expected):
    made = tables({"a": {metric: [28.0, 31, value]}})
    block = report_of(made, {metric: higher}).blocks[0]
    assert block.filled[2, 0, 0] == expected


def test_where_all_is_perfect_the_mean_is_infinite_and_first(tables):
    made = tables({"a": {"psnr": [INF, INF]}, "b": {"psnr": [INF, INF]}})
    row = board_of(report_of(made, UP)).loc[("severe", "a", "psnr")]
    assert (row["mean"], row["rank"]) == (INF, 1)
    assert np.isnan(row["ci_low"])


def test_infinity_is_the_same_in_pairs_and_sub_groups(tables):
    made = tables({"a": {"psnr": [28.0, 30, INF, INF]}, "b": {"psnr": [29.0, 30, 31, 31]}})
    report = report_of(made, UP)
    pair = report.analysis.comparisons.iloc[0]
    assert pair["difference"] == pytest.approx(-0.25)
    means = report.subgroups[report.subgroups["method"] == "a"]["mean"]
    assert np.isfinite(means).all()


# Left out by the metric's rule


def test_left_out_counts_nowhere(tables):
    made = tables({"a": {"ids": [20.0] * 4 + [0.5] * 6}, "b": {"ids": [22.0] * 9 + [60.0]}})
    set_status(made, "a", "ids", [f"{k:05d}" for k in range(4, 10)], "left_out")
    report = report_of(made, {"ids": False})
    row = board_of(report).loc[("severe", "a", "ids")]
    assert (row["mean"], row["n"], row["n_failed"], row["rank"]) == (20.0, 4, 0, 1)
    assert "left out by the metric's definition: a 6 of 10 cases" in report.notes["severe"]["ids"]


def test_left_out_and_failed_in_one_column_are_told_apart(tables):
    made = tables({"a": {"ids": [20.0, 22, 24, 26]}, "b": {"ids": [30.0, 30, 30, 40]}})
    set_status(made, "a", "ids", ["00000"], "left_out")
    set_status(made, "a", "ids", ["00001"], "failed")
    report = report_of(made, {"ids": False})
    row = board_of(report).loc[("severe", "a", "ids")]
    assert row["mean"] == pytest.approx((40 + 24 + 26) / 3)
    assert (row["n"], row["n_failed"]) == (2, 1)
    detail = report.analysis.details.set_index(["method", "metric"]).loc[("a", "ids")]
    assert (detail["n_left_out"], detail["partial"]) == (1, False)


def test_an_output_that_failed_is_failed_though_its_score_was_left_out(tables):
    made = tables({"a": {"ids": [20.0, 22]}, "b": {"ids": [30.0, 30]}})
    set_status(made, "a", "ids", ["00000"], "left_out")
    bad = (made.restorations["method"] == "a") & (made.restorations["case_id"] == "00000")
    made.restorations.loc[bad, "status"] = "passthrough"
    assert board_of(report_of(made, {"ids": False})).loc[("severe", "a", "ids"), "n_failed"] == 1


# Failures


def test_failing_on_the_same_cases_in_both_conditions_is_no_difference(tables):
    rng = np.random.default_rng(0)
    values = [*rng.normal(0.8, 0.05, 24)]
    mine = [None] * 10 + values[10:]
    easy = tables({"a": {"ids": mine}, "b": {"ids": [*rng.uniform(0.5, 0.9, 24)]}}, benchmark="same_age")
    hard = tables({"a": {"ids": mine}, "b": {"ids": [*rng.uniform(0.1, 0.9, 24)]}}, benchmark="cross_age")
    report = report_of(joined(easy, hard), {"ids": True}, age_pairs={"ages": ("same_age", "cross_age")})
    found = report.age_comparisons["ages"].set_index("method").loc["a"]
    assert (found["difference"], found["ci_low"], found["ci_high"]) == (0, 0, 0)
    means = board_of(report)["mean"]
    assert means["same_age", "a", "ids"] == means["cross_age", "a", "ids"], "the board counts as the comparison does"


def test_values_of_0_and_1_with_a_failure_that_counts_as_neither_have_no_interval_of_shares(tables):
    """The worst value of both is that of the other benchmark; 0.3 passed for a hit."""
    same = tables({"a": {"hit": [1.0, 0, 1, 1, None]}}, benchmark="same_age")
    cross = tables({"a": {"hit": [0.3, -0.5, 0.9, 0.8, 0.7]}}, benchmark="cross_age")
    report = report_of(joined(same, cross), {"hit": True}, age_pairs={"ages": ("same_age", "cross_age")})
    row = board_of(report).loc[("same_age", "a", "hit")]
    assert row["mean"] == pytest.approx((3 - 0.5) / 5)
    assert row["ci_low"] < 0 < 1 < row["ci_high"], "few values: wide, and not bound to shares"
    alone = report_of(tables({"a": {"hit": [1.0, 0, 1, 1, None]}}), {"hit": True})
    assert board_of(alone).loc[("severe", "a", "hit"), "ci_low"] >= 0


@pytest.mark.parametrize(
    ("change", "compared"),
    [({}, True), ({"references": 1}, False), ({"reference_counts": [1, 2]}, False), ({"people": 3}, False),
     ({"split": "val"}, False), ({"degradation": "moderate"}, False), ({"id": "mine@1", "counts": None}, True)],
)  # fmt: skip
def test_ages_are_compared_where_nothing_else_differs(change, compared):
    from ffhqref.leaderboard.reading import _age_pairs

    cases = pd.DataFrame({"benchmark": [*"sscc"], "target_id": [*"abab"]})
    options = {"split": "test", "degradation": "severe", "references": 5}
    config = {"s": {**options, "ages": "same"}, "c": {**options, "ages": "cross", **change}}
    assert bool(_age_pairs(cases, config)) == compared


def test_failing_in_one_condition_is_a_difference(tables):
    easy = tables({"a": {"ids": [0.8, 0.8, 0.8]}, "b": {"ids": [0.5, 0.6, 0.7]}}, benchmark="same_age")
    hard = tables({"a": {"ids": [0.8, 0.8, None]}, "b": {"ids": [0.3, 0.6, 0.7]}}, benchmark="cross_age")
    report = report_of(joined(easy, hard), {"ids": True}, age_pairs={"ages": ("same_age", "cross_age")})
    found = report.age_comparisons["ages"].set_index("method").loc["a"]
    assert found["difference"] == pytest.approx((0.3 - 0.8) / 3)


def test_excluded_leaves_failures_out_of_every_comparison(tables):
    easy = tables({"a": {"ids": [0.8, 0.8, None, 0.9]}}, benchmark="same_age")
    hard = tables({"a": {"ids": [0.7, None, 0.5, 0.8]}}, benchmark="cross_age")
    report = report_of(
        joined(easy, hard), {"ids": True}, failures="excluded", age_pairs={"x": ("same_age", "cross_age")}
    )
    found = report.age_comparisons["x"].iloc[0]
    assert (found["n"], found["difference"]) == (2, pytest.approx(-0.1))
    assert (found["mean_first"], found["mean_second"]) == (pytest.approx(0.85), pytest.approx(0.75))
    groups = report.subgroups[report.subgroups["benchmark"] == "same_age"]
    assert groups.groupby("feature")["n"].sum().eq(3).all()


@pytest.mark.parametrize(("status", "mean"), [("left_out", 0.85), ("failed", (0.8 + 0.9 + 0.8) / 3)])
def test_a_mean_does_not_depend_on_the_others_where_the_metric_is_undefined(tables, status, mean):
    for others in ({}, {"b": {"ids": [0.85, 0.9, 0.9]}}):
        made = tables({"a": {"ids": [0.8, 0.9, 0.7]}, **others})
        for name in ("a", *others):
            set_status(made, name, "ids", ["00002"], status)
        found = board_of(report_of(made, {"ids": True})).loc[("severe", "a", "ids"), "mean"]
        assert found == pytest.approx(mean)


def test_a_method_that_made_nothing_has_no_mean_interval_or_rank(tables):
    made = tables({"a": {"psnr": [20.0, 22]}, "b": {"psnr": [18.0, 19]}, "dead": {"psnr": [None, None]}})
    for failures in ("worst", "excluded"):
        report = report_of(made, UP, failures=failures)
        row = board_of(report).loc[("severe", "dead", "psnr")]
        assert row[["mean", "ci_low", "ci_high", "rank"]].isna().all()
        assert (row["n"], row["n_failed"]) == (0, 2)
        assert "dead" not in {*report.analysis.comparisons["method_a"], *report.analysis.comparisons["method_b"]}


def test_excluded_does_not_rank_a_method_that_failed_on_the_hard_half(tables):
    made = tables({"good": {"psnr": [30.0, 30, 20, 20]}, "quitter": {"psnr": [29.0, 29, None, None]}})
    excluded = board_of(report_of(made, UP, failures="excluded"))
    assert excluded.loc[("severe", "quitter", "psnr"), "mean"] == 29
    assert pd.isna(excluded.loc[("severe", "quitter", "psnr"), "rank"])
    assert excluded.loc[("severe", "good", "psnr"), "rank"] == 1
    assert board_of(report_of(made, UP)).loc[("severe", "quitter", "psnr"), "rank"] == 2


# Direction


def gated(made, directions, metric, threshold):
    gate = IdentityGate(metric=metric, threshold=threshold)
    return report_of(made, directions, gate=gate).gate.set_index("method")["passed"].to_dict()


def test_the_gate_of_a_metric_that_is_better_when_low_is_a_ceiling(tables):
    made = tables({"sharp": {"niqe": [5.0, 6]}, "blurred": {"niqe": [9.0, 8]}})
    assert gated(made, {"niqe": False}, "niqe", 7) == {"sharp": True, "blurred": False}


def test_the_gate_of_a_similarity_is_a_floor(tables):
    made = tables({"same": {"ids": [0.8, 0.9]}, "other": {"ids": [0.1, 0.2]}})
    assert gated(made, {"ids": True}, "ids", 0.5) == {"same": True, "other": False}


@pytest.mark.parametrize(("higher", "passed"), [(False, {"a": True, "b": False}), (True, {"a": False, "b": True})])
def test_a_metric_of_whole_sets_can_be_the_gate(tables, higher, passed):
    made = tables({"a": {"psnr": [20.0, 21]}, "b": {"psnr": [20.0, 21]}})
    whole = [(m, "severe", "*", "set", v, "ok") for m, v in (("a", 30.0), ("b", 90.0))]
    made.scores = pd.concat([made.scores, pd.DataFrame(whole, columns=made.scores.columns)])
    assert gated(made, {"psnr": True, "set": higher}, "set", 50) == passed


@pytest.mark.parametrize("higher", [True, False])
def test_failures_and_ranks_follow_the_direction(tables, higher):
    made = tables({"a": {"m": [1.0, 2, None]}, "b": {"m": [5.0, 6, 7]}})
    report = report_of(made, {"m": higher})
    assert report.blocks[0].filled[2, 0, 0] == (1 if higher else 7)
    assert board_of(report).loc[("severe", "b", "m"), "rank"] == (1 if higher else 2)


# Sub-groups in the embedder's own scale


@pytest.mark.parametrize(("max_distance", "groups"), [(0.048, 4), (0.4, 1), (None, 4)])
def test_distances_are_cut_in_the_scale_of_the_embedder(tables, max_distance, groups):
    made = tables({"a": {"psnr": [20.0, 21, 22, 23]}})
    features = made.cases[["benchmark", "case_id"]].assign(best_distance=[0.01, 0.02, 0.03, 0.046])
    found = subgroups.bins(features, max_distance=max_distance)
    assert found["order"].nunique() == groups


def test_judges_count_failures_themselves(tables):
    """The mean rank and the verification rate hold a failure as refused: a method that fails keeps its place."""
    made = tables({"a": {"ids": [0.9, 0.9, None]}, "b": {"ids": [0.2, 0.2, 0.2]}, "part": {"ids": [0.9, 0.9, 0.9]}})
    run = [
        frame[(frame["method"] != "part") | (frame["case_id"] != "00002")] for frame in (made.scores, made.restorations)
    ]
    whole = {"ids_jury": (1.33, 1.67, 1.0), "ids_tar": (0.67, 0.0, 1.0), "fid": (3.0, 4.0, 5.0)}
    rows = [
        (method, "severe", WHOLE_SET, metric, value, "ok")
        for metric, values in whole.items()
        for method, value in zip(("a", "b", "part"), values, strict=True)
    ]
    made.scores = pd.concat([run[0], pd.DataFrame(rows, columns=made.scores.columns)], ignore_index=True)
    made.restorations = run[1]
    directions = {"ids": True, "ids_jury": False, "ids_tar": True, "fid": False}
    ranks = board_of(report_of(made, directions))["rank"].dropna().astype(int).to_dict()
    of = {metric: {m: ranks[key] for key in ranks for m in key[1:2] if key[2] == metric} for metric in directions}
    assert of["ids_jury"] == of["ids_tar"] == of["ids"] == {"a": 1, "b": 2}
    assert of["fid"] == {"b": 1}, "a distance cannot count what is not there"


def test_one_value_beside_failures_has_no_interval(tables):
    """They count as that value, so the interval would have no width."""
    row = board_of(report_of(tables({"a": {"psnr": [32.5, None, None]}}), UP)).loc[("severe", "a", "psnr")]
    assert (row["mean"], row["n"], row["n_failed"]) == (32.5, 1, 2)
    assert np.isnan([row["ci_low"], row["ci_high"]]).all()
