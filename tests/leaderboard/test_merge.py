"""Merging workspaces: what agrees is joined, what does not is refused in one line."""

import dataclasses

import pandas as pd
import pytest

from ffhqref.core.errors import TableError
from ffhqref.leaderboard.merge import merge_reports
from ffhqref.leaderboard.methods import MethodFacts
from ffhqref.leaderboard.options import ReportOptions
from ffhqref.leaderboard.published import BenchmarkInfo
from ffhqref.leaderboard.render import markdown_tables
from ffhqref.leaderboard.report import Report
from ffhqref.leaderboard.report_data import MetricFacts
from ffhqref.restorers.base import RestorerInfo

INFO = BenchmarkInfo("severe", "FFHQ-Ref test", "Severe", 5, 4, protocol_hash="a" * 64)

PSNR = MetricFacts(True, "psnr|rgb|v1")


@pytest.fixture
def pair(tables):
    def workspace(name, values):
        made = tables(values)
        return Report(
            name,
            made.scores,
            made.cases,
            made.restorations,
            {"psnr": PSNR},
            {"severe": INFO},
            options=ReportOptions(n_bootstrap=50),
        )

    one = workspace("one", {"a": {"psnr": [20.0, 21, 22, 23]}, "lq": {"psnr": [1.0, 2, 3, 4]}})
    two = workspace("two", {"b": {"psnr": [30.0, 31, 32, 33]}, "lq": {"psnr": [1.0, 2, 3, 4]}})
    return one, two


def test_methods_of_two_workspaces_are_ranked_together(pair):
    both = merge_reports(pair)
    assert both.leaderboard.set_index("method")["rank"].dropna().to_dict() == {"b": 1, "a": 2}
    assert len(both.cases) == 4
    assert both.name == "one + two"


def test_other_metric_signature_is_refused(pair):
    other = dataclasses.replace(pair[1], metrics={"psnr": MetricFacts(True, "psnr|y|v1")})
    with pytest.raises(TableError, match=r"metric 'psnr' is not the same in one \(psnr\|rgb\|v1\) and two") as caught:
        merge_reports([pair[0], other])
    assert "\n" not in str(caught.value)


def test_ranks_among_one_workspaces_own_methods_are_left_out(pair):
    def judged(report, method):
        row = {
            "method": method,
            "benchmark": "severe",
            "case_id": "*",
            "metric": "ids_jury",
            "value": 1.0,
            "status": "ok",
        }
        metrics = {**report.metrics, "ids_jury": MetricFacts(False, f"ids_jury|among {method}, lq|v1")}
        scores = pd.concat([report.scores, pd.DataFrame([row])], ignore_index=True)
        return dataclasses.replace(report, scores=scores, metrics=metrics)

    both = merge_reports([judged(pair[0], "a"), judged(pair[1], "b")])
    assert set(both.leaderboard["metric"]) == {"psnr"}
    assert merge_reports(pair).leaderboard.equals(both.leaderboard)


def test_other_protocol_is_refused(pair):
    info = dataclasses.replace(INFO, protocol_hash="b" * 64)
    with pytest.raises(TableError, match=r"benchmark 'severe' has another protocol in two .*bbbbbbbbbbbb"):
        merge_reports([pair[0], dataclasses.replace(pair[1], benchmarks={"severe": info})])


def test_one_id_for_two_contents_is_refused_and_an_id_is_printed(pair):
    infos = [dataclasses.replace(INFO, id="mine@1", definition=letter * 64) for letter in "ab"]
    one, two = (
        dataclasses.replace(report, benchmarks={"severe": info}) for report, info in zip(pair, infos, strict=True)
    )
    with pytest.raises(TableError, match=r"mine@1 stands for something else in two \(definition bbbbbbbbbbbb\)"):
        merge_reports([one, two])
    assert one.notes["severe"]["benchmark"] == "mine@1, definition aaaaaaaaaaaa"
    assert "benchmark: mine@1, definition aaaaaaaaaaaa." in markdown_tables(one.leaderboard, one.notes)


def test_other_cases_are_refused(pair):
    two = pair[1]
    fewer = dataclasses.replace(two, cases=two.cases[:3], scores=two.scores[two.scores["case_id"] != "00003"])
    with pytest.raises(TableError, match="other cases in two: 0 only there, 1 missing"):
        merge_reports([pair[0], fewer])


def test_other_scores_of_one_method_are_refused(pair):
    scores = pair[1].scores.copy()
    scores.loc[scores["method"] == "lq", "value"] += 1
    with pytest.raises(TableError, match="two holds another value for method 'lq'"):
        merge_reports([pair[0], dataclasses.replace(pair[1], scores=scores)])


def test_nothing_to_merge():
    with pytest.raises(TableError, match="nothing to merge"):
        merge_reports([])


def test_a_metric_without_weights_in_one_takes_the_values_of_the_other(pair):
    one, two = pair
    scores = one.scores.copy()
    scores.loc[scores["method"] == "lq", ["value", "status"]] = [None, "unavailable"]
    niqe = MetricFacts(False, unavailable="none")
    lost = dataclasses.replace(
        one, scores=scores, metrics={"psnr": MetricFacts(True, unavailable="no weights"), "niqe": niqe}
    )
    info = dataclasses.replace(INFO, notes={"fid": "n=4"})
    two = dataclasses.replace(two, metrics={"psnr": PSNR, "niqe": niqe}, benchmarks={"severe": info})
    for order in ([lost, two], [two, lost]):
        both = merge_reports(order)
        found = both.scores[both.scores["method"] == "lq"].sort_values("case_id")
        assert found["value"].tolist() == [1, 2, 3, 4]
        assert set(found["status"]) == {"ok"}
        assert {name: metric.unavailable for name, metric in both.metrics.items()} == {
            "psnr": "one: no weights", "niqe": "none",
        }  # fmt: skip
        assert both.signatures == {"psnr": "psnr|rgb|v1"}
        assert both.notes == {"severe": {"fid": "two: n=4"}}


def with_methods(report, **methods):
    facts = {name: MethodFacts(RestorerInfo(name), name, *setting) for name, setting in methods.items()}
    return dataclasses.replace(report, methods=facts)


def on(report, benchmark):
    """The same report of another benchmark."""
    frames = {name: getattr(report, name).assign(benchmark=benchmark) for name in ("scores", "cases", "restorations")}
    return dataclasses.replace(report, **frames, benchmarks={benchmark: dataclasses.replace(INFO, name=benchmark)})


SETTINGS = [
    ({"scale": 8}, (), "lq (scale=8)"),
    ({}, ("b" * 64,), "lq (weights bbbbbbbbbbbb)"),
    ({"recipe": {"sha256": "c" * 64}}, (), "lq (recipe=cccccccccccc)"),
]


@pytest.mark.parametrize(("options", "weights", "name"), SETTINGS)
def test_two_settings_under_one_name_are_two_methods(pair, options, weights, name):
    one, two = with_methods(pair[0], a=(), lq=()), with_methods(on(pair[1], "moderate"), b=(), lq=(options, weights))
    for order in ([one, two], [two, one]):
        both = merge_reports(order)
        assert set(both.methods) == {"a", "b", "lq (default)", name}
        board = both.leaderboard
        assert set(board.loc[board["method"] == name, "benchmark"]) == {"moderate"}
        assert set(board.loc[board["method"] == "lq (default)", "benchmark"]) == {"severe"}


def test_one_setting_is_one_method_over_all_benchmarks(pair):
    setting = ({"scale": 8}, ("b" * 64,))
    both = merge_reports([with_methods(pair[0], a=(), lq=setting), with_methods(on(pair[1], "moderate"), lq=setting)])
    board = both.leaderboard
    assert set(board.loc[board["method"] == "lq", "benchmark"]) == {"moderate", "severe"}


def test_other_code_under_one_name_and_setting_is_another_method(pair):
    old, new = (dataclasses.replace(MethodFacts(RestorerInfo("lq"), "lq"), code=letter * 64) for letter in "ab")
    one = dataclasses.replace(pair[0], methods={"lq": old})
    two = dataclasses.replace(on(pair[1], "moderate"), methods={"lq": new})
    assert set(merge_reports([one, two]).methods) == {f"lq (default, code {letter * 8})" for letter in "ab"}
    for other in (old, dataclasses.replace(old, code="")):  # of a workspace that did not record it
        assert set(merge_reports([one, dataclasses.replace(two, methods={"lq": other})]).methods) == {"lq"}


def test_notes_follow_a_method_that_is_renamed(pair):
    notes = {"lq": "1 of 4 outputs are the ground truth itself", "psnr": "of 4"}
    info = dataclasses.replace(INFO, name="moderate", notes=notes)
    two = dataclasses.replace(
        with_methods(on(pair[1], "moderate"), lq=({"scale": 8}, ())), benchmarks={"moderate": info}
    )
    both = merge_reports([with_methods(pair[0], lq=()), two])
    assert set(both.notes["moderate"]) == {"lq (scale=8)", "psnr"}
    assert "lq (scale=8): two: 1 of 4 outputs" in markdown_tables(both.leaderboard, both.notes)
    assert set(two.renamed({"lq": "low"}).notes["moderate"]) == {"low", "psnr"}


def test_features_of_joined_workspaces_are_those_of_each(pair):
    """Each workspace has its own paths: the second's cases kept neither distance nor strength."""
    reports = []
    for report, name, root in zip((pair[0], on(pair[1], "moderate")), ("severe", "moderate"), "ab", strict=True):
        cases = report.cases.assign(
            reference_paths=[[f"/{root}/r{k % 2}.png"] for k in range(4)],
            lq_path=[f"/{root}/{name}/{k}.png" for k in range(4)],
            gt_path=[f"/{root}/{k}.png" for k in range(4)],
        )
        ids = cases["case_id"]
        references = pd.DataFrame(
            {"target_id": ids, "path": [f"/{root}/r{k % 2}.png" for k in range(4)], "distance": [0.1, 0.2, 0.3, 0.25]}
        )
        degradations = pd.DataFrame(
            {"target_id": ids, "level": "severe", "lq_path": cases["lq_path"], "sigma_x": [1.0, 2, 3, 4],
             "sigma_y": 1.0, "scale": [4.0, 3, 2, 1], "noise_sigma": [1.0, 2, 2, 1], "jpeg_quality": [30.0, 40, 50, 60]}
        )  # fmt: skip
        attributes = pd.DataFrame({"path": cases["gt_path"], "attribute": "smile", "value": [*"1234"]})
        facts = {table: {"content": "same"} for table in ("images", "references", "attributes")}
        reports.append(
            dataclasses.replace(
                report, cases=cases, references=references, degradations=degradations, attributes=attributes,
                provenance=facts,
            )
        )  # fmt: skip
    both = merge_reports(reports).features.set_index(["benchmark", "case_id"]).sort_index()
    alone = pd.concat([report.features for report in reports]).set_index(["benchmark", "case_id"]).sort_index()
    pd.testing.assert_frame_equal(both, alone)
    assert both.notna().all(axis=None)


def test_settings_that_made_the_same_outputs_are_one_method(pair):
    both = merge_reports([with_methods(pair[0], lq=()), with_methods(pair[1], lq=({"threads": 2},))])
    assert "lq" in both.methods


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        ("ids|onnx:r50.onnx@0123456789ab|cosine", "ids|onnx:webface.onnx@0123456789ab|cosine", True),
        ("ids|onnx:r50.onnx@0123456789ab|cosine", "ids|onnx:r50.onnx@ba9876543210|cosine", False),
        ("lpips|vgg|vgg16.pth@0123456789ab|v1", "lpips|vgg|net.safetensors@0123456789ab|v1", True),
        ("ids|onnx:r50.onnx@0123456789ab|cosine", "ids|onnx:r50.onnx@0123456789ab|degrees", False),
    ],
)
def test_the_same_bytes_under_two_file_names_merge(pair, mine, theirs, same):
    reports = [
        dataclasses.replace(report, metrics={"psnr": MetricFacts(True, signature)})
        for report, signature in zip(pair, (mine, theirs), strict=True)
    ]
    if same:
        assert merge_reports(reports).signatures == {"psnr": mine}
    else:
        with pytest.raises(TableError, match="metric 'psnr' is not the same"):
            merge_reports(reports)


def test_other_people_are_refused_and_other_numbers_of_people_are_not(pair):
    renumbered = pair[1].cases.assign(identity_id=pair[1].cases["identity_id"] + 7)
    assert len(merge_reports([pair[0], dataclasses.replace(pair[1], cases=renumbered)]).cases) == 4
    for people in ([0, 0, 1, 2], [0, 0, 0, 0]):
        grouped = pair[1].cases.assign(identity_id=people)
        with pytest.raises(TableError, match="benchmark 'severe' has other people in two") as caught:
            merge_reports([pair[0], dataclasses.replace(pair[1], cases=grouped)])
        assert "\n" not in str(caught.value)
