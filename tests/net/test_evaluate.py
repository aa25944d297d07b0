"""Outputs that the main job wrote, given back as a folder, make the main job's rows; each fault is told."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ffhqref.cli.main import main
from ffhqref.store.tables import read_table

if TYPE_CHECKING:
    from .conftest import Finished

SAME = ["benchmark", "case_id", "metric", "value", "status"]


@pytest.fixture
def root(finished: Finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "w", ignore=shutil.ignore_patterns("report"))
    shutil.copytree(finished.root / "outputs", tmp_path / "given")
    return tmp_path / "w"


def evaluate(root, method, *more):
    folder = root.parent / "given" / method
    return main(["evaluate", f"root={root}", f"outputs={folder}", "engine.workers=0", "report.formats=[csv]", *more])


def rows(root, table, method):
    frame = read_table(root, table)
    return frame[frame["method"] == method]


def tracked_means(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}


def test_the_jobs_own_outputs_give_the_jobs_rows(root, finished, capsys):
    before = {name: read_table(root, name) for name in ("restorations", "scores", "leaderboard")}
    assert evaluate(root, "refldm-tiny", "name=mine") == 0
    told = capsys.readouterr().err
    assert "mine: 8 of 8 cases have a file" in told
    scores = rows(root, "scores", "mine")[SAME].reset_index(drop=True)
    expected = before["scores"][before["scores"]["method"] == "refldm-tiny"][SAME].reset_index(drop=True)
    pd.testing.assert_frame_equal(scores, expected)  # float64, bit for bit
    made, own = (rows(root, "restorations", name) for name in ("mine", "refldm-tiny"))
    assert list(made["output_sha256"]) == list(own["output_sha256"])
    assert set(made["status"]) == {"ok"}
    board = read_table(root, "leaderboard").set_index(["benchmark", "metric"])
    mine, theirs = (
        board[board["method"] == name][["mean", "ci_low", "ci_high", "n"]] for name in ("mine", "refldm-tiny")
    )
    pd.testing.assert_frame_equal(mine, theirs)
    for name in ("restorations", "scores"):
        after = read_table(root, name)
        kept = after[after["method"] != "mine"].reset_index(drop=True)
        pd.testing.assert_frame_equal(kept, before[name]), "every other method's rows stay"
    trackers = ["trackers=[tensorboard]"] if find_spec("tensorboard") else []
    assert main(["report", f"root={root}", "report.formats=[csv]", *trackers]) == 0, "later steps know the method"
    if trackers:
        tracked = tracked_means(root / "trackers" / "ffhqref")
        for (benchmark, metric), mean in board[board["method"] == "mine"]["mean"].dropna().items():
            assert tracked[f"{benchmark}/mine/{metric}"] == pytest.approx(mean, rel=1e-6)


def test_each_fault_is_told_and_nothing_is_mispaired(root, capsys):
    cases = read_table(root, "cases")
    ids = sorted(set(cases["case_id"]))
    given = root.parent / "given" / "nlm"
    (given / "severe" / f"{ids[0]}.png").unlink()
    (given / "severe" / f"{ids[1]}.png").unlink()
    (given / "severe" / f"{ids[2]}.png").rename(given / "severe" / "other.png")
    large = given / "severe" / f"{ids[3]}.png"
    Image.open(large).resize((1024, 1024)).save(large)
    shutil.copy(root / "lq" / "moderate" / f"{ids[0]}.png", given / "moderate" / f"{ids[0]}.png")
    (given / "moderate" / f"{ids[1]}.png").write_bytes(b"\x89PNG no more")
    assert evaluate(root, "nlm", "metric=[psnr]") == 1
    told = capsys.readouterr().err
    assert f"mine: 3 cases have no file: severe/{ids[0]}, severe/{ids[1]}, severe/{ids[2]}" in told
    assert "mine: 1 files belong to no case: severe/other.png" in told
    made = rows(root, "restorations", "mine").set_index(["benchmark", "case_id"])
    status, error = made["status"], made["error"]
    assert len(made) == 8
    for name in ids[:3]:
        assert "no file for this case" in error["severe", name]
    assert "1024x1024 pixels, expected 512x512" in error["severe", ids[3]]
    assert (status["moderate", ids[0]], error["moderate", ids[0]]) == ("passthrough", "the output equals the input")
    assert status["moderate", ids[1]] == "failed"
    good = rows(root, "restorations", "nlm").set_index(["benchmark", "case_id"])["output_sha256"]
    for name in ids[2:]:
        assert made["output_sha256"]["moderate", name] == good["moderate", name]
    scores = rows(root, "scores", "mine")
    ok = scores[(scores["status"] == "ok") & (scores["metric"] == "psnr") & (scores["benchmark"] == "severe")]
    assert ok.empty, "a failed case has no value"
    assert np.isfinite(scores.loc[scores["status"] == "ok", "value"]).all()
    assert evaluate(root, "nlm", "metric=[psnr]", "name=bicubic") == 2
    assert "name=bicubic: the workspace" in capsys.readouterr().err
