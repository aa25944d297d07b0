"""``ffhqref train``: killed at any moment and started again, it ends as an unbroken run does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ffhqref.store import tables
from ffhqref.training.faces import items_by_person

from ..command import REPOSITORY
from .test_cli import one_line

MICRO = (
    "device=cpu", "train.threads=1", "train.save_every=4", "train.sample_every=10",
    "train.vqgan.steps=20", "train.vqgan.batch_size=2", "train.ldm.steps=6", "train.ldm.batch_size=2",
    "train.refldm.steps=6", "train.refldm.batch_size=2",
    "train.architecture.model.params.image_size=16",
    "train.architecture.model.params.first_stage_config.params.n_embed=16",
    "train.architecture.model.params.first_stage_config.params.ddconfig.resolution=32",
    "train.architecture.model.params.unet_config.params.model_channels=32",
)  # fmt: skip


@pytest.mark.slow
def test_killed_and_resumed_equals_unbroken(ffhqref, workspace):
    """All three trainings; the first one is killed without warning between two saved states."""
    whole = ffhqref("train", f"root={workspace}", "train.folder=whole", *MICRO)
    assert whole.returncode == 0, whole.stderr
    arguments = ("train", f"root={workspace}", "train.folder=parts", *MICRO)
    process = ffhqref.start(*arguments)
    curve = ffhqref.folder / "parts" / "vqgan" / "curve.csv"
    while process.poll() is None and not (curve.is_file() and len(curve.read_text().splitlines()) > 7):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (ffhqref.folder / "parts" / "vqgan" / "vqgan.ckpt").exists(), "killed too late to test anything"
    again = ffhqref(*arguments)
    assert again.returncode == 0, again.stderr
    for name, file in (("vqgan", "vqgan.ckpt"), ("ldm", "refldm.ckpt"), ("refldm", "refldm.ckpt")):
        one, other = (ffhqref.folder / run / name for run in ("whole", "parts"))
        assert (one / "curve.csv").read_text() == (other / "curve.csv").read_text()
        first, second = (torch.load(folder / file, weights_only=True) for folder in (one, other))
        first, second = first.get("state_dict", first), second.get("state_dict", second)
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert (ffhqref.folder / "whole" / "vqgan" / "samples" / "0000020.png").is_file()
    assert "vqgan 20/20" in whole.stderr + whole.stdout
    # What is done is not loaded again: the states cannot be read, and nobody notices.
    for name in ("vqgan", "ldm", "refldm"):
        (ffhqref.folder / "parts" / name / "state.pt").write_bytes(b"no state")
    done = ffhqref(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done before, ") == 3
    (ffhqref.folder / "parts" / "ldm" / "refldm.ckpt").unlink()
    lost = ffhqref(*arguments)
    assert lost.returncode == 2
    assert "ldm/state.pt cannot be read" in lost.stderr


def test_the_test_split_is_refused(ffhqref, workspace):
    done = ffhqref("train", f"root={workspace}", "train.splits=[train,test]", *MICRO)
    assert done.returncode == 2
    assert "test split" in one_line(done)


def test_a_stage_without_its_start_is_told(ffhqref, workspace):
    done = ffhqref("train", f"root={workspace}", "model=refldm", "train.folder=none", *MICRO)
    assert done.returncode == 2
    assert "train model=vqgan" in one_line(done)


def test_nobody_of_the_test_split_is_trained_on(workspace):
    """What the plan names, against the tables."""
    from ffhqref.cli.main import pipeline_module
    from ffhqref.config.source import compose

    pipeline = pipeline_module("train")
    config = compose([f"root={workspace}", "device=cpu"])
    with pipeline.open_context(config) as context:
        plan = pipeline.check_train(context)
    identities = tables.read_table(workspace, "identities")
    test = set(identities.loc[identities["split"] == "test", "image_id"])
    images = plan.refldm[1]
    items = items_by_person(images.by_person())
    used = {Path(name).stem for item in items for name in (item.target, *item.references)}
    assert used
    assert test
    assert not used & test
    person = dict(zip(identities["image_id"], identities["identity_id"], strict=True))
    assert all(person[Path(item.target).stem] == person[Path(name).stem] for item in items for name in item.references)


@pytest.mark.slow
def test_two_processes_train_as_one(workspace, tmp_path):
    """Under torchrun, as under accelerate launch: one lock, one curve, one checkpoint, which the next stage takes."""
    for model in ("vqgan", "ldm"):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "ffhqref.cli.main", "train", f"root={workspace}", f"train.folder={tmp_path / 't'}", *MICRO]
        command += [f"model={model}", "train.vqgan.revive_after=0"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("train: ") == 1
    assert len((tmp_path / "t" / "ldm" / "curve.csv").read_text().splitlines()) == 1 + 6


def test_the_identity_loss_needs_its_network_and_says_so(ffhqref, workspace):
    done = ffhqref("train", f"root={workspace}", "train.folder=t", "model=ldm", "train.ldm.identity_weight=0.1", *MICRO)
    assert "weights 'webface-r50' are not on this machine" in one_line(done)
