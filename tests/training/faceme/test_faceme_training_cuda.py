"""FaceMe's training on a CUDA device: the steps, states and checkpoints of the CPU."""

from __future__ import annotations

import csv

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from ffhqref.training.faceme.data import BatchRules
from ffhqref.training.loop import train
from ffhqref.training.runtime import TrainingRuntime


def test_a_cuda_device_takes_the_steps_of_the_cpu(world, tmp_path, cuda):
    """Steps, a saved state, a resumed run, a sample grid and checkpoints."""
    source = world.source(BatchRules(2, identity_share=0.5, seed=4))
    run = {"steps": 2, "save_every": 1, "sample_every": 2}
    more = {"ema_decay": 0.9, "cached_latents": 2, "gradient_checkpointing": True, "sample_steps": 1}

    def go(device, max_steps=None):
        task = world.task(run=run, runtime=TrainingRuntime(device), **more)
        return train(task, source, tmp_path / device, look=source(0, 0, 1), max_steps=max_steps)

    with sdpa_kernel(SDPBackend.MATH):
        go(cuda, max_steps=1)
        written = {device: go(device) for device in ("cpu", cuda)}
    assert (tmp_path / cuda / "samples" / "0000002.png").is_file()
    with (tmp_path / "cpu" / "curve.csv").open() as one, (tmp_path / cuda / "curve.csv").open() as other:
        here, there = (np.array(list(csv.reader(stream))[1:], float) for stream in (one, other))
    assert len(here) == 2
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-4)
    assert [path.name for path in written[cuda]] == [path.name for path in written["cpu"]]
    for ours, theirs in zip(written["cpu"], written[cuda], strict=True):
        for file in sorted(ours.glob("*.safetensors")):
            here, there = load_file(file), load_file(theirs / file.name)
            assert here.keys() == there.keys()
            assert all(here[name].shape == there[name].shape for name in here)


def test_bfloat16_trains_on_a_cuda_device(world, cuda):
    task = world.task(run={"precision": "bfloat16"}, runtime=TrainingRuntime(cuda, "bfloat16"))
    source = world.source(BatchRules(2, seed=4))
    assert all(np.isfinite(task.step([source(step, 0, 1)], 1e-3, torch.Generator())["loss"]) for step in range(2))
