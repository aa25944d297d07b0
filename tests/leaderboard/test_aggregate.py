"""Means, failures, ranks and comparisons against hand-computed values."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ffhqref.core.errors import ConfigError, TableError
from ffhqref.core.options import read_options
from ffhqref.leaderboard import subgroups
from ffhqref.leaderboard.methods import MethodFacts
from ffhqref.leaderboard.options import IdentityGate, ReportOptions
from ffhqref.leaderboard.published import BenchmarkInfo
from ffhqref.leaderboard.summary import pareto
from ffhqref.restorers.base import RestorerInfo
from ffhqref.store.tables import to_arrow

from .conftest import report_of

UP, DOWN = {"psnr": True}, {"lpips": False}


def run(made, directions, **options):
    return report_of(made, directions, **options).analysis


def joined(*parts):
    """Tables of several benchmarks as one."""
    names = ("scores", "cases", "restorations")
    return SimpleNamespace(**{name: pd.concat([getattr(part, name) for part in parts]) for name in names})


def row(frame, method, metric="psnr"):
    return frame[(frame["method"] == method) & (frame["metric"] == metric)].iloc[0]


def test_means_and_ranks_by_hand(tables):
    made = tables({"a": {"psnr": [20.0, 22, 24]}, "b": {"psnr": [21.0, 23, 25]}, "c": {"psnr": [10.0, 10, 10]}})
    board = run(made, UP).leaderboard
    assert [row(board, m)["mean"] for m in "abc"] == [22.0, 23.0, 10.0]
    assert [row(board, m)["rank"] for m in "abc"] == [2, 1, 3]
    # Three people cannot decide at 5 %: every order stays open.
    assert [(row(board, m)["rank_low"], row(board, m)["rank_high"]) for m in "abc"] == [(1, 3)] * 3
    to_arrow("leaderboard", board)


def test_lower_is_better_turns_the_ranks(tables):
    board = run(tables({"a": {"lpips": [0.1, 0.2]}, "b": {"lpips": [0.3, 0.4]}}), DOWN).leaderboard
    assert row(board, "a", "lpips")["rank"] == 1


def test_ceiling_is_shown_and_never_ranked(tables):
    made = tables({"a": {"niqe": [5.0, 6]}, "b": {"niqe": [7.0, 8]}, "ground-truth": {"niqe": [3.0, 4]}})
    found = run(made, {"niqe": False})
    ceiling = row(found.leaderboard, "ground-truth", "niqe")
    assert ceiling["mean"] == 3.5
    assert pd.isna(ceiling["rank"])
    assert pd.isna(ceiling["seconds_per_image"])
    assert row(found.leaderboard, "a", "niqe")["rank"] == 1
    assert "ground-truth" not in {*found.comparisons["method_a"], *found.comparisons["method_b"]}


def test_failures_count_as_worst_value_or_are_left_out(tables):
    made = tables({"a": {"psnr": [30.0, 30, None, 30]}, "b": {"psnr": [20.0, 24, 25, 26]}})
    worst, excluded = run(made, UP), run(made, UP, failures="excluded")
    assert row(worst.leaderboard, "a")["mean"] == (30 * 3 + 20) / 4
    assert row(excluded.leaderboard, "a")["mean"] == 30
    for found in (worst, excluded):
        assert (row(found.leaderboard, "a")["n"], row(found.leaderboard, "a")["n_failed"]) == (3, 1)
        assert row(found.details, "a")["mean_worst"] == 27.5
        assert row(found.details, "a")["mean_excluded"] == 30


def test_worst_value_of_a_metric_that_is_better_when_low(tables):
    made = tables({"a": {"lpips": [0.1, None]}, "b": {"lpips": [0.2, 0.6]}})
    assert row(run(made, DOWN).leaderboard, "a", "lpips")["mean"] == pytest.approx(0.35)


def test_a_silent_pass_through_is_a_failure_whatever_it_scored(tables):
    made = tables({"a": {"psnr": [30.0, 90]}, "b": {"psnr": [20.0, 20]}})
    bad = (made.restorations["method"] == "a") & (made.restorations["case_id"] == "00001")
    made.restorations.loc[bad, "status"] = "passthrough"
    found = row(run(made, UP).leaderboard, "a")
    assert (found["mean"], found["n"], found["n_failed"]) == (25.0, 1, 1)


def test_a_case_left_out_by_the_metric_is_no_failure(tables):
    made = tables({"a": {"ids": [0.5, 0.7], "psnr": [1.0, 1]}, "b": {"ids": [0.4, 0.2], "psnr": [1.0, 1]}})
    gone = (made.scores["metric"] == "ids") & (made.scores["case_id"] == "00001")
    made.scores.loc[gone, ["value", "status"]] = [np.nan, "left_out"]
    found = row(run(made, {"ids": True, "psnr": True}).leaderboard, "a", "ids")
    assert (found["mean"], found["n"], found["n_failed"]) == (0.5, 1, 0)


def test_a_method_run_on_a_part_is_shown_without_rank(tables):
    made = tables({"a": {"psnr": [20.0, 22, 24]}, "b": {"psnr": [19.0, 21, 23]}, "slow": {"psnr": [40.0, 40, 40]}})
    for name in ("scores", "restorations"):
        frame = getattr(made, name)
        setattr(made, name, frame[(frame["method"] != "slow") | (frame["case_id"] == "00000")])
    found = run(made, UP)
    assert row(found.leaderboard, "slow")["mean"] == 40
    assert pd.isna(row(found.leaderboard, "slow")["rank"])
    assert row(found.details, "slow")["partial"]
    assert row(found.leaderboard, "a")["rank"] == 1


def test_unavailable_metrics_have_rows_without_value(tables):
    made = tables({"a": {"psnr": [20.0, 22], "musiq": [1.0, 1]}})
    made.scores.loc[made.scores["metric"] == "musiq", ["value", "status"]] = [np.nan, "unavailable"]
    found = row(run(made, {"psnr": True, "musiq": True}).leaderboard, "a", "musiq")
    assert np.isnan(found["mean"])
    assert (found["n"], found["n_failed"]) == (0, 0)
    assert pd.isna(found["rank"])


def test_metrics_of_a_whole_set(tables):
    made = tables({"a": {"psnr": [20.0]}, "b": {"psnr": [21.0]}})
    whole = pd.DataFrame(
        [("a", "severe", "*", "fid", 30.0, "ok"), ("b", "severe", "*", "fid", 50.0, "ok")],
        columns=made.scores.columns,
    )
    made.scores = pd.concat([made.scores, whole], ignore_index=True)
    board = run(made, {"psnr": True, "fid": False}).leaderboard
    best = row(board, "a", "fid")
    assert (best["mean"], best["rank"], best["rank_low"], best["rank_high"]) == (30.0, 1, 1, 2)
    assert np.isnan(best["ci_low"])
    assert (best["n"], best["n_failed"]) == (1, 0)


def test_a_set_distance_on_fewer_pictures_is_not_ranked(tables):
    made = tables({"a": {"psnr": [20.0, 21, None]}, "b": {"psnr": [21.0, 22, 20]}, "c": {"psnr": [19.0, 20, 18]}})
    made.cases.loc[0, "gt_path"] = None
    whole = [
        ("a", 30.0, "ok"),
        ("b", 50.0, "ok"),
        ("c", 40.0, "ok"),
        ("ground-truth", 9.0, "ok"),
        ("d", None, "failed"),
    ]
    rows = [(method, "severe", "*", "fid", value, status) for method, value, status in whole]
    made.scores = pd.concat([made.scores, pd.DataFrame(rows, columns=made.scores.columns)], ignore_index=True)
    board = run(made, {"psnr": True, "fid": False}).leaderboard
    found = {method: row(board, method, "fid") for method, *_ in whole}
    assert {method: (one["n"], one["n_failed"]) for method, one in found.items()} == {
        "a": (2, 1), "b": (3, 0), "c": (3, 0), "ground-truth": (2, 0), "d": (0, 1),
    }  # fmt: skip
    ranks = {method: None if pd.isna(one["rank"]) else one["rank"] for method, one in found.items()}
    assert ranks == {"a": None, "b": 2, "c": 1, "ground-truth": None, "d": None}


def test_clear_differences_are_found_and_named(tables):
    rng = np.random.default_rng(0)
    base = rng.normal(25, 3, 40)
    made = tables(
        {
            "good": {"psnr": [*(base + 1 + rng.normal(0, 0.3, 40))]},
            "twin": {"psnr": [*(base + 1 + rng.normal(0, 0.3, 40))]},
            "bad": {"psnr": [*base]},
        }
    )
    found = run(made, UP, n_bootstrap=1000)
    pairs = {frozenset((r.method_a, r.method_b)): r for r in found.comparisons.itertuples()}
    assert pairs[frozenset(("good", "bad"))].better == "good"
    assert pd.isna(pairs[frozenset(("good", "twin"))].better)
    # The pairing removes the spread of the cases, which is ten times the difference between twins.
    assert row(found.leaderboard, "bad")["rank_low"] == 3
    assert {row(found.leaderboard, m)["rank_high"] for m in ("good", "twin")} == {2}


def test_result_does_not_depend_on_row_order(tables):
    rng = np.random.default_rng(1)
    made = tables({m: {"psnr": [*rng.normal(25, 1, 12)]} for m in "abc"}, people=[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    first = run(made, UP).leaderboard
    for name in ("scores", "cases", "restorations"):
        setattr(made, name, getattr(made, name).sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(first, run(made, UP).leaderboard)


def test_wrong_input_is_named(tables):
    made = tables({"a": {"psnr": [20.0, 22]}})
    with pytest.raises(ConfigError, match=r"no direction.*psnr"):
        run(made, {})
    with pytest.raises(ConfigError, match=r"report\.failures=ignore: expected worst or excluded"):
        read_options(ReportOptions, {"failures": "ignore"}, "report")
    made.cases = made.cases[:1]
    with pytest.raises(TableError, match=r"1 rows of benchmark 'severe'.*'00001'"):
        run(made, UP)


def test_leak_marks(tables):
    made = tables({"leaky": {"psnr": [20.0]}, "clean": {"psnr": [21.0]}})
    methods = {
        "leaky": MethodFacts(RestorerInfo("leaky", trained_on=("FFHQ",))),
        "clean": MethodFacts(RestorerInfo("clean", trained_on=("FFHQ-Ref train", "ImageNet"))),
    }
    tested = {"severe": BenchmarkInfo("severe", "FFHQ-Ref test", people_from="FFHQ")}
    board = run(made, UP, methods=methods, benchmarks=tested).leaderboard
    assert row(board, "leaky")["leak"] == "trained on FFHQ, whose people are tested here"
    assert pd.isna(row(board, "clean")["leak"])
    sample = {"severe": BenchmarkInfo("severe", "sample")}
    board = run(made, UP, methods=methods, benchmarks=sample).leaderboard
    assert board["leak"].isna().all()


def test_pareto_against_its_definition():
    values = np.random.default_rng(2).integers(0, 4, size=(40, 3)).astype(float)
    ways = [True, False, True]
    signed = values * [1, -1, 1]
    expected = [not any((q >= p).all() and (q > p).any() for q in signed) for p in signed]
    assert pareto(values, ways).tolist() == expected
    assert not pareto(np.array([[np.nan, 1.0], [0.0, 0.0]]), [True, True])[0]


def test_identity_gate_comes_before_quality(tables):
    made = tables(
        {
            "pretty": {"ids": [0.2, 0.1, 0.9, 0.2], "musiq": [90.0] * 4},
            "faithful": {"ids": [0.9, 0.8, 0.7, 0.6], "musiq": [60.0] * 4},
            "also": {"ids": [0.9, 0.9, 0.9, 0.9], "musiq": [50.0] * 4},
        }
    )
    gate = IdentityGate(metric="ids", threshold=0.5, max_missed_share=0.25)
    report = report_of(made, {"ids": True, "musiq": True}, gate=gate, quality=("musiq",))
    gated = report.gate.set_index("method")
    assert gated["missed_share"].to_dict() == {"pretty": 0.75, "faithful": 0.0, "also": 0.0}
    assert gated.loc["faithful", "mean_rank"] == 1
    assert gated.loc["also", "mean_rank"] == 2
    assert np.isnan(gated.loc["pretty", "mean_rank"])
    other = IdentityGate(metric="adaface", threshold=0.5)
    assert report_of(made, {"ids": True, "musiq": True}, gate=other).gate is None


def test_subgroup_means_by_hand(tables):
    made = tables({"a": {"psnr": [20.0, 22, 24, 26]}, "b": {"psnr": [1.0, 2, 3, 4]}})
    made.cases["age_gap"] = np.array([-2, 3, 12, -18], np.float32)
    groups = subgroups.bins(subgroups.case_features(made.cases)[["benchmark", "case_id", "age_gap"]])
    found = subgroups.subgroup_means(report_of(made, UP).blocks, groups, UP, n_bootstrap=100)
    of_a = found[found["method"] == "a"].set_index("group")
    assert of_a["mean"].to_dict() == {"0–5 y": 21.0, "10–20 y": 25.0}
    assert of_a["n"].to_dict() == {"0–5 y": 2, "10–20 y": 2}


def test_pose_groups_equal_brute_force(tables):
    rng = np.random.default_rng(3)
    n = 60
    psnr, yaw = rng.normal(25, 3, n), rng.uniform(-89, 89, n).round(1)
    yaw[:6] = [0, -10, 10, 30, -45, 20]  # on the edges
    made = tables({"a": {"psnr": [*psnr]}, "b": {"psnr": [*(psnr - 1)]}}, people=[k // 3 for k in range(n)])
    ids = made.cases["case_id"]
    rows = [(image_id, "head_yaw", str(value)) for image_id, value in zip(ids[:-1], yaw[:-1], strict=True)]
    rows += [(image_id, "gender", "female") for image_id in ids]
    rows += [(image_id, "smile", str(value)) for image_id, value in zip(ids, rng.uniform(0, 1, n), strict=True)]
    rows += [(image_id, "age", "3") for image_id in ids] + [("not a target", "head_yaw", "left")]
    attributes = pd.DataFrame(rows, columns=["image_id", "attribute", "value"])
    attributes["path"] = "gt/" + attributes["image_id"] + ".png"
    features = subgroups.case_features(made.cases, attributes=attributes)
    known = {"benchmark", "case_id", "age_gap", "n_references", "best_distance", "strength"}
    assert set(features.columns) - known == {"head_yaw", "smile"}
    assert np.isnan(features["head_yaw"].iloc[-1])
    groups = subgroups.bins(features)
    found = subgroups.subgroup_means(report_of(made, UP).blocks, groups, UP, n_bootstrap=20)
    found = found[(found["feature"] == "head_yaw") & (found["method"] == "a")].set_index("group")
    expected = {}
    for low, high in ((0, 10), (10, 20), (20, 30), (30, 45), (45, 90)):
        inside = [k for k in range(n - 1) if low <= abs(yaw[k]) < high]
        expected[f"{low}–{high}°"] = (len(inside), np.mean([psnr[k] for k in inside]))
    assert found["n"].to_dict() == {group: count for group, (count, _) in expected.items()}
    assert found["mean"].to_dict() == pytest.approx({group: mean for group, (_, mean) in expected.items()})
    assert groups[groups["feature"] == "smile"].groupby("order").size().tolist() == [12] * 5


def test_an_image_from_outside_borrows_nothing_from_its_namesake(tables):
    made = tables({"a": {"psnr": [20.0, 22, 24]}})
    made.cases["reference_paths"] = [["data/a.png"]] * 3
    made.cases.loc[1, "gt_path"] = None
    made.cases.loc[2, "gt_path"] = "w/gt/mine/00002.png"  # a folder of one's own with a name of the data set in it
    names = ["00000", "00001", "00002"]
    references = pd.DataFrame({"target_id": names, "path": "data/a.png", "rank": 0, "distance": [0.3, 0.3, 0.3]})
    attributes = pd.DataFrame({"path": [f"gt/{name}.png" for name in names], "attribute": "smile", "value": [*"123"]})
    features = subgroups.case_features(made.cases, references, attributes=attributes)
    assert features["smile"].tolist() == pytest.approx([1, np.nan, np.nan], nan_ok=True)
    assert features["best_distance"].tolist()[:2] == pytest.approx([0.3, np.nan], nan_ok=True)


def test_features_know_references_and_degradation(tables):
    made = tables({"a": {"psnr": [20.0, 22]}})
    made.cases["reference_paths"] = [["data/x/a.png", "data/x/b.png"], ["data/x/c.png"]]
    references = pd.DataFrame(
        {
            "target_id": ["00000", "00000", "00001"], "path": ["data/x/a.png", "data/x/b.png", "data/x/c.png"],
            "rank": [0, 1, 0], "distance": [0.3, 0.2, 0.35],
        }
    )  # fmt: skip
    degradations = pd.DataFrame(
        {
            "target_id": ["00000", "00001"], "level": "severe", "sigma_x": [1.0, 9.0], "sigma_y": [1.0, 9.0],
            "scale": [2.0, 8.0], "noise_sigma": [1.0, 15.0], "jpeg_quality": [90, 40],
            "lq_path": made.cases["lq_path"].tolist(),
        }
    )  # fmt: skip
    features = subgroups.case_features(made.cases, references, degradations)
    assert features["best_distance"].tolist() == [0.2, 0.35]
    assert features["n_references"].tolist() == [2, 1]
    assert features["strength"].tolist() == [0.5, 1.0]


def test_the_best_reference_is_one_that_the_case_has(tables):
    made = tables({"a": {"psnr": [20.0, 22, 21, 23, 24]}})
    made.cases["reference_paths"] = [
        ["/data/a.png"],  # the list was cut: b, which is nearer, is not used
        ["/data/a.png", "/data/of_age_set.png"],
        ["/data/of_age_set.png"],
        ["/data/x/1.png"],  # its id is x_1, that of /data/1.png is 1
        [],
    ]
    rows = [(target, path, distance) for target in made.cases["target_id"] for path, distance in
            (("/data/a.png", 0.3), ("/data/b.png", 0.2), ("/data/x/1.png", 0.25), ("/data/1.png", 0.1),
             ("/data/nothing.png", None))]  # fmt: skip
    references = pd.DataFrame(rows, columns=["target_id", "path", "distance"])
    found = subgroups.case_features(made.cases, references)["best_distance"]
    assert found.tolist() == pytest.approx([0.3, 0.3, np.nan, 0.25, np.nan], nan_ok=True)


def test_same_targets_under_two_conditions(tables):
    rng = np.random.default_rng(3)
    easy = rng.normal(30, 5, 30)
    same = tables({"a": {"psnr": [*easy]}}, benchmark="same_age")
    cross = tables({"a": {"psnr": [*(easy - 1 + rng.normal(0, 0.1, 30))]}}, benchmark="cross_age")
    cross.cases = cross.cases[:-5]  # five targets have no cross-age references
    keep = set(cross.cases["case_id"])
    cross.scores = cross.scores[cross.scores["case_id"].isin(keep)]
    report = report_of(joined(same, cross), UP, n_bootstrap=2000)
    found = subgroups.paired_benchmarks(report, "same_age", "cross_age").iloc[0]
    assert found["n"] == 25
    assert found["difference"] == pytest.approx(-1, abs=0.1)
    assert found["p_adjusted"] < 0.01, "the pairing must remove the spread between targets"
    with pytest.raises(ConfigError, match="no scores of benchmark elsewhere"):
        subgroups.paired_benchmarks(report, "same_age", "elsewhere")
