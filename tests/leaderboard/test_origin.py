"""What a report tells of its origin, and that it names no folder of the machine."""

import dataclasses
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from ffhqref.core.errors import ConfigError
from ffhqref.leaderboard.formats import write_report
from ffhqref.leaderboard.options import ReportOptions
from ffhqref.leaderboard.origin import short_names, without_places
from ffhqref.leaderboard.publish import _named
from ffhqref.leaderboard.report_data import MetricFacts


class Teller:
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def report(make_report, tmp_path_factory):
    root = tmp_path_factory.mktemp("private") / "home" / "w"
    made = make_report(root, n=20, n_failed=0)
    facts = {
        "table": "scores", "created": "2026-03-04T05:06:07+00:00", "git_commit": "c" * 40,
        "packages": {"ffhqref": "9.8.7", "numpy": "2.0"},
        "config": {"weights": f"{root}/x.pth", "list": ["/etc/lists/a"]},
    }  # fmt: skip
    restored = {**facts, "table": "restorations", "platform": "TestOS-1", "packages": {"numpy": "1.0"}}
    return dataclasses.replace(
        made,
        name=str(root),
        metrics={**made.metrics, "musiq": MetricFacts(True, unavailable="put it into /home/me/weights or ~/w/x")},
        provenance={"scores": facts, "restorations": restored},
        options=ReportOptions(n_bootstrap=20, author="A. Uthor", formats=("markdown", "latex", "csv", "html")),
        command=f"ffhqref run root={root} dataset.path=/data/faces",
    )  # fmt: skip


def test_files_tell_who_when_how_and_name_no_folder(report, tmp_path):
    places = short_names([Path(report.name)])
    files = write_report(without_places(report, places), tmp_path).files
    secret = str(Path(report.name).parent)
    for file in files:
        text = file.read_text()
        assert secret not in text, file
        assert not re.search(r"/(?:home|etc|data)/", text), file
        if file.suffix != ".csv":
            for told in (
                "A. Uthor",
                "2026-03-04",
                "run root=w dataset.path=faces",
                "cpu, TestOS-1",
                "cccccccccccc",
            ):
                assert told in text, (file, told)
        assert "ffhqref 9.8.7, numpy 1.0 and 2.0" in text, file
        assert "psnr|rgb|v1" in text.replace("\\", ""), file
    board = pd.read_csv(files[2])
    assert set(board["people"]) == {10}
    assert board["warning"].isna().all()
    assert set(board["scored"]) == {"2026-03-04"}


def test_display_names_stand_in_files_and_two_of_one_name_are_refused(report, tmp_path):
    def named(names):
        return dataclasses.replace(report, options=report.options.model_copy(update={"names": names}))

    teller = Teller()
    shown = _named(named({"good": "The Good", "gone": "x"}), teller)
    assert teller.lines == ["report.names: no method in the tables is called gone"]
    assert shown.baselines == ("lq",)
    files = write_report(shown, tmp_path).files
    for file in files:
        assert "The Good" in file.read_text(), file
    data = json.loads(re.search(r'id="data">(.*?)</script>', files[3].read_text(), re.DOTALL)[1])
    assert "The Good" in data["methods"]
    assert "good" not in data["methods"]
    assert _named(named({"lq": "Input"}), teller).baselines == ("Input",)
    with pytest.raises(ConfigError, match="two methods would be called 'lq'"):
        _named(named({"good": "lq"}), teller)


def test_an_order_that_is_none_is_refused(report):
    wrong = dataclasses.replace(report, options=report.options.model_copy(update={"order": "pnsr"}))
    with pytest.raises(ConfigError, match=r"report\.order=pnsr: expected one of rank, name, lpips, musiq, niqe, psnr"):
        _ = wrong.arrangement


def test_times_stand_with_their_device_and_not_across_machines(report):
    (view, _) = report.tables
    assert view.seconds_title == "s/image on cpu"
    assert {row.device for row in view.rows} == {""}
    cuda = report.restorations.assign(
        device=report.restorations["device"].where(report.restorations["method"] != "good", "cuda")
    )
    (view, _) = dataclasses.replace(report, restorations=cuda).tables
    assert view.seconds_title == "s/image"
    assert {row.method: row.device for row in view.competing}["good"] == "cuda"
    other = {**report.provenance["restorations"], "platform": "OtherOS"}
    (view, _) = dataclasses.replace(report, provenance={**report.provenance, "more": other}).tables
    assert {row.seconds for row in view.rows} == {None}
