"""Batches of ReF-LDM's training: keys, references, mirroring, augmentation."""

from __future__ import annotations

import numpy as np
import torch

from ffhqref.training.augment import augment_reference, vary_person
from ffhqref.training.faces import TrainingItem
from ffhqref.training.refldm.data import FaceBatches

from .training_tools import smooth, source


def test_a_varied_person_is_varied_alike_in_all_pictures():
    picture, other = smooth(3), smooth(4)
    first, second, third = vary_person([picture, picture, other], np.random.default_rng(0))
    assert (first == second).all()
    assert (first != picture).any()
    assert (third != first).any()
    assert first.shape == picture.shape
    assert first.dtype == np.uint8
    again = vary_person([picture], np.random.default_rng(1))[0]
    assert (again != first).any()
    # Less than another person is away, on average over people.
    moved = [
        np.abs(vary_person([picture], np.random.default_rng(i))[0].astype(int) - picture).mean() for i in range(20)
    ]
    assert np.mean(moved) < 0.7 * np.abs(picture.astype(int) - other).mean()


def test_batches_are_keyed_by_number_and_process():
    data = source(3)
    one, same, next_, other = data(4, 0, 2), data(4, 0, 2), data(5, 0, 2), data(4, 1, 2)
    assert torch.equal(one.references, same.references)
    assert torch.equal(one.lq, same.lq)
    assert not torch.equal(one.references, next_.references)
    assert not torch.equal(one.references, other.references)
    # Two processes together see what one sees: batch 4 of both is cases 16 to 19.
    alone = source(3, batch_size=4)(4, 0, 1)
    assert torch.equal(torch.cat([one.gt, other.gt]), alone.gt)


def test_references_are_repeated_and_cut():
    data = source(5, augment=False)
    batch = data(0, 0, 1)
    assert batch.references.shape == (2, 5, 3, 64, 64)
    for case in batch.references:
        period = 2 if torch.equal(case[0], case[2]) else 3
        assert torch.equal(case[:-period], case[period:])


def test_flip_turns_target_lq_and_strip_together():
    items = [TrainingItem("1", ("2", "3"))]
    data = FaceBatches(items, lambda n: smooth(int(n)), lambda p, _: p, batch_size=12, references=2, augment=False)
    batch = data(0, 0, 1)
    plain = [torch.from_numpy(smooth(n)).permute(2, 0, 1).float() / 127.5 - 1 for n in (1, 2, 3)]
    flips = 0
    for gt, lq, references in zip(batch.gt, batch.lq, batch.references, strict=True):
        assert torch.equal(gt, lq)
        flipped = not torch.equal(gt, plain[0])
        flips += flipped
        wanted = [picture.flip(2) if flipped else picture for picture in plain]
        assert torch.equal(gt, wanted[0])
        assert any(torch.equal(references, torch.stack(order)) for order in (wanted[1:], wanted[:0:-1]))
    assert 0 < flips < 12


def test_augmented_references_stay_near_and_differ():
    picture = smooth(7, 128)
    made = [augment_reference(picture, np.random.default_rng(seed)) for seed in range(20)]
    again = augment_reference(picture, np.random.default_rng(3))
    assert np.array_equal(again, made[3])
    for one in made:
        assert one.shape == picture.shape
        assert one.dtype == np.uint8
    nearest = [
        min(np.abs(one[32:96, 32:96].astype(int) - other[32:96, 32:96]).mean() for other in (picture, picture[:, ::-1]))
        for one in made
    ]
    assert 1 < np.mean(nearest) < 60
    # Without any draw (all in the middle of their ranges, no mirror) nothing changes but the warp's rounding.
    still = augment_reference(picture, _Middle())
    assert np.abs(still[16:-16, 16:-16].astype(int) - picture[16:-16, 16:-16]).max() <= 20


class _Middle:
    """Draws the middle of every range; of the inward shift of the corners, nothing."""

    def permutation(self, n):
        return np.arange(n)

    def uniform(self, low, high, size=None):
        value = 0.0 if low == 0.0 else (low + high) / 2
        return value if size is None else np.full(size, value)

    def random(self):
        return 0.9
