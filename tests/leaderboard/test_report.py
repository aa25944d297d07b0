"""The whole report of a workspace in two calls."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from ffhqref.core.errors import ConfigError
from ffhqref.core.options import read_options
from ffhqref.leaderboard import FORMATS
from ffhqref.leaderboard.formats import TextFormat, write_report
from ffhqref.leaderboard.methods import MethodFacts
from ffhqref.leaderboard.options import IdentityGate, ReportOptions
from ffhqref.leaderboard.published import BenchmarkInfo
from ffhqref.leaderboard.report import Report
from ffhqref.leaderboard.report_data import MetricFacts
from ffhqref.restorers.base import RestorerInfo
from ffhqref.store.tables import read_table, write_table

QUICK = ReportOptions(n_bootstrap=20, formats=("markdown", "latex", "csv", "html"))


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
    metrics = {"psnr": MetricFacts(True, "p|v1"), "ids": MetricFacts(True, "i|v1")}
    return Report("w", scores, cases, restorations, metrics, benchmarks, options=QUICK)


def test_report_of_a_workspace(workspace, tmp_path):
    gate = IdentityGate(metric="ids", threshold=0.4, max_missed_share=0.25)
    report = replace(
        workspace,
        methods={
            "leaky": MethodFacts(RestorerInfo("leaky", trained_on=("FFHQ",))),
            "unused": MethodFacts(RestorerInfo("unused")),
        },
        age_pairs={"Same-age against cross-age": ("same_age", "cross_age"), "absent": ("same_age", "elsewhere")},
        options=QUICK.model_copy(update={"gate": gate, "quality": ("psnr",)}),
    )
    written = write_report(report, tmp_path)
    markdown, latex, csv, page = written.files
    text = page.read_text()
    assert "Same-age against cross-age" in text
    assert "absent" not in report.age_comparisons
    assert "unused" not in text
    assert set(report.gate["passed"]) == {True}
    assert markdown.read_text().count("leaky †") == 2
    assert latex.read_text().count(r"\begin{table*}") == 3
    assert len(pd.read_csv(csv)) == 8
    # The images of this workspace do not exist: the report says so and is written all the same.
    assert any("cannot show" in line for line in written.warnings)
    write_table(tmp_path, "leaderboard", report.leaderboard)
    again = read_table(tmp_path, "leaderboard")
    assert sorted(again["mean"]) == sorted(report.leaderboard["mean"])


@pytest.mark.parametrize("failures", ["worst", "excluded"])
def test_all_files_tell_how_failures_were_counted(workspace, tmp_path, failures):
    report = replace(workspace, options=QUICK.model_copy(update={"failures": failures}))
    for path in write_report(report, tmp_path).files:
        if path.suffix == ".csv":
            continue
        assert ("left out of the means" in path.read_text()) == (failures == "excluded"), path
        assert ("count as the worst value" in path.read_text()) == (failures == "worst"), path


def test_a_format_of_another_package_is_written_and_an_unknown_one_refused(workspace, tmp_path, monkeypatch):
    class Names(TextFormat):
        file = "names.txt"

        def text(self, report):
            return " ".join(sorted(report.leaderboard["method"].unique()))

    monkeypatch.setattr(FORMATS, "_plugins", {"names": SimpleNamespace(load=lambda: Names)})
    options = read_options(ReportOptions, {"formats": ["names"], "n_bootstrap": 20}, "report")
    (file,) = write_report(replace(workspace, options=options), tmp_path).files
    assert file.read_text() == "leaky lq"
    with pytest.raises(ConfigError, match=r"unknown report format 'markdwn'\. Did you mean 'markdown'"):
        read_options(ReportOptions, {"formats": ["markdwn"]}, "report")


def test_whole_sets_attributes_and_reasons_reach_the_page(workspace, tmp_path):
    columns = workspace.scores.columns
    whole = [(m, "same_age", "*", "fid", v, "ok") for m, v in (("lq", 180.0), ("leaky", 90.0))]
    whole += [(m, b, "*", "fid_ffhq", None, "unavailable") for m in ("lq", "leaky") for b in ("same_age", "cross_age")]
    workspace = replace(
        workspace,
        scores=pd.concat([workspace.scores, pd.DataFrame(whole, columns=columns)], ignore_index=True),
        metrics={
            **workspace.metrics,
            "fid": MetricFacts(False, "fid|inception|v1"),
            "fid_ffhq": MetricFacts(False, unavailable="put <ffhq>.npz into the weights folder"),
        },
        benchmarks={
            **workspace.benchmarks,
            "same_age": replace(
                workspace.benchmarks["same_age"], notes={"fid": "lq: n=4: biased & small; leaky: n=3: biased"}
            ),
        },
    )
    ids = workspace.cases.loc[workspace.cases["benchmark"] == "same_age", "case_id"]
    yaw = zip(ids, ["5", "-15", "60", "-12"], strict=True)
    truths = workspace.cases.set_index("case_id")["gt_path"].groupby(level=0).first()
    attributes = pd.DataFrame([(truths[i], "yaw", v) for i, v in yaw], columns=["path", "attribute", "value"])
    gate = IdentityGate(metric="ids", threshold=0.1, max_missed_share=0.5)
    options = QUICK.model_copy(update={"gate": gate, "quality": ("fid",)})
    report = replace(workspace, attributes=attributes, options=options)
    poses = report.subgroups[(report.subgroups["feature"] == "yaw") & (report.subgroups["method"] == "lq")]
    assert poses[poses["metric"] == "psnr"].groupby("benchmark")["n"].agg(list).to_dict() == {
        "cross_age": [1, 2, 1], "same_age": [1, 2, 1],
    }  # fmt: skip
    markdown, latex, _, html = write_report(report, tmp_path / "report").files
    page = html.read_text()
    assert page.count("<strong>fid</strong>: lq: n=4: biased &amp; small; leaky: n=3: biased.") == 1
    assert "unavailable: put &lt;ffhq&gt;.npz into the weights folder" in page
    assert "fid: lq: n=4: biased &amp; small; leaky: n=3: biased." in markdown.read_text()
    assert r"fid: lq: n=4: biased \& small" in latex.read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    # The scripts look up single cases of these metrics; a whole set has none.
    assert all(set(b["scored"]) <= set(b["metrics"]) for b in data["benchmarks"])
    assert all(set(filter(None, b["roles"].values())) <= set(data["metrics"]) for b in data["benchmarks"])
