"""The whole report of a workspace in two calls."""

import pandas as pd
import pytest

from ffhqref.leaderboard.merge import Workspace
from ffhqref.leaderboard.published import BenchmarkInfo
from ffhqref.leaderboard.report import build_report, write_report
from ffhqref.leaderboard.summary import IdentityGate
from ffhqref.restorers.base import RestorerInfo
from ffhqref.tables import read_table, write_table


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


def test_gate_of_an_unscored_metric_is_left_out(workspace, tmp_path):
    report = build_report(workspace, lambda path: tmp_path / path, gate=IdentityGate("adaface", 0.4), n_bootstrap=20)
    assert report.gate is None
