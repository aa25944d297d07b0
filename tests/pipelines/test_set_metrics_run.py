"""``set_metric=[…]``: distances between whole sets from the command line to the page."""

from __future__ import annotations

import importlib.util
import shutil

import pytest
import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.images import read_rgb
from ffhqref.metrics import MetricRuntime, dataset_metrics
from ffhqref.store import tables

from .test_cli import one_line

OPTIONS = (
    "benchmark=[severe]", "limit=2", "engine.workers=0", "metric=[psnr,age_error]", "report.n_bootstrap=50",
    "restorer=[lq,bicubic]", "root=w",
)  # fmt: skip


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder with random weights of FID's Inception-v3, and no other place where any could be found."""
    if importlib.util.find_spec("pyiqa") is None:
        pytest.skip("pyiqa is not installed")
    ensure_torchvision()
    from pyiqa.archs import inception

    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "empty"))
    with monkeypatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(inception, "load_pretrained_network", lambda *_, **__: None)
        state = inception.fid_inception_v3().state_dict()
    torch.save(state, folder / "pt_inception-2015-12-05-6726825d.pth")
    return folder


@pytest.mark.slow
def test_set_distances_are_rows_with_their_warning(built, ffhqref, weights):
    root = ffhqref.folder / "w"
    shutil.copytree(built, root)
    for stage in ("degrade", "restore"):
        assert ffhqref(stage, *OPTIONS).returncode == 0
    options = (*OPTIONS, "set_metric=[fid,kid,fid_ffhq]", f"weights_dir={weights}")
    done = ffhqref("score", *options)
    assert done.returncode == 0, done.stderr
    assert "metric fid on severe: n=2: dataset-level metrics of fewer than 10000 images" in done.stderr
    assert "metric fid_ffhq unavailable" in done.stderr

    scores, facts = tables.read_table(root, "scores"), tables.read_metadata(root, "scores")
    whole = scores[scores["case_id"] == "*"].set_index(["method", "metric"])
    assert whole["status"].to_dict() == {
        (method, metric): "unavailable" if metric == "fid_ffhq" else "ok"
        for method in ("bicubic", "lq")
        for metric in ("fid", "kid", "fid_ffhq")
    } | {("ground-truth", "fid_ffhq"): "unavailable"}
    made, cases = tables.read_table(root, "restorations"), tables.read_table(root, "cases")
    network = dataset_metrics.InceptionFeatures(runtime=MetricRuntime(weights_dir=weights))
    truths = network([read_rgb(path, 512) for path in _truths(root, cases)])
    mine = [read_rgb(root / path, 512) for path in made.loc[made["method"] == "bicubic", "output_path"]]
    assert whole.loc[("bicubic", "fid"), "value"] == pytest.approx(
        dataset_metrics.fid(network(mine), truths).value, rel=1e-3
    )
    assert [facts["directions"][name] for name in ("fid", "kid", "fid_ffhq")] == [False] * 3
    assert "inception-v3" in facts["signatures"]["fid"]
    assert "fid_ffhq" not in facts["signatures"]
    assert "seed 2024" in facts["signatures"]["kid"]
    assert set(facts["unavailable"]) == {"fid_ffhq", "age_error"}

    done = ffhqref("report", *options)
    assert done.returncode == 0, done.stderr
    page = (root / "report" / "report.html").read_text()
    assert "<strong>fid</strong>: n=2: dataset-level metrics of fewer than 10000" in page
    assert "unavailable: age_error: no age model named" in page
    board = tables.read_table(root, "leaderboard").set_index(["method", "metric"])
    assert board.loc[("bicubic", "fid"), "rank"] == 1
    assert board["rank"].isna()[("lq", "fid")]
    assert board.loc[("lq", "fid"), "n"] == 2
    merged = ffhqref("report", "root=both", "merge=[w]", "report.n_bootstrap=50")
    assert merged.returncode == 0, merged.stderr

    again = ffhqref("score", *options)
    assert "writing" not in again.stderr
    assert tables.read_table(root, "scores").equals(scores)


def _truths(root, cases):
    from ffhqref.store.workspace import Workspace

    workspace = Workspace(str(root), read_only=True)
    return [workspace.image(path) for path in cases["gt_path"]]


def test_mistakes_end_before_any_work(ffhqref):
    assert "Did you mean 'fid'" in one_line(ffhqref("run", "root=w", "set_metric=[fidd]"))
    clash = ("metric=[psnr]", "+metric.fid={name: psnr}", "set_metric=[fid]")
    assert "metric.fid: a value of the whole set has that name" in one_line(ffhqref("run", "root=w", *clash))
    assert "expected a list" in one_line(ffhqref("run", "root=w", "set_metric=fid"))
    assert not list((ffhqref.folder / "w").rglob("*.parquet"))
