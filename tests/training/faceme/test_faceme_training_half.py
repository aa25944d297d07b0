"""FaceMe's training in float16, the published precision, through accelerate's own loss scaling.

Accelerate offers float16 on GPUs alone. Its scaler and its autocast work on a CPU too, and are switched on by hand.
"""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from ffhqref.training.faceme.data import BatchRules
from ffhqref.training.loop import train
from ffhqref.training.runtime import TrainingRuntime

from .faceme_training_world import state


@pytest.fixture
def half():
    """Return what makes a float16 runtime on the CPU."""
    accelerate = pytest.importorskip("accelerate")

    def made():
        runtime = TrainingRuntime()
        accelerator = runtime.accelerator
        accelerator.state._mixed_precision = "fp16"
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        return runtime

    yield made
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("stage", [1, 2])
def test_float16_keeps_what_is_trained_and_the_vae_in_float32_and_follows_float32(world, half, stage):
    source = world.source(BatchRules(2, identity_share=1.0 if stage == 1 else 0.5, seed=4))
    exact = world.task(stage=stage)
    rough = world.task(stage=stage, run={"precision": "float16"}, runtime=half())
    assert {value.dtype for _, value in rough.trained} == {torch.float32}
    assert rough.unet.dtype == torch.float16
    assert {value.dtype for value in rough.vae.state_dict().values()} == {torch.float32}
    if stage == 2:
        assert {value.dtype for value in rough.mix.parameters()} == {torch.float16}
    batch = source(0, 0, 1)
    for task in (exact, rough):
        task.gradients([(batch, task.draws(batch))])
    scale = rough.runtime.state_dict()["scaler"]["scale"]
    reached = 0
    for (name, ours), (_, theirs) in zip(rough.trained, exact.trained, strict=True):
        wanted = torch.zeros(()) if theirs.grad is None else theirs.grad
        found = torch.zeros(()) if ours.grad is None else ours.grad / scale
        assert (found - wanted).norm() <= 0.02 * wanted.norm() + 1e-7, name
        reached += bool(wanted.any())
    assert reached >= 10  # the first step reaches the zero convolutions and, in stage 1, Mix
    for step in range(4):
        batch = source(step, 0, 1)
        wanted, found = (task.step([batch], 1e-4, torch.Generator())["loss"] for task in (exact, rough))
        assert found == pytest.approx(wanted, rel=5e-3)
    assert all(torch.isfinite(value).all() for _, value in rough.trained)
    assert {value.dtype for _, value in rough.trained} == {torch.float32}


def test_gradients_that_overflow_are_skipped_and_the_scale_falls(world, half):
    runtime = half()
    runtime.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    task = world.task(run={"precision": "float16"}, runtime=runtime)
    before = state(task)
    loss = task.step([world.source(BatchRules(2, seed=4))(0, 0, 1)], 1e-3, torch.Generator())["loss"]
    assert np.isfinite(loss)
    assert runtime.accelerator.scaler.get_scale() < 2.0**40
    assert all(torch.equal(value, before[name]) for name, value in task.trained)


def test_a_resumed_float16_run_equals_the_unbroken_one(world, half, tmp_path):
    source = world.source(BatchRules(2, seed=4))

    def go(folder, max_steps=None):
        task = world.task(run={"precision": "float16", "steps": 4, "save_every": 1}, runtime=half())
        written = train(task, source, tmp_path / folder, max_steps=max_steps)
        return task, written

    go("broken", max_steps=2)
    (broken, _), (whole, _) = go("broken"), go("whole")
    for (name, ours), (_, theirs) in zip(broken.trained, whole.trained, strict=True):
        assert torch.equal(ours, theirs), name
    curves = [list(csv.reader((tmp_path / name / "curve.csv").open())) for name in ("broken", "whole")]
    assert curves[0] == curves[1]
    scale = torch.load(tmp_path / "whole" / "state.pt", weights_only=True)["runtime"]["scaler"]
    assert scale["scale"] == 2.0**12
