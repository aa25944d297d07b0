"""Metrics through the command line: directions of those that cannot run, merges with a workspace where they ran,
plug-ins, and mistakes that end before any work."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ffhqref.core.images import read_rgb
from ffhqref.store import tables
from ffhqref.store.workspace import Workspace

from ..command import REPOSITORY, Command
from .test_cli import one_line

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = '''
import os
import numpy as np
from ffhqref.core.errors import WeightsError
from ffhqref.metrics import Metric
from ffhqref.metrics.dataset_metrics import DatasetMetric, ImageFeatures, SetScore


class Contrast(Metric):
    """Deviation of the levels; lower is better."""

    higher_is_better = False
    needs = frozenset()
    role = "perception"
    signature = "contrast|v1"

    def __init__(self, scale: float = 1.0):
        if not os.environ.get("CONTRAST_WEIGHTS"):
            raise WeightsError("contrast: its weights are not here")
        self.scale, self.signature = scale, f"contrast|scale {scale}|v1"

    def __call__(self, batch):
        return self.scale * batch.output.double().std(dim=(1, 2, 3)).numpy()


class Duck:
    """It knows nothing of the base class."""

    signature, higher_is_better, needs = "duck|v1", False, ("gt",)

    def __call__(self, batch):
        return (batch.output - batch.gt).abs().double().mean(dim=(1, 2, 3)).numpy()


class Mean(ImageFeatures):
    signature = "mean"

    def __call__(self, images):
        return np.stack([image.mean(axis=(0, 1)) for image in images]).astype(np.float32)


class Brightness(DatasetMetric):
    """Mean level of all outputs; higher is better."""

    higher_is_better = True
    needs = frozenset()

    def __init__(self, runtime=None, seed=0, features=None):
        super().__init__(runtime, seed, features or Mean())
        self.signature = f"brightness|{self.features.signature}|v1"

    def __call__(self, features, reference):
        return SetScore(float(features.mean()), len(features), None, None)
'''

WHAT = ("benchmark=[severe]", "limit=2", "engine.workers=0")
METRICS = (
    "metric=[psnr,contrast,duck]",
    "+metric.texture={name: contrast, scale: 2.0}",
    "+metric.distance={name: lpips_alex}",
    "+metric.theirs={name: 'pyiqa:dists'}",
    "set_metric=[brightness]",
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that adds metrics by entry points, installed as pip would lay it out."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "their_metrics-1.0.dist-info"
    info.mkdir()
    (folder / "their_metrics.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-metrics\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ffhqref.metrics]\ncontrast = their_metrics:Contrast\nduck = their_metrics:Duck\n"
        "[ffhqref.dataset_metrics]\nbrightness = their_metrics:Brightness\n"
    )
    return folder


@pytest.fixture(scope="module")
def environment(package: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A machine with the package and no weights."""
    empty = str(tmp_path_factory.mktemp("empty"))
    return {
        "PYTHONPATH": f"{REPOSITORY}:{package}",
        "TORCH_HOME": empty,
        "FFHQREF_WEIGHTS": empty,
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="module")
def scored(built, tmp_path_factory, environment):
    """Two workspaces over the same cases: weights are absent in the first and there in the second."""
    folder = tmp_path_factory.mktemp("directions")
    first, second = folder / "first", folder / "second"
    shutil.copytree(built, first)
    for stage in ("degrade", "restore"):
        done = Command(folder)(stage, f"root={first}", *WHAT, "restorer=[lq,bicubic]")
        assert done.returncode == 0, done.stderr
    shutil.copytree(first, second)
    weights = folder / "weights"
    weights.mkdir()
    torch.save(alexnet(), weights / "alexnet-owt-7be5be79.pth")
    there = {**environment, "FFHQREF_WEIGHTS": str(weights), "CONTRAST_WEIGHTS": "yes"}
    told = []
    for root, machine in ((first, environment), (second, there)):
        done = Command(folder)("score", f"root={root}", *WHAT, "restorer=[lq,bicubic]", *METRICS, env=machine)
        assert done.returncode == 0, done.stderr
        told.append(done.stderr)
    return first, second, told[0]


def alexnet() -> dict[str, torch.Tensor]:
    """Return random convolutions in torchvision's layout."""
    generator, before, state = torch.Generator().manual_seed(1), 3, {}
    for at, kernel, width in ((0, 11, 64), (3, 5, 192), (6, 3, 384), (8, 3, 256), (10, 3, 256)):
        state[f"features.{at}.weight"] = torch.randn(width, before, kernel, kernel, generator=generator) * 0.05
        state[f"features.{at}.bias"] = torch.randn(width, generator=generator) * 0.1
        before = width
    return state


@pytest.mark.slow
def test_metrics_that_cannot_run_have_the_direction_of_those_that_ran(scored):
    first, second, told = scored
    absent, there = (tables.read_metadata(root, "scores") for root in (first, second))
    assert set(absent["unavailable"]) == {"contrast", "texture", "distance", "theirs"}
    assert set(there["unavailable"]) == {"theirs"}
    expected = {"psnr": True, "contrast": False, "duck": False, "texture": False, "distance": False, "theirs": False}
    assert absent["directions"] == there["directions"] == {**expected, "brightness": True}
    assert "metric contrast unavailable: contrast: its weights are not here" in told
    assert "metric theirs unavailable" in told


@pytest.mark.slow
def test_a_merge_with_the_workspace_where_they_ran_ranks_by_that_direction(scored, ffhqref):
    first, second, _ = scored
    done = ffhqref("report", "root=both", f"merge=[{first},{second}]", "report.n_bootstrap=50")
    assert done.returncode == 0, done.stderr
    board = tables.read_table(ffhqref.folder / "both", "leaderboard").set_index(["metric", "method"])
    for metric in ("contrast", "texture", "distance"):
        assert not board.loc[metric, "higher_is_better"].any()
        means = board.loc[metric]["mean"].drop(["ground-truth", "lq"], errors="ignore")
        assert board.loc[(metric, means.idxmin()), "rank"] == 1
    assert board.loc["brightness", "higher_is_better"].all()


@pytest.mark.slow
def test_values_of_plug_ins(scored):
    _, second, _ = scored
    scores = tables.read_table(second, "scores").set_index(["method", "metric", "case_id"])["value"]
    made, cases = tables.read_table(second, "restorations"), tables.read_table(second, "cases")
    workspace = Workspace(str(second), read_only=True)
    truths = {case.case_id: read_rgb(workspace.image(case.gt_path), 512) / 255.0 for case in cases.itertuples()}
    levels = []
    for row in made[made["method"] == "bicubic"].itertuples():
        image = read_rgb(second / row.output_path)
        levels.append(image.mean())
        output = image / 255.0
        case = row.case_id
        assert scores["bicubic", "contrast", case] == pytest.approx(output.std(ddof=1), rel=1e-4)
        assert scores["bicubic", "texture", case] == pytest.approx(2.0 * output.std(ddof=1), rel=1e-4)
        assert scores["bicubic", "duck", case] == pytest.approx(np.abs(output - truths[case]).mean(), rel=1e-4)
    assert scores["bicubic", "brightness", "*"] == pytest.approx(np.mean(levels), rel=1e-4)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+metric.ids.crop=ffhq_templat", "ffhq_template"),
        ("+metric.ids.jiters=3", "jiters"),
        ("+metric.ids_ref.embedder=dlip", "dlib"),
        ("+metric.ids.unit=degree", "degrees"),
        ("+metric.x={name: contrast, scal: 2}", "scal"),
        ("+metric.x={name: 'pyiqa:topiq_nrr'}", "topiq_nr"),
        ("set_metric=[brightnes]", "brightness"),
    ],
)
def test_mistakes_end_before_any_work(ffhqref, environment, override, words):
    done = ffhqref("run", "root=w", "metric=[psnr,ids,ids_ref]", override, env=environment)
    assert words in one_line(done)
    assert not list((ffhqref.folder / "w").rglob("*.parquet"))
