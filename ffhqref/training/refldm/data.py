"""Batches for ReF-LDM's training, drawn by (seed, step), with the published augmentation of references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.core.seeding import case_seed
from ffhqref.training.augment import Augmentation, augment_reference, vary_person
from ffhqref.training.dataset import Draw, ReferenceDataset, collate, signed

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ffhqref.training.faces import TrainingItem


@dataclass(frozen=True)
class TrainingBatch:
    """Images of one step, float32 RGB in −1..1.

    Attributes:
        gt: [B, 3, H, W].
        lq: [B, 3, H, W].
        references: [B, N, 3, H, W]; N may be 0.
    """

    gt: torch.Tensor
    lq: torch.Tensor
    references: torch.Tensor


class FaceBatches:
    """Batches of faces: targets drawn at random, degraded, with augmented references.

    Args:
        items: what may be drawn.
        load: name to uint8 RGB [H, W, 3].
        degrade: (uint8 RGB image, seed) to its LQ image of the same size and type.
        batch_size: cases a batch and process.
        references: references a case: its list in random order, repeated and cut; 0: none.
        augment: whether references are augmented.
        vary: whether a case's target and references are changed alike, by `vary_person`.
        seed: keys every draw.

    Raises:
        ConfigError: there are no items, or references are asked for that some item does not have.
    """

    def __init__(
        self,
        items: Sequence[TrainingItem],
        load: Callable[[str], NDArray[np.uint8]],
        degrade: Callable[[NDArray[np.uint8], int], NDArray[np.uint8]],
        *,
        batch_size: int,
        references: int,
        augment: bool = True,
        vary: bool = False,
        seed: int = 2024,
    ) -> None:
        if not items:
            raise ConfigError("training: there is no image to train on")
        without = [item.target for item in items if not item.references]
        if references and without:
            raise ConfigError(f"training: {len(without)} targets have no reference, for instance {without[0]}")
        self._items = list(items)
        self._load = load
        self._batch_size = batch_size
        self._references = references
        self._seed = seed
        augmentation = Augmentation(vary_person if vary else None, augment_reference if augment else None, mirror=True)
        self._examples = ReferenceDataset(items, degradation=degrade, augment=augmentation, values=signed)

    def __call__(self, index: int, rank: int, processes: int) -> TrainingBatch:
        """Return a batch; see `ffhqref.training.loop.BatchSource`."""
        first = (index * processes + rank) * self._batch_size
        batch = collate([self._examples.make(self._draw(first + offset)) for offset in range(self._batch_size)])
        return TrainingBatch(gt=batch.gt, lq=batch.lq, references=batch.references)

    def _draw(self, number: int) -> Draw:
        rng = np.random.default_rng(case_seed(self._seed, "train", number))
        item = self._items[int(rng.integers(len(self._items)))]
        names = [item.references[i] for i in rng.permutation(len(item.references))]
        chosen = (names * self._references)[: self._references]
        references = tuple(partial(self._load, name) for name in chosen)
        return Draw(item.target, partial(self._load, item.target), references, rng)
