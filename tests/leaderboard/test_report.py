"""The whole report of a workspace in two calls."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest

from ffhqref.leaderboard.merge import Workspace
from ffhqref.leaderboard.published import BenchmarkInfo
from ffhqref.leaderboard.report import build_report, write_report
from ffhqref.leaderboard.summary import IdentityGate
from ffhqref.restorers.base import RestorerInfo
from ffhqref.store.tables import read_table, write_table


@pytest.fixture
def workspace(tables):
    values = {
        "lq": {"psnr": [20.0, 21, 22, 23], "ids": [0.5, 0.6, 0.2, 0.6]},
        "leaky": {"psnr": [24.0, 25, None, 27], "ids": [0.7, 0.8, None, 0.9]},
    }
    made = [tables(values, benchmark=b) for b in ("same_age", "cross_age")]
    scores, cases, restorations = (
        pd.concat([getattr(m, name) for m in made], ignore_index=True) for name in ("scores", "cases", "restorations")
    )
    benchmarks = {b: BenchmarkInfo(b, "FFHQ-Ref test", people_from="FFHQ") for b in ("same_age", "cross_age")}
    return Workspace(
        "w", scores, cases, restorations, {"psnr": True, "ids": True}, {"psnr": "p|v1", "ids": "i|v1"}, benchmarks
    )


def test_report_of_a_workspace(workspace, tmp_path):
    report = build_report(
        workspace,
        lambda path: tmp_path / path,
        infos={"leaky": RestorerInfo("leaky", trained_on=("FFHQ",)), "unused": RestorerInfo("unused")},
        gate=IdentityGate("ids", 0.4, 0.25),
        quality=["psnr"],
        pairs={"Same-age against cross-age": ("same_age", "cross_age"), "absent": ("same_age", "elsewhere")},
        n_bootstrap=50,
    )
    files = write_report(report, tmp_path / "report")
    text = files.html.path.read_text()
    assert "Same-age against cross-age" in text
    assert "absent" not in report.pairs
    assert "unused" not in text
    assert set(report.gate["passed"]) == {True}
    assert files.markdown.read_text().count("leaky †") == 2
    assert files.latex.read_text().count(r"\begin{table*}") == 2
    assert len(pd.read_csv(files.csv)) == 8
    # The pictures of this workspace do not exist: the report says so and is written all the same.
    assert len(files.html.unreadable) > 0
    write_table(tmp_path, "leaderboard", report.analysis.leaderboard)
    again = read_table(tmp_path, "leaderboard")
    assert sorted(again["mean"]) == sorted(report.analysis.leaderboard["mean"])


@pytest.mark.parametrize("failures", ["worst", "excluded"])
def test_all_files_tell_how_failures_were_counted(workspace, tmp_path, failures):
    report = build_report(workspace, lambda path: tmp_path / path, failures=failures, n_bootstrap=20)
    files = write_report(report, tmp_path / "report")
    for path in (files.markdown, files.latex, files.html.path):
        assert ("left out of the means" in path.read_text()) == (failures == "excluded"), path
        assert ("count as the worst value" in path.read_text()) == (failures == "worst"), path


def test_gate_of_an_unscored_metric_is_left_out(workspace, tmp_path):
    report = build_report(workspace, lambda path: tmp_path / path, gate=IdentityGate("adaface", 0.4), n_bootstrap=20)
    assert report.gate is None


def test_whole_sets_attributes_and_reasons_reach_the_page(workspace, tmp_path):
    columns = workspace.scores.columns
    whole = [(m, "same_age", "*", "fid", v, "ok") for m, v in (("lq", 180.0), ("leaky", 90.0))]
    whole += [(m, b, "*", "fid_ffhq", None, "unavailable") for m in ("lq", "leaky") for b in ("same_age", "cross_age")]
    workspace = replace(
        workspace,
        scores=pd.concat([workspace.scores, pd.DataFrame(whole, columns=columns)], ignore_index=True),
        directions={**workspace.directions, "fid": False, "fid_ffhq": False},
        signatures={**workspace.signatures, "fid": "fid|inception|v1"},
        unavailable={"fid_ffhq": "put <ffhq>.npz into the weights folder"},
        notes={"same_age": {"fid": "lq: n=4: biased & small; leaky: n=3: biased"}},
    )
    ids = workspace.cases.loc[workspace.cases["benchmark"] == "same_age", "case_id"]
    yaw = zip(ids, ["5", "-15", "60", "-12"], strict=True)
    attributes = pd.DataFrame([(i, "yaw", v) for i, v in yaw], columns=["image_id", "attribute", "value"])
    report = build_report(
        workspace,
        lambda path: tmp_path / path,
        attributes=attributes,
        gate=IdentityGate("ids", 0.1, 0.5),
        quality=["fid"],
        n_bootstrap=20,
    )
    poses = report.subgroups[(report.subgroups["feature"] == "yaw") & (report.subgroups["method"] == "lq")]
    assert poses[poses["metric"] == "psnr"].groupby("benchmark")["n"].agg(list).to_dict() == {
        "cross_age": [1, 2, 1], "same_age": [1, 2, 1],
    }  # fmt: skip
    files = write_report(report, tmp_path / "report")
    page = files.html.path.read_text()
    assert page.count("<strong>fid</strong>: lq: n=4: biased &amp; small; leaky: n=3: biased.") == 1
    assert "unavailable: put &lt;ffhq&gt;.npz into the weights folder" in page
    assert "fid: lq: n=4: biased &amp; small; leaky: n=3: biased." in files.markdown.read_text()
    assert r"fid: lq: n=4: biased \& small" in files.latex.read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    # The scripts look up single cases of these metrics; a whole set has none.
    assert all(set(b["scored"]) <= set(b["metrics"]) for b in data["benchmarks"])
    assert all(set(filter(None, b["roles"].values())) <= set(data["metrics"]) for b in data["benchmarks"])
