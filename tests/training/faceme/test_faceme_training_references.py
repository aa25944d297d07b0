"""FaceMe's training: the references drawn, and batches that neither order nor workers change."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
import torch

from ffhqref.training.faceme.data import BatchRules
from ffhqref.training.faceme.features import FeatureFiles
from ffhqref.training.faceme.lists import Feature, Sample
from ffhqref.training.faceme.references import PoolRules, pick, pool_of
from ffhqref.training.faceme.settings import FaceMeSettings
from ffhqref.training.settings import RunSettings

from .faceme_training_world import PARTS


def sample(count: int) -> Sample:
    return Sample("x.png", Feature("own/x.npy", ""), tuple(Feature(f"{k}", "") for k in range(count)))


@pytest.mark.parametrize("count", [3, 5, 9])
def test_own_embedding_is_used_as_often_as_published(count):
    """Among the first n of the pick with probability n / (m + 1); each place in the order alike."""
    epochs, item = 3000, sample(count)
    places = Counter()
    for epoch in range(epochs):
        chosen = pick(item, 1, epoch, PoolRules())
        assert len(set(chosen)) == 4
        places.update(place for place, feature in enumerate(chosen) if feature == item.own)
    for n in range(1, 5):
        share = sum(places[place] for place in range(n)) / epochs
        wanted = n / (count + 1)
        assert share == pytest.approx(wanted, abs=4 * np.sqrt(wanted * (1 - wanted) / epochs) + 1e-9)


def test_small_pools_are_filled_up():
    for count, rules in ((1, PoolRules()), (2, PoolRules()), (1, PoolRules(own_embedding=False))):
        picks = [pick(sample(count), 0, epoch, rules) for epoch in range(200)]
        pool = set(pool_of(sample(count), 0, rules))
        assert all(set(chosen) == pool for chosen in picks)  # filling up adds, so nothing is left out
        assert all(len(chosen) == 4 for chosen in picks)
        assert len(set(picks)) > 1 or len(pool) == 1


def test_pool_grows_only_when_asked():
    item = sample(4)
    assert [len(pool_of(item, epoch, PoolRules())) for epoch in range(5)] == [5] * 5
    assert [len(pool_of(item, epoch, PoolRules(growing=True))) for epoch in range(5)] == [5, 6, 7, 8, 9]
    assert [len(pool_of(item, epoch, PoolRules(own_embedding=False, growing=True))) for epoch in range(5)] == [4] * 5
    # After 96 epochs with nine references, 91 % of the grown pool are own copies (notes, section 3).
    pool = pool_of(sample(9), 95, PoolRules(growing=True))
    assert pool.count(item.own) / len(pool) == pytest.approx(0.914, abs=0.001)


def test_batches_are_the_same_whatever_the_workers(world):
    rules = BatchRules(batch_size=3, identity_share=0.5)
    one, many = world.source(rules), world.source(rules, workers=3)
    for index in range(6):
        a, b = one(index, 0, 1), many(index, 0, 1)
        assert a.names == b.names
        assert (a.text, a.seed) == (b.text, b.seed)
        assert all(torch.equal(getattr(a, part), getattr(b, part)) for part in PARTS)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("growing", [False, True])
def test_epochs_draw_from_the_pool_of_the_list_with_any_number_of_workers(world, workers, growing):
    """Nothing that one epoch does stays for the next: its draws are those of a sample that was never used."""
    rules, total, epochs = PoolRules(growing=growing), len(world.samples), 12
    source = world.source(BatchRules(batch_size=2, seed=5), rules, workers=workers)
    read = FeatureFiles()
    fresh = {item.name: item for item in copy.deepcopy(world.samples)}
    seen = Counter()
    for index in range(epochs * total // 2):
        batch = source(index, 0, 1)
        for slot, name in enumerate(batch.names):
            epoch = (2 * index + slot) // total
            chosen = pick(fresh[name], 5, epoch, rules)[: batch.identity.shape[1]]
            wanted = np.stack([read(feature.identity) for feature in chosen])
            assert np.array_equal(batch.identity[slot].numpy(), wanted)
            seen[name] += 1
    assert set(seen.values()) == {epochs}


def test_each_epoch_shows_each_sample_once_in_another_order(world):
    source = world.source(BatchRules(batch_size=2))
    total = len(world.samples)
    seen = [source.sample_at(place) for place in range(40 * total)]
    epochs = [[index for index, _ in seen[start : start + total]] for start in range(0, len(seen), total)]
    assert all(sorted(order) == list(range(total)) for order in epochs)
    assert len({tuple(order) for order in epochs}) > 10
    assert [epoch for _, epoch in seen] == [place // total for place in range(len(seen))]
    # Two processes together go through the samples as one with twice the batch does.
    one = world.source(BatchRules(batch_size=4))
    assert source(3, 0, 2).names + source(3, 1, 2).names == one(3, 0, 1).names


def test_pick_of_a_sample_does_not_depend_on_where_it_stands(world):
    """(seed, sample, epoch) decide; batches of another size give a sample the same references."""
    asked: dict[int, dict[tuple[str, int], tuple]] = {}
    for size in (1, 2, 4):
        source = world.source(BatchRules(batch_size=size, most=4))
        found: dict[tuple[str, int], tuple] = {}
        for index in range(8 // size):
            batch = source(index, 0, 1)
            for slot, name in enumerate(batch.names):
                found[name, (index * size + slot) // 4] = tuple(batch.identity[slot].flatten().tolist())
        asked[size] = found
    for key, first in asked[1].items():
        for size in (2, 4):
            shared = min(len(first), len(asked[size][key]))
            assert first[:shared] == asked[size][key][:shared]


def test_features_of_a_reference_stay_together_and_n_is_uniform(world):
    source = world.source(BatchRules(batch_size=2))
    counts = Counter()
    for index in range(400):
        batch = source(index, 0, 1)
        counts[batch.identity.shape[1]] += 1
        assert batch.identity.shape[:2] == batch.clip.shape[:2]
        assert torch.equal(batch.identity[:, :, 0], batch.clip[:, :, 0])  # World writes them so
    assert sorted(counts) == [1, 2, 3, 4]
    assert all(abs(count - 100) < 4 * np.sqrt(400 * 0.25 * 0.75) for count in counts.values())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_identity_batches(world, share):
    source = world.source(BatchRules(batch_size=1, identity_share=share))
    text = np.mean([source(index, 0, 1).text for index in range(300)])
    assert text == pytest.approx(1 - share, abs=4 * np.sqrt(share * (1 - share) / 300))


def test_stage_1_never_has_plain_text_batches():
    run = RunSettings(steps=1, batch_size=1, warmup=0)
    assert FaceMeSettings(run, stage=1, identity_share=0.1).batch_rules.identity_share == 1.0
    assert FaceMeSettings(run, stage=2, identity_share=0.1).batch_rules.identity_share == 0.1


def test_draws_are_shared_by_devices_unless_asked(world):
    for shared in (True, False):
        source = world.source(BatchRules(batch_size=1, identity_share=0.5, draws_per_device=not shared))
        pairs = [(source(index, 0, 2), source(index, 1, 2)) for index in range(12)]
        same = [(a.text, a.seed, a.clip.shape) == (b.text, b.seed, b.clip.shape) for a, b in pairs]
        assert all(same) if shared else not any(same)
        assert all(a.names != b.names for a, b in pairs[:2])


def test_condition_is_degraded_and_in_range(world):
    batch = world.source(BatchRules(batch_size=4))(0, 0, 1)
    assert float(batch.condition.abs().max()) <= 1.0
    assert 0.01 < float((batch.condition - batch.target).abs().mean()) < 0.5
    levels = (batch.condition + 1) * 127.5
    assert float((levels - levels.round()).abs().max()) > 0.01  # not rounded to 8 bit
