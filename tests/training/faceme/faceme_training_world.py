"""A small world to train FaceMe in: base networks with random weights, images and features that are made up."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.training.faceme.data import BatchRules, FaceMeBatches
from ffhqref.training.faceme.features import write_feature
from ffhqref.training.faceme.lists import Sample, feature_of
from ffhqref.training.faceme.references import PoolRules
from ffhqref.training.faceme.settings import FaceMeSettings
from ffhqref.training.faceme.small import CROSS, write_small_base
from ffhqref.training.faceme.start import Networks, encode_prompt, load_networks
from ffhqref.training.faceme.task import FaceMeTask
from ffhqref.training.faces import unrounded_degradation
from ffhqref.training.runtime import TrainingRuntime
from ffhqref.training.settings import RunSettings
from ffhqref.zoo.faceme.config import MixConfig

if TYPE_CHECKING:
    import torch

SIDE = 64
IDENTITY = 8
PARTS = ("target", "condition", "identity", "clip")
"""What a batch holds of each sample."""


def picture(name: str) -> np.ndarray:
    """A smooth image that the name decides."""
    import cv2

    small = np.random.default_rng(sum(map(ord, Path(name).stem))).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


class World:
    """Networks and samples in a folder."""

    def __init__(self, folder: Path, counts: tuple[int, ...] = (5, 2, 3, 4)) -> None:
        self.folder = folder
        self.base = write_small_base(folder / "base", side=SIDE, widths=(32, 32))
        self.prompt = encode_prompt(self.base)
        rng = np.random.default_rng(0)
        names = [f"{index:05d}" for index in range(len(counts))]
        for name, count in zip(names, counts, strict=True):
            for key in [f"own/{name}", *(f"ref/{name}/0_{bucket}" for bucket in range(count))]:
                place, rest = key.split("/", 1)
                feature = feature_of(folder / place, rest)
                identity = rng.standard_normal(IDENTITY)
                write_feature(feature.identity, identity / np.linalg.norm(identity))
                # So that a pair taken apart is seen: the first CLIP channel repeats the first ArcFace channel.
                clip = rng.standard_normal(CROSS)
                clip[0] = identity[0] / np.linalg.norm(identity)
                write_feature(feature.clip, clip)
        self.samples = [
            Sample(
                str(folder / f"{name}.png"),
                feature_of(folder / "own", name),
                tuple(feature_of(folder / "ref", f"{name}/0_{bucket}") for bucket in range(count)),
            )
            for name, count in zip(names, counts, strict=True)
        ]
        self._networks = load_networks(self.base, self.prompt, mix_config=MixConfig(CROSS, IDENTITY), seed=3)

    def networks(self) -> Networks:
        """Fresh copies."""
        return copy.deepcopy(self._networks)

    def source(self, rules: BatchRules, pool: PoolRules | None = None, workers: int = 1, read=None) -> FaceMeBatches:
        """Batches of the samples; ``read`` takes a feature path in place of the files."""
        from ffhqref.training.faceme.features import FeatureFiles

        degrade = unrounded_degradation("faceme", SIDE)
        return FaceMeBatches(
            self.samples, picture, degrade, read or FeatureFiles(), rules, pool or PoolRules(), workers=workers
        )

    def task(self, *, run=None, runtime=None, networks=None, **settings) -> FaceMeTask:
        """A stage over fresh networks; a little resolution and few steps unless told otherwise."""
        made = FaceMeSettings(
            RunSettings(
                **{"steps": 6, "batch_size": 2, "learning_rate": 1e-3, "warmup": 0, "save_every": 3, "sample_every": 0}
                | (run or {})
            ),
            **{"resolution": SIDE, **settings},
        )
        return FaceMeTask(made, networks or self.networks(), runtime or TrainingRuntime())


def state(task: FaceMeTask) -> dict[str, torch.Tensor]:
    """Values of everything trained, copied."""
    return {name: value.detach().clone() for name, value in task.trained}
