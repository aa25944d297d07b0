"""Single stages never mix tables of different runs."""

from __future__ import annotations

import shutil

import pytest

from ..command import Command
from .conftest import FEW


@pytest.fixture(scope="module")
def made(tmp_path_factory, few_faces):
    """A finished workspace."""
    folder = tmp_path_factory.mktemp("made")
    done = Command(folder)("run", "root=w", f"dataset.path={few_faces}", *FEW, "engine.workers=1")
    assert done.returncode == 0, done.stderr
    return folder / "w"


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (["degrade", "seed=7"], "score", "table 'restorations' was made from another table 'degradations'"),
        (["degrade", "limit=2"], "score", "table 'restorations' was made from another table 'cases'"),
        (["restore", "restorer=[lq]"], "report", "table 'scores' was made from another table 'restorations'"),
        (["build", "dataset.test=1"], "restore", "run `ffhqref degrade` again"),
    ],
)
def test_a_stage_refuses_tables_that_do_not_belong_together(made, few_faces, ffhqref, tmp_path, first, then, said):
    root = tmp_path / "w"
    shutil.copytree(made, root)
    few = [option for option in FEW if option.split("=")[0] not in [item.split("=")[0] for item in first]]
    done = ffhqref(first[0], f"root={root}", f"dataset.path={few_faces}", *few, "engine.workers=1", *first[1:])
    assert done.returncode == 0, done.stderr
    done = ffhqref(then, f"root={root}", f"dataset.path={few_faces}", *FEW, "engine.workers=1")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["restorer=[]"], "no restorer chosen"),
        (["metric=[]"], "no metric chosen"),
        (["benchmark=[]"], "no benchmark chosen"),
        (["restorer.bicubic=3"], "restorer.bicubic=3: expected options"),
        (["benchmark.moderate=3"], "benchmark.moderate=3: expected options"),
        (["download=no"], "download=no: expected true or false"),
        (["dataset=folder", "dataset.aligned=maybe"], "dataset.aligned=maybe: expected true or false"),
        (["build=null"], "build=null: expected"),
        (["weights_dir=/nowhere/at/all"], "no such folder"),
        (["root="], "expected a folder"),
        (["report.failures=bad"], "expected worst or excluded"),
        (["report.n_bootstrap=abc"], "report.n_bootstrap=abc"),
        (["report.quality=niqe"], "report.quality=niqe: expected a list"),
        (["report.gate={metric: idz, threshold: 0.5}"], "not among the metrics"),
        (["+restorer.ground-truth={name: bicubic}"], "stands for the ground truth"),
    ],
)
def test_wrong_values_end_before_any_work(ffhqref, tmp_path, arguments, said):
    done = ffhqref("run", *([] if arguments == ["root="] else [f"root={tmp_path}/w"]), *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "w" / "tables" / "images.parquet").exists()


def test_a_benchmark_without_any_usable_picture_says_why(made, few_faces, ffhqref, tmp_path):
    (tmp_path / "lq").mkdir()
    (tmp_path / "lq" / "a.png").write_text("no image")
    root = tmp_path / "w"
    shutil.copytree(made, root)
    done = ffhqref("degrade", f"root={root}", "benchmark=[lfw_test]", f"benchmark.lfw_test.lq_folder={tmp_path}/lq")
    assert done.returncode == 2
    assert "no low-quality image could be made" in done.stderr
    assert "Traceback" not in done.stderr
