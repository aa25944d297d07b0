"""What the tests of ReF-LDM's training share: small tasks, images, an embedder, the table of losses."""

from __future__ import annotations

import csv

import numpy as np
import torch

from ffhqref.training.faces import TrainingItem
from ffhqref.training.refldm.data import FaceBatches
from ffhqref.training.refldm.diffusion import DiffusionTask
from ffhqref.training.refldm.settings import DiffusionSettings, VQGANSettings
from ffhqref.training.refldm.start import (
    fresh_first_stage,
    fresh_unet,
)
from ffhqref.training.refldm.vqgan import VQGANTask
from ffhqref.training.runtime import TrainingRuntime
from ffhqref.training.settings import RunSettings

RUN = RunSettings(steps=6, batch_size=2, learning_rate=1e-3, warmup=2, save_every=3, sample_every=0)


def smooth(seed: int, side: int = 64) -> np.ndarray:
    import cv2

    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def blurred(picture: np.ndarray, seed: int) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(picture, (0, 0), 2 + seed % 3)


def source(references: int, **options) -> FaceBatches:
    items = [TrainingItem(f"{i}", tuple(f"{i + 10 * (k + 1)}" for k in range(2 + i % 2))) for i in range(4)]
    return FaceBatches(
        items, lambda name: smooth(int(name)), blurred, references=references, **{"batch_size": 2, **options}
    )


def embedder() -> torch.nn.Module:
    """A fixed differentiable network in the place of a face embedder."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 7, 4),
            torch.nn.Tanh(),
            torch.nn.Conv2d(4, 8, 5, 4),
            torch.nn.Tanh(),
            torch.nn.Flatten(),
        )
    return net.requires_grad_(False)


def diffusion(config, references=2, run=RUN, device="cpu", **settings) -> DiffusionTask:
    chosen = DiffusionSettings(run, references=references, **{"identity_weight": 0.0, **settings})
    embed = embedder().to(device) if chosen.identity_weight else None
    runtime = TrainingRuntime(device, run.precision)
    return DiffusionTask(config, chosen, fresh_first_stage(config, 1), fresh_unet(config, 2), runtime, embed)


def vqgan(config, run=RUN, device="cpu", **settings) -> VQGANTask:
    chosen = VQGANSettings(run, perceptual_weight=0.0, **{"adversarial_start": 2, "discriminator_width": 8, **settings})
    return VQGANTask(config, chosen, fresh_first_stage(config, 1), TrainingRuntime(device, run.precision))


def rows(folder) -> list[list[str]]:
    with (folder / "curve.csv").open() as stream:
        return list(csv.reader(stream))
