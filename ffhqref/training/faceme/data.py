"""Batches for FaceMe's training: the published draws, each keyed so that order and workers do not matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.core.seeding import case_seed
from ffhqref.training.dataset import Draw, Example, ReferenceDataset, collate
from ffhqref.training.faceme.references import MOST, PoolRules, pick
from ffhqref.training.faces import TrainingItem

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ffhqref.training.faceme.lists import Feature, Sample


@dataclass(frozen=True)
class FaceMeBatch:
    """One micro-batch.

    Attributes:
        target: float32 RGB [B, 3, H, W] in −1..1.
        condition: the degraded images, the same shape and range; pixels, not latents.
        identity: ArcFace vectors of unit length, float32 [B, n, 512], the n first references of each sample.
        clip: CLIP features, float32 [B, n, 2048].
        text: the whole batch is conditioned on the plain text, without identity tokens.
        seed: of the draws on latents: posterior, time steps, noise.
        names: of the samples, for caches.
    """

    target: torch.Tensor
    condition: torch.Tensor
    identity: torch.Tensor
    clip: torch.Tensor
    text: bool
    seed: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class BatchRules:
    """What is drawn how.

    Attributes:
        batch_size: samples a batch and process.
        identity_share: share of the batches that are conditioned on references, one decision a batch. The published
            script calls it ``null_prompt_p``, although it is the share of *identity* batches. Stage 1: 1.
        most: n, the number of references, is uniform over 1..most, one n a batch.
        draws_per_device: each process draws degradation, n, branch and noise for itself. False, as published (every
            process sets the same seed): all draw the same for the same step and slot.
        seed: keys every draw.
    """

    batch_size: int
    identity_share: float = 1.0
    most: int = MOST
    draws_per_device: bool = False
    seed: int = 233

    def __post_init__(self) -> None:
        if not 0.0 <= self.identity_share <= 1.0:
            raise ConfigError(f"training: identity_share must lie in 0..1, not {self.identity_share}")
        if not 1 <= self.most <= MOST:
            raise ConfigError(f"training: the most references of a sample must be 1 to {MOST}, not {self.most}")


class FaceMeBatches:
    """Batches of faces with references by their features.

    Samples come in a new random order in each epoch, and epochs follow each other without a gap: a batch may hold the
    end of one and the beginning of the next (the published loader makes a smaller batch there).

    Args:
        samples: what to train on.
        load: image path to uint8 RGB [H, W, 3]; all of one size.
        degrade: (uint8 RGB image, seed) to float32 RGB [H, W, 3] in 0..1, not rounded to 8 bit.
        feature: feature file to its vector, float32 [D].
        rules: of the draws.
        pool: of the references.
        workers: threads that make the samples of a batch; the result does not depend on it.

    Raises:
        ConfigError: there are no samples, or one has nothing to draw references from.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        load: Callable[[str], NDArray[np.uint8]],
        degrade: Callable[[NDArray[np.uint8], int], NDArray[np.float32]],
        feature: Callable[[str], NDArray[np.float32]],
        rules: BatchRules,
        pool: PoolRules,
        workers: int = 1,
    ) -> None:
        if not samples:
            raise ConfigError("training: there is no image to train on")
        without = [] if pool.own_embedding else [sample.name for sample in samples if not sample.references]
        if without:
            raise ConfigError(
                f"training: {len(without)} samples have no reference, for instance {without[0]}; leave them out, or "
                "allow the target's own embedding"
            )
        self._samples = list(samples)
        self._load, self._feature = load, feature
        items = [TrainingItem(sample.target) for sample in samples]
        self._examples = ReferenceDataset(items, degradation=degrade, augment=False, values=_tensor)
        self._rules, self._pool = rules, pool
        self._threads = ThreadPoolExecutor(workers) if workers > 1 else None
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __call__(self, index: int, rank: int, processes: int) -> FaceMeBatch:
        """Return a batch; see `ffhqref.training.loop.BatchSource`."""
        rules = self._rules
        device = rank if rules.draws_per_device else 0
        rng = np.random.default_rng(case_seed(rules.seed, "batch", index, device))
        count, text, seed = (
            1 + int(rng.integers(rules.most)),
            rng.random() > rules.identity_share,
            rng.integers(1 << 62),
        )
        first = (index * processes + rank) * rules.batch_size
        slots = range(rules.batch_size)

        def example(slot: int) -> Example:
            seed = case_seed(rules.seed, "degrade", index, slot, device)
            return self._examples.make(self._draw(first + slot, count, seed))

        batch = collate(list(self._threads.map(example, slots) if self._threads else map(example, slots)))
        width = len(self._feature(self._samples[0].own.identity))
        return FaceMeBatch(
            target=batch.gt,
            condition=batch.lq,
            identity=_copied(batch.references[..., :width]),
            clip=_copied(batch.references[..., width:]),
            text=bool(text),
            seed=int(seed),
            names=batch.names,
        )

    def sample_at(self, position: int) -> tuple[int, int]:
        """Return (index of the sample, epoch) of a place in the endless stream of samples."""
        epoch, place = divmod(position, len(self._samples))
        order = self._orders.get(epoch)
        if order is None:
            rng = np.random.default_rng(case_seed(self._rules.seed, "order", epoch))
            order = rng.permutation(len(self._samples))
            self._orders = {key: value for key, value in self._orders.items() if key >= epoch - 1} | {epoch: order}
        return int(order[place]), epoch

    def _draw(self, position: int, count: int, seed: int) -> Draw:
        index, epoch = self.sample_at(position)
        sample = self._samples[index]
        chosen = pick(sample, self._rules.seed, epoch, self._pool)[:count]
        features = [partial(self._features, feature) for feature in chosen]
        return Draw(sample.name, partial(self._load, sample.target), features, np.random.default_rng(seed), seed)

    def _features(self, feature: Feature) -> NDArray[np.float32]:
        """Return both vectors of an image one after the other."""
        return np.concatenate([self._feature(feature.identity), self._feature(feature.clip)])


def _copied(part: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(part.numpy()))


def _tensor(values: NDArray[Any]) -> torch.Tensor:
    """Return a target, a degraded image or the vectors of references as a tensor."""
    import torch

    if values.ndim == 2:
        return torch.from_numpy(values)
    return torch.from_numpy(signed_image(values) if values.dtype == np.uint8 else signed_condition(values))


def signed_image(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return uint8 [H, W, 3] as float32 [3, H, W] in −1..1, by way of double as the published data set class does."""
    unit = (image / 255.0).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(unit * np.float32(2) - np.float32(1), -1, 0))


def signed_condition(degraded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a degraded image, float32 [H, W, 3], clipped to 0..1, as [3, H, W] in −1..1."""
    unit = np.clip(degraded, 0.0, 1.0).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(unit * np.float32(2) - np.float32(1), -1, 0))
