"""FaceMe's training learns: one batch by heart, and what only the references tell."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ffhqref.training.faceme.data import BatchRules, FaceMeBatch
from ffhqref.training.faceme.small import CROSS
from ffhqref.training.faceme.task import TrainingDraws

from .faceme_training_world import IDENTITY


def test_one_batch_is_learnt_by_heart(world):
    task = world.task()
    batch = world.source(BatchRules(batch_size=2))(0, 0, 1)
    draws = task.draws(batch)
    losses = []
    for _ in range(60):
        losses.append(task.gradients([(batch, draws)])["loss"])
        task.update(1e-3)
    assert losses[0] > 0.9
    assert losses[-1] < 0.5


@pytest.mark.slow
def test_right_references_beat_shuffled_ones(world):
    """A toy whose answer only the references have: an image a person, of which the condition image shows nothing.

    At the last times the noisy latent tells nothing either, and the velocity to be predicted is the latent itself. The
    prompt is cut to eight tokens, so that four references are half of what attention sees.
    """
    short = dataclasses.replace(world.prompt, states=world.prompt.states[:, :8])
    task = world.task(networks=dataclasses.replace(world.networks(), prompt=short), run={"batch_size": 8})
    task.scheduler.register_to_config(prediction_type="v_prediction")
    rng, people = np.random.default_rng(1), 4
    identity, clip = rng.standard_normal((people, IDENTITY)), rng.standard_normal((people, CROSS))
    identity /= np.linalg.norm(identity, axis=1, keepdims=True)
    blocks = rng.choice([-1.0, 1.0], (people, 3, 4, 4)).repeat(16, axis=2).repeat(16, axis=3)

    def pair(who: np.ndarray, told: np.ndarray, seed: int) -> tuple[FaceMeBatch, TrainingDraws]:
        target = torch.from_numpy(blocks[who]).float()
        batch = FaceMeBatch(
            target=target,
            condition=torch.zeros_like(target),
            identity=torch.from_numpy(identity[told, None].repeat(4, axis=1)).float(),
            clip=torch.from_numpy(clip[told, None].repeat(4, axis=1)).float(),
            text=False,
            seed=seed,
            names=(),
        )
        drawn = task.draws(batch)
        return batch, TrainingDraws(torch.zeros_like(drawn.posterior), drawn.noise, 900 + drawn.times // 10)

    everybody = np.arange(people)
    means, _ = task.moments(pair(everybody, everybody, 0)[0])
    task.vae.register_to_config(scaling_factor=float(0.3 / (means - means.mean(0)).std()))
    for step in range(240):
        who = rng.integers(people, size=8)
        task.gradients([pair(who, who, step)])
        task.update(3e-3)
    right, wrong = [], []
    with torch.no_grad():
        for seed in range(10_000, 10_006):
            who = rng.integers(people, size=8)
            right.append(float(task.forward(*pair(who, who, seed)).loss))
            wrong.append(float(task.forward(*pair(who, (who + 1 + seed % 3) % people, seed)).loss))
    assert np.mean(wrong) > 1.5 * np.mean(right)
