"""The zoo page: complete without weights, with the leak marks of the leaderboard, costs measured where possible."""

import math
from pathlib import Path

from ffhqref.cli.catalogue import costs_to_markdown, describe, to_markdown, zoo_frame
from ffhqref.restorers import RESTORERS


def test_every_restorer_has_a_row_without_its_weights(tmp_path, monkeypatch):
    for name in ("FFHQREF_WEIGHTS", "TORCH_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    frame = zoo_frame()
    assert list(frame["method"]) == RESTORERS.names()
    assert (frame["verified_against"] != "").all()
    row = frame.set_index("method").loc["refldm"]
    assert row["here"] == "ffhqref weights fetch refldm refldm-vqgan"
    assert row["references"] == "1 to 5"
    assert row["commercial_use"] == "no"
    for method, leak in zip(frame["method"], frame["leak"], strict=True):
        assert bool(leak) == ("FFHQ" in describe(method).trained_on)


def test_costs_are_measured_in_a_process_of_their_own():
    row = zoo_frame(["bicubic"], cost=True).iloc[0]
    assert row["here"] == "ready"
    assert 0 < row["seconds"] < math.inf
    assert row["memory_mb"] >= 0
    assert row["measured_on"].endswith("threads")
    assert row["cost_references"] == 0


def test_the_page_in_the_documentation_is_current():
    """Mend it with both tables of `ffhqref zoo --markdown FILE`."""
    page = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text(encoding="utf-8")
    frame = zoo_frame()
    assert to_markdown(frame) in page
    assert costs_to_markdown(frame) in page
