"""``ffhqref report merge=[A,B]``: the same ranking as one workspace with all methods, or one line that refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from ffhqref.core.hashing import sha256_file
from ffhqref.store import tables

from ..command import Command
from .test_cli import one_line

WHAT = ("benchmark=[severe]", "limit=2", "engine.workers=0")


def work(folder: Path, root: Path, methods: str, *more: str, stages=("restore", "score")) -> None:
    for stage in stages:
        options = (f"restorer=[{methods}]", "metric=[psnr]", "report.n_bootstrap=100")
        done = Command(folder)(stage, f"root={root}", *WHAT, *options, *more)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def scored(built, tmp_path_factory):
    """Two workspaces over the same cases: lq and bicubic in one, lq and reference in the other."""
    folder = tmp_path_factory.mktemp("merge")
    first, second = folder / "first", folder / "second"
    shutil.copytree(built, first)
    work(folder, first, "lq,bicubic", stages=("degrade", "restore", "score"))
    shutil.copytree(first, second)
    work(folder, second, "lq,reference")
    return first, second


def merge(command: Command, *roots: Path):
    return command("report", "root=both", f"merge=[{','.join(map(str, roots))}]", "report.n_bootstrap=100")


@pytest.mark.slow
def test_the_ranking_is_that_of_one_workspace_with_all_methods(scored, ffhqref, tmp_path):
    before = {path: sha256_file(path) for root in scored for path in root.rglob("*") if path.is_file()}
    done = merge(ffhqref, *scored)
    assert done.returncode == 0, done.stderr
    assert "cannot show" not in done.stderr
    assert {path: sha256_file(path) for root in scored for path in root.rglob("*") if path.is_file()} == before
    assert "reference" in done.stdout
    assert "bicubic" in done.stdout

    together = tmp_path / "together"
    shutil.copytree(scored[0], together)
    work(ffhqref.folder, together, "lq,bicubic,reference", stages=("restore", "score", "report"))
    one, other = (tables.read_table(root, "leaderboard") for root in (together, ffhqref.folder / "both"))
    assert {"lq", "bicubic", "reference"} <= set(other["method"])
    pd.testing.assert_frame_equal(
        one.drop(columns=["seconds_per_image", "peak_memory_mb"]),
        other.drop(columns=["seconds_per_image", "peak_memory_mb"]),
    )
    origin = tables.read_metadata(ffhqref.folder / "both", "leaderboard")["inputs"]
    assert origin[f"{scored[1]}: scores"] == tables.table_hash(scored[1], "scores")


@pytest.mark.slow
def test_a_second_merge_does_nothing_and_the_order_does_not_matter(scored, ffhqref):
    assert merge(ffhqref, *scored).returncode == 0
    board = tables.read_table(ffhqref.folder / "both", "leaderboard").drop(
        columns=["seconds_per_image", "peak_memory_mb"]
    )
    again = merge(ffhqref, *scored)
    assert "writing" not in again.stderr
    turned = merge(ffhqref, *reversed(scored))
    assert "writing" in turned.stderr
    other = tables.read_table(ffhqref.folder / "both", "leaderboard").drop(
        columns=["seconds_per_image", "peak_memory_mb"]
    )
    pd.testing.assert_frame_equal(board, other)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["benchmark.severe.references=1", "seed=1"])
def test_other_cases_under_the_same_name_are_refused(scored, ffhqref, tmp_path, change):
    """The same targets with fewer references, or with other low-quality images, are another benchmark."""
    other = tmp_path / "other"
    shutil.copytree(scored[1], other)
    work(ffhqref.folder, other, "lq", change, stages=("degrade", "restore", "score"))
    line = one_line(merge(ffhqref, scored[0], other))
    assert "benchmark 'severe' has another protocol" in line
    assert str(other) in line
    assert not (ffhqref.folder / "both" / "report").exists()


def test_mistakes(scored, ffhqref, tmp_path):
    assert "no workspace of ffhqref" in one_line(merge(ffhqref, scored[0], tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    assert "expected the folders" in one_line(ffhqref("report", "merge=[]"))
    assert "ffhqref report merge" in one_line(ffhqref("run", "merge=[a,b]"))
