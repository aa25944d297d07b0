"""The data set for training: one example, whatever the workers, the order, and where a run was broken off."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.core.images import read_rgb, save_png
from ffhqref.training.dataset import Batch, KeyedSampler, ReferenceDataset, collate
from ffhqref.training.faces import TrainingItem, degradation

SIDE, BATCH = 32, 2


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingItem]:
    """Seven targets with 0 to 6 references."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(7)]
    for path in paths:
        save_png(path, rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    names = [str(path) for path in paths]
    return [TrainingItem(name, tuple(names[:place])) for place, name in enumerate(names)]


def data(items: list[TrainingItem], **options: Any) -> ReferenceDataset:
    return ReferenceDataset(items, **{"references": (1, 3), "size": SIDE, **options})


def batches(source: ReferenceDataset, workers: int = 0, epochs: range = range(2), start: int = 0) -> list[Batch]:
    """Read some epochs with a loader whose workers live on from one to the next."""
    loader = DataLoader(
        source,
        BATCH,
        sampler=KeyedSampler(source, start=start),
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )
    found = []
    for epoch in epochs:
        source.set_epoch(epoch)
        found += list(loader)
    return found


def same(a: Batch, b: Batch) -> bool:
    return a.names == b.names and all(torch.equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_and_a_resume_change_nothing(items):
    alone = batches(data(items))
    assert len(alone) == 8
    assert [name for batch in alone[:4] for name in batch.names] != [
        name for batch in alone[4:] for name in batch.names
    ]
    for workers in (1, 4):
        assert all(map(same, alone, batches(data(items), workers)))
    # broken off in the second epoch after two batches, by a process that knows these two numbers only
    resumed = batches(data(items), epochs=range(1, 2), start=2 * BATCH)
    assert len(resumed) == 2
    assert all(map(same, alone[6:], resumed))


def test_epochs_and_seeds_draw_anew_and_order_does_not_matter(items):
    source = data(items)
    first = source[6]
    assert torch.equal(first.lq, source[6].lq)
    source[2]
    assert torch.equal(first.lq, source[6].lq)
    source.set_epoch(1)
    assert not torch.equal(first.lq, source[6].lq)
    assert not torch.equal(first.lq, data(items, seed=1)[6].lq)
    counts = set()
    for epoch in range(20):
        source.set_epoch(epoch)
        counts.add(len(source[6].references))
        assert len(source[1].references) == 1
        assert len(source[0].references) == 0
    assert counts == {1, 2, 3}


def test_what_an_example_is_made_of(items):
    """Without augmentation, target and references are the files, and the LQ image is the degraded target."""
    seen: list[tuple[np.ndarray, int]] = []

    def degrade(image: np.ndarray, seed: int) -> np.ndarray:
        seen.append((image, seed))
        return degradation("severe", SIDE)(image, seed)

    example = data(items, augment=False, degradation=degrade, references=None)[3]
    assert sorted(example.reference_names) == ["0", "1", "2"]
    read = {Path(path).stem: read_rgb(path) for path in items[3].references}
    for name, image in zip(example.reference_names, example.references, strict=True):
        assert torch.equal(image, torch.from_numpy(read[name]).permute(2, 0, 1) / 255)
    assert torch.equal(example.gt, torch.from_numpy(read_rgb(items[3].target)).permute(2, 0, 1) / 255)
    ((image, seed),) = seen
    wanted = degradation("severe", SIDE)(image, seed)
    assert torch.equal(example.lq, torch.from_numpy(wanted).permute(2, 0, 1) / 255)
    by_name = data(items, augment=False, degradation="severe", references=None)[3]
    assert torch.equal(by_name.lq, example.lq)
    signed = data(items, augment=False, degradation="severe", references=None, values="signed")[3]
    torch.testing.assert_close(signed.gt, example.gt * 2 - 1)


def test_batches_are_padded_and_say_what_is_there(items):
    batch = collate([data(items, references=None, augment=False)[place] for place in (0, 2, 5)])
    assert batch.references.shape == (3, 5, 3, SIDE, SIDE)
    assert batch.mask.sum(dim=1).tolist() == [0, 2, 5]
    assert batch.references[~batch.mask].abs().max() == 0
    assert batch.references[batch.mask].flatten(1).amax(dim=1).min() > 0
    assert collate([data(items, references=0)[3]] * 2).references.shape == (2, 0, 3, SIDE, SIDE)


def test_processes_share_an_epoch(items):
    source = data(items)
    shares = [list(KeyedSampler(source, rank=rank, processes=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    assert len({index for share in shares for index in share}) == 6
    assert list(KeyedSampler(source, shuffle=False)) == list(range(7))


def test_a_workspace_is_a_data_set(built):
    source = ReferenceDataset(built, "train", references=2, size=SIDE)
    assert len(source) > 1
    example = source[0]
    assert example.lq.shape == example.gt.shape == (3, SIDE, SIDE)
    assert 1 <= len(example.references) <= 2
    assert example.name not in example.reference_names
    with pytest.raises(ConfigError, match=r"no workspace of ffhqref"):
        ReferenceDataset(built.parent)


def test_a_data_set_can_be_sent_to_another_process(items):
    source = data(items)
    source.set_epoch(3)
    assert torch.equal(pickle.loads(pickle.dumps(source))[4].lq, source[4].lq)


def test_mistakes_are_one_line(items, tmp_path):
    with pytest.raises(ConfigError, match="no image to train on"):
        data([])
    with pytest.raises(ConfigError, match=r"references=\(3, 1\): expected"):
        data(items, references=(3, 1))
    with pytest.raises(ConfigError, match="unknown degradation 'sever'"):
        data(items, degradation="sever")
    with pytest.raises(ConfigError, match="do not fit"):
        KeyedSampler(data(items), rank=2, processes=2)
    with pytest.raises(ImageError, match="no such file"):
        data([TrainingItem(str(tmp_path / "none.png"))])[0]


def test_images_of_one_name_in_two_folders_are_drawn_apart(tmp_path):
    """Draws were keyed by the file's name alone: both had one degradation, in every epoch."""
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    for person in ("ann", "bob"):
        save_png(tmp_path / person / "01.png", image)
    source = data([TrainingItem(str(tmp_path / person / "01.png")) for person in ("ann", "bob")], augment=False)
    assert [source[0].name, source[1].name] == ["ann/01.png", "bob/01.png"]
    assert not torch.equal(source[0].lq, source[1].lq)
    assert torch.equal(source[0].lq, source[0].lq)


def test_an_image_that_is_not_square_is_refused(tmp_path):
    save_png(tmp_path / "wide.png", np.zeros((SIDE, 2 * SIDE, 3), np.uint8))
    with pytest.raises(ImageError, match="64x32 pixels, an aligned face is square"):
        data([TrainingItem(str(tmp_path / "wide.png"))])[0]
