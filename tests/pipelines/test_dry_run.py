"""``dry_run=true``: restorers are tried on synthetic cases, without tables."""

from __future__ import annotations

import pytest

from ..command import REPOSITORY
from .test_cli import one_line

PLUGIN = """
import torch
from ffhqref.restorers.base import RestorerInfo

class Good:
    info = RestorerInfo(name="good")
    def restore(self, batch):
        return batch.lq * 0.9

class ScaledTo255(Good):
    def restore(self, batch):
        return batch.lq * 255

class Random(Good):
    def restore(self, batch):
        return torch.rand_like(batch.lq)

class Raises(Good):
    def restore(self, batch):
        raise RuntimeError("no luck")
"""


@pytest.fixture
def plugins(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "their_dry.py").write_text(PLUGIN)
    return {"PYTHONPATH": f"{REPOSITORY}:{folder}"}


def mine(name: str) -> str:
    return f"+restorer.{name}={{_target_: their_dry.{name}}}"


def test_a_good_restorer_passes_and_nothing_is_written(ffhqref, plugins):
    done = ffhqref("restore", "dry_run=true", "restorer=[lq,reference]", mine("Good"), env=plugins)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["lq: ok", "reference: ok", "Good: ok"]
    assert not list(ffhqref.folder.rglob("*.parquet"))
    assert not list(ffhqref.folder.rglob("*.png"))


def test_what_is_wrong_is_said_and_the_others_are_tried(ffhqref, plugins):
    names = ("ScaledTo255", "Random", "Raises")
    done = ffhqref("restore", "dry_run=true", "restorer=[lq]", *map(mine, names), env=plugins)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = dict(line.split(": ", 1) for line in reversed(done.stdout.splitlines()))  # the first line of each
    assert told["lq"] == "ok"
    assert "expected 0..1" in told["ScaledTo255"]
    assert "the same seeds give another result" in told["Random"]
    assert "no luck" in told["Raises"]


def test_run_stops_after_it(ffhqref, plugins):
    """The key is not ignored by the main job."""
    done = ffhqref("run", "dry_run=true", "restorer=[lq]", mine("Good"), env=plugins)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["lq: ok", "Good: ok"]
    assert not list(ffhqref.folder.rglob("*.parquet"))


def test_a_wrong_name_is_one_line(ffhqref):
    assert "Did you mean 'bicubic'" in one_line(ffhqref("restore", "dry_run=true", "restorer=[bicubik]"))
