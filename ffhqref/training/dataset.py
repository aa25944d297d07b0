"""Training examples as a torch data set: degraded while they are read, whatever the workers and the order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.core.images import SIZE
from ffhqref.core.seeding import case_seed
from ffhqref.store.workspace import Workspace
from ffhqref.training.augment import Augmentation, augment_reference
from ffhqref.training.faces import SmallImages, TrainingItem, degradation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.degradation import Degradation

    Degrade = Callable[[NDArray[np.uint8], int], NDArray[Any]]
    Values = Callable[[NDArray[Any]], torch.Tensor]


class Example(NamedTuple):
    """One training example, images as float32 RGB."""

    lq: torch.Tensor
    """[3, H, W]."""
    references: torch.Tensor
    """[N, 3, H, W]; N may be 0 and differ from example to example."""
    gt: torch.Tensor
    """[3, H, W]."""
    name: str
    """Of the target."""
    reference_names: tuple[str, ...]


class Batch(NamedTuple):
    """Examples of one batch."""

    lq: torch.Tensor
    """[B, 3, H, W]."""
    references: torch.Tensor
    """[B, N, 3, H, W], N being the most of the batch; what an example lacks is zero."""
    gt: torch.Tensor
    """[B, 3, H, W]."""
    mask: torch.Tensor
    """Bool [B, N]: which references are there."""
    names: tuple[str, ...]
    reference_names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Draw:
    """What an example is made of."""

    name: str
    target: Callable[[], NDArray[np.uint8]]
    """Reads the target, RGB [H, W, 3]."""
    references: Sequence[Callable[[], NDArray[Any]]]
    """Read the references: images like the target, or feature vectors."""
    rng: np.random.Generator
    """Of the augmentation, and of the degradation's seed where that is not given."""
    seed: int | None = None
    """Of the degradation."""
    reference_names: tuple[str, ...] = ()


class ReferenceDataset(Dataset[Example]):
    """Targets of a split as (LQ, references, GT), degraded and augmented anew in each epoch.

    Every draw is keyed by (seed, epoch, target). So neither the order nor the number of workers matters, and a resumed
    run draws what an unbroken one does: set the epoch, and let `KeyedSampler` leave out what was done.

    Args:
        root: a workspace with a reference set; or the examples themselves, targets and references as paths.
        split: whose targets are taken from the workspace.
        references: references of an example: at most that many; between two numbers, drawn; None: all. They come in
            random order.
        degradation: makes the LQ images: what `ffhqref.degradation.get_degradation` takes ("refldm-train", "faceme",
            "severe", a YAML file, options), or a function of (uint8 RGB [H, W, 3], seed).
        augment: of the references and by mirroring, as ReF-LDM's training does; or an own one; or none.
        size: height and width of the images; larger and smaller ones are resized.
        values: "unit", images in 0..1, or "signed", in −1..1; or what makes tensors of arrays [..., H, W, 3].
        seed: keys every draw.
        cache: keep that many decoded images in memory, for each worker.

    Raises:
        ConfigError: no target, or a wrong number of references, degradation or size.
    """

    def __init__(
        self,
        root: str | Path | Sequence[TrainingItem],
        split: Literal["train", "val", "test"] = "train",
        *,
        references: int | tuple[int, int] | None = None,
        degradation: str | Path | Mapping[str, Any] | Degradation | Degrade = "refldm-train",
        augment: bool | Augmentation = True,
        size: int = SIZE,
        values: Literal["unit", "signed"] | Values = "unit",
        seed: int = 2024,
        cache: int = 0,
    ) -> None:
        if isinstance(root, str | Path):
            self._names, self._items, known = _read_items(Path(root), split)
        else:
            self._items, known = list(root), {}
            self._names = _own_names({path for item in self._items for path in (item.target, *item.references)})
        if not self._items:
            raise ConfigError("training: there is no image to train on")
        self._least, self._most = _bounds(references)
        self._degrade = degradation if callable(degradation) else _degrader(degradation, size)
        if isinstance(augment, bool):
            augment = Augmentation(reference=augment_reference, mirror=True) if augment else Augmentation()
        self._augment = augment
        self._values = values if callable(values) else signed if values == "signed" else unit
        self._load = SmallImages(size, cache, known)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that live on see it change
        self.seed = seed

    @property
    def epoch(self) -> int:
        """Counted from 0."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which keys all draws. Do so before the loader is iterated."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of targets."""
        return len(self._items)

    def __getitem__(self, index: int) -> Example:
        """Return the example of a target in this epoch."""
        return self.make(self.draw(self._items[index]))

    def draw(self, item: TrainingItem) -> Draw:
        """Draw the references of a target in this epoch, and what changes it."""
        rng = np.random.default_rng(case_seed(self.seed, "example", self.epoch, self._names[item.target]))
        most = len(item.references) if self._most is None else min(self._most, len(item.references))
        count = int(rng.integers(min(self._least, most), most + 1))
        chosen = [item.references[place] for place in rng.permutation(len(item.references))[:count]]
        return Draw(
            self._names[item.target],
            partial(self._load, item.target),
            [partial(self._load, path) for path in chosen],
            rng,
            reference_names=tuple(self._names[path] for path in chosen),
        )

    def make(self, draw: Draw) -> Example:
        """Return an example: read, degraded, augmented."""
        rng, change = draw.rng, self._augment
        gt, given = draw.target(), [read() for read in draw.references]
        if change.person:
            gt, *given = change.person([gt, *given], rng)
        lq = self._degrade(gt, int(rng.integers(1 << 62)) if draw.seed is None else draw.seed)
        if change.reference:
            given = [change.reference(image, rng) for image in given]
        if change.mirror and rng.random() > 0.5:
            gt, lq, given = gt[:, ::-1], lq[:, ::-1], [image[:, ::-1] for image in reversed(given)]
        strip = np.stack(given) if given else np.zeros((0, *gt.shape), np.uint8)
        return Example(self._values(lq), self._values(strip), self._values(gt), draw.name, draw.reference_names)


class KeyedSampler(Sampler[int]):
    """Indices of a data set in an order keyed by its seed and epoch, for one of several processes.

    Args:
        dataset: whose epoch counts when the iteration begins.
        rank: of this process.
        processes: the last few indices are left out where they do not divide evenly.
        start: examples of this process to leave out in the first iteration: those done before a resume.
        shuffle: False: the order of the data set.
    """

    def __init__(
        self, dataset: ReferenceDataset, *, rank: int = 0, processes: int = 1, start: int = 0, shuffle: bool = True
    ) -> None:
        if not 0 <= rank < processes or start < 0:
            raise ConfigError(f"sampler: rank={rank}, processes={processes}, start={start} do not fit")
        self._dataset, self._rank, self._processes = dataset, rank, processes
        self._start, self._shuffle = start, shuffle

    def __len__(self) -> int:
        """Return the number of indices in a whole epoch."""
        return len(self._dataset) // self._processes

    def __iter__(self) -> Iterator[int]:
        """Yield the indices."""
        data, start, self._start = self._dataset, self._start, 0
        order = np.arange(len(data))
        if self._shuffle:
            order = np.random.default_rng(case_seed(data.seed, "order", data.epoch)).permutation(order)
        mine = order[self._rank :: self._processes][: len(self)]
        return iter(mine[start:].tolist())


def collate(examples: Sequence[Example]) -> Batch:
    """Return examples as a batch, references padded with zeros to the most that one has.

    Raises:
        ImageError: their images have several sizes.
    """
    sizes = {tuple(example.gt.shape) for example in examples}
    if len(sizes) > 1:
        raise ImageError(f"training: images of one batch have several sizes: {sorted(sizes)}")
    counts = np.array([len(example.references) for example in examples])
    most = int(counts.max())
    references = [example.references.numpy() for example in examples]
    padded = [
        np.concatenate([given, np.zeros((most - len(given), *given.shape[1:]), given.dtype)])
        if len(given) < most
        else given
        for given in references
    ]
    return Batch(
        _stacked([example.lq.numpy() for example in examples]),
        _stacked(padded),
        _stacked([example.gt.numpy() for example in examples]),
        torch.from_numpy(np.arange(most) < counts[:, None]),
        tuple(example.name for example in examples),
        tuple(example.reference_names for example in examples),
    )


def _stacked(parts: Sequence[NDArray[Any]]) -> torch.Tensor:
    """Return arrays as one tensor. By NumPy: torch would wake its threads for each copy, and they wait spinning."""
    return torch.from_numpy(np.stack(parts))


def unit(images: NDArray[Any]) -> torch.Tensor:
    """Return images [..., H, W, 3], 8 bit or real-valued in 0..1, as float32 [..., 3, H, W] in 0..1."""
    return torch.from_numpy(_channels_first(images, 255.0))


def signed(images: NDArray[Any]) -> torch.Tensor:
    """Return images [..., H, W, 3], 8 bit or real-valued in 0..1, as float32 [..., 3, H, W] in −1..1."""
    made = _channels_first(images, 127.5, 0.5)
    made -= np.float32(1)
    return torch.from_numpy(made)


def _channels_first(images: NDArray[Any], white: float, real_white: float = 1.0) -> NDArray[np.float32]:
    """Return images channels first, divided by what becomes 1."""
    made = np.moveaxis(images, -1, -3).astype(np.float32, order="C")
    made /= np.float32(white if images.dtype == np.uint8 else real_white)
    return made


def _read_items(root: Path, split: str) -> tuple[dict[str, str], list[TrainingItem], dict[str, str]]:
    """Return image ids by path, the targets of a split with their references by rank, and hashes by path."""
    workspace = Workspace(root, read_only=True)
    images, references = workspace.read("images"), workspace.read("references")
    paths = {
        image_id: str(workspace.image(path)) for image_id, path in zip(images["image_id"], images["path"], strict=True)
    }
    mine = references[references["split"] == split].sort_values(["target_id", "rank"])
    if mine.empty:
        raise ConfigError(f"split={split}: {root} has no target with references there; see ffhqref build")
    items = [
        TrainingItem(paths[target], tuple(paths[name] for name in group))
        for target, group in mine.groupby("target_id", sort=True)["reference_id"]
    ]
    known = dict(zip(paths.values(), images["sha256"], strict=True))
    return {path: image_id for image_id, path in paths.items()}, items, known


def _own_names(paths: set[str]) -> dict[str, str]:
    """Return the stem of each path, or its path below all of them where two have one stem: names key the draws."""
    stems = {path: Path(path).stem for path in paths}
    if len(set(stems.values())) == len(stems):
        return stems
    common = Path(os.path.commonpath([Path(path).parent.absolute() for path in paths]))
    return {path: Path(path).absolute().relative_to(common).as_posix() for path in paths}


def _bounds(references: int | tuple[int, int] | None) -> tuple[int, int | None]:
    """Return the least and the most references; an example may have fewer than the least."""
    if references is None:
        return 1 << 62, None
    least, most = (references, references) if isinstance(references, int) else references
    if not 0 <= least <= most:
        raise ConfigError(f"references={references}: expected a number from 0 on, or (LEAST, MOST)")
    return least, most


def _degrader(given: str | Path | Mapping[str, Any] | Degradation, size: int) -> Degrade:
    return degradation(given, size)
