"""What a training is trained on and from is known by content: moved folders are the same, changed files are not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import save_png
from ffhqref.core.options import read_options
from ffhqref.reference_sets.training_images import TrainingImages
from ffhqref.training.faceme.run import FaceMePlan, train_faceme
from ffhqref.training.log import untracked
from ffhqref.training.options import TrainOptions
from ffhqref.training.refldm.run import RefLDMPlan, train_refldm

if TYPE_CHECKING:
    from ffhqref.core.trackers import Track

from .faceme.faceme_training_world import SIDE, World, picture

MODELS = ("vqgan", "ldm", "refldm")
RUN = {"steps": 1, "batch_size": 2, "warmup": 0}
SMALL = {
    "model": {
        "params": {
            "image_size": 16, "channels": 3,
            "first_stage_config": {"params": {
                "embed_dim": 3, "n_embed": 16,
                "ddconfig": {"z_channels": 3, "resolution": 32, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1},
            }},
            "unet_config": {"params": {
                "in_channels": 6, "out_channels": 3, "model_channels": 32, "attention_resolutions": [2],
                "num_res_blocks": 1, "channel_mult": [1, 2], "num_head_channels": 32,
            }},
        }
    }
}  # fmt: skip


def refldm_plan(folder: Path, **options) -> RefLDMPlan:
    given = {
        "folder": str(folder), "architecture": SMALL, "sample_every": 0,
        "vqgan": {**RUN, "perceptual_weight": 0.0, "discriminator_width": 8}, "ldm": {**RUN, "references": 0},
        "refldm": {**RUN, "references": 1}, **options,
    }  # fmt: skip
    for name in ("ldm", "refldm"):
        given[name] = {**given[name], "identity_weight": 0.0}
    return RefLDMPlan.of(read_options(TrainOptions, given, "train"), MODELS, seed=1)


def images_in(folder: Path) -> TrainingImages:
    """Two images each of two people."""
    rows = [
        {"image_id": path.stem, "sha256": sha256_file(path), "of_faces": False, "file": path, "person": path.stem[0]}
        for path in sorted(folder.glob("*.png"))
    ]
    return TrainingImages(pd.DataFrame(rows), {}, frozenset(), (), (), None)


def trained(plan: RefLDMPlan, images: TrainingImages, track: Track = untracked) -> list[str]:
    lines: list[str] = []
    train_refldm(plan, images, "cpu", lines.append, track)
    return lines


@pytest.fixture(scope="module")
def refldm_once(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("refldm")
    for k, name in enumerate(("a0", "a1", "b0", "b1")):
        save_png(tmp_path / "images" / f"{name}.png", np.full((64, 64, 3), 40 * k, np.uint8))
    tracked: dict[tuple[str, int | None], float] = {}
    lines = trained(
        refldm_plan(tmp_path / "train"),
        images_in(tmp_path / "images"),
        lambda values, step: tracked.update({(name, step): value for name, value in values.items()}),
    )
    assert not any("done before" in line for line in lines)
    for model in MODELS:  # trackers get the rows of the curve
        for row in pd.read_csv(tmp_path / "train" / model / "curve.csv").to_dict("records"):
            step, _ = row.pop("step"), row.pop("learning_rate")
            for name, value in row.items():
                assert tracked[f"{model}/{name}", step + 1] == pytest.approx(value, rel=1e-6)
    return tmp_path


@pytest.fixture
def refldm(refldm_once, tmp_path):
    """A trained ReF-LDM in ``train``, of the images in ``images``."""
    return shutil.copytree(refldm_once, tmp_path / "room")


def test_refldm_in_moved_folders_is_done_before(refldm):
    elsewhere = refldm / "elsewhere"
    for name in ("images", "train"):
        shutil.move(refldm / name, elsewhere / name)
    lines = trained(refldm_plan(elsewhere / "train"), images_in(elsewhere / "images"))
    assert sum("done before" in line for line in lines) == 3


def test_refldm_does_not_go_on_with_a_changed_image(refldm):
    """The name is the same; a key of names would not notice."""
    save_png(refldm / "images" / "a1.png", np.full((64, 64, 3), 255, np.uint8))
    with pytest.raises(ConfigError, match=r"train/vqgan belongs to a training on other images"):
        trained(refldm_plan(refldm / "train"), images_in(refldm / "images"))


def test_a_checkpoint_that_is_started_from_counts_by_its_content(refldm):
    start = refldm / "given.ckpt"
    shutil.copy(refldm / "train" / "vqgan" / "vqgan.ckpt", start)
    plan, images = refldm_plan(refldm / "second", start=str(start)), images_in(refldm / "images")
    plan = replace(plan, models=("vqgan",))
    assert "done before" not in trained(plan, images)[-1]
    shutil.move(start, refldm / "renamed.ckpt")
    moved = replace(plan, start=refldm / "renamed.ckpt")
    assert "done before" in trained(moved, images)[-1]
    shutil.copy(refldm / "second" / "vqgan" / "vqgan.ckpt", refldm / "renamed.ckpt")
    with pytest.raises(ConfigError, match="from other networks"):
        trained(moved, images)


@pytest.fixture(scope="module")
def faceme(tmp_path_factory):
    """Both stages of FaceMe trained in ``train``, on a base in ``world``."""
    root = tmp_path_factory.mktemp("faceme")
    world = World(root / "world")
    for sample in world.samples:
        save_png(sample.target, picture(sample.target))
    train_faceme(faceme_plan(root), world.samples, "cpu", lambda line: None)
    return root, world


def faceme_plan(root: Path) -> FaceMePlan:
    from ffhqref.training.faceme.small import CROSS

    from .faceme.faceme_training_world import IDENTITY

    run = {"steps": 1, "batch_size": 1, "warmup": 0}
    options = {
        "base": str(root / "world" / "base"), "side": SIDE, "common": run,
        "config": {
            "mix": {"embed_dim": CROSS, "id_dim": IDENTITY},
            "id_encoder": {"projection_dim": 24, "projection_dim_2": CROSS - 24},
        },
    }  # fmt: skip
    given = {"folder": str(root / "train"), "sample_every": 0, "faceme": options}
    return FaceMePlan.of(read_options(TrainOptions, given, "train"), seed=1)


def test_faceme_in_moved_folders_is_done_before_and_another_base_is_refused(faceme):
    root, world = faceme
    elsewhere = root / "elsewhere"
    for name in ("world", "train"):
        shutil.move(root / name, elsewhere / name)
    lines: list[str] = []
    train_faceme(faceme_plan(elsewhere), world.samples, "cpu", lines.append)
    assert sum("done before" in line for line in lines) == 2
    scheduler = elsewhere / "world" / "base" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    with pytest.raises(ConfigError, match="from other networks"):
        train_faceme(faceme_plan(elsewhere), world.samples, "cpu", lines.append)
