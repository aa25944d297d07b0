"""FaceMe's training: the references drawn, what moves and what does not, resuming, checkpoints, and that it learns."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from ffhqref.errors import ConfigError, DatasetError, WeightsError
from ffhqref.images import read_rgb
from ffhqref.restorers.faceme.config import FaceMeConfig, IdentityEncoderConfig, MixConfig
from ffhqref.restorers.faceme.loading import load_controlnet
from ffhqref.restorers.faceme.mix import load_mix
from ffhqref.restorers.faceme.model import FaceMe, Files, Prompts
from ffhqref.restorers.faceme.prompt import KEY_WORD, PROMPT
from ffhqref.restorers.faceme.schedule import Draws as SamplerDraws
from ffhqref.restorers.faceme.training.data import BatchRules, FaceMeBatch
from ffhqref.restorers.faceme.training.features import read_feature, write_feature
from ffhqref.restorers.faceme.training.lists import (
    Feature,
    Sample,
    feature_of,
    list_samples,
    read_samples,
    write_samples,
)
from ffhqref.restorers.faceme.training.references import PoolRules, pick, pool_of
from ffhqref.restorers.faceme.training.settings import FaceMeSettings
from ffhqref.restorers.faceme.training.small import CROSS, write_small_photomaker
from ffhqref.restorers.faceme.training.start import latest_checkpoint, load_networks
from ffhqref.restorers.faceme.training.task import Draws
from ffhqref.training.loop import train
from ffhqref.training.runtime import Runtime
from ffhqref.training.settings import RunSettings

from .faceme_training_world import IDENTITY, SIDE, World, state


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def sample(count: int) -> Sample:
    return Sample("x.png", Feature("own/x.npy", ""), tuple(Feature(f"{k}", "") for k in range(count)))


# Features and lists


def test_features_of_numpy_and_of_torch_are_read(tmp_path):
    """The published preparation writes NumPy files, its training reads torch files, both under the name .npy."""
    vector = np.random.default_rng(0).standard_normal(12).astype(np.float32)
    write_feature(tmp_path / "ours.npy", vector)
    assert np.load(tmp_path / "ours.npy").shape == (1, 12)
    np.save(tmp_path / "theirs.npy", vector[None])
    torch.save(torch.from_numpy(vector[None]), tmp_path / "torch.npy")
    torch.save(torch.from_numpy(vector), tmp_path / "old.npy", _use_new_zipfile_serialization=False)
    for name in ("ours", "theirs", "torch", "old"):
        assert np.array_equal(read_feature(tmp_path / f"{name}.npy"), vector), name


@pytest.mark.parametrize("kind", ["absent", "empty", "cut", "text", "nan", "matrix", "pickle", "scalar"])
def test_what_is_no_feature_is_refused(tmp_path, kind):
    path = tmp_path / "x.npy"
    write_feature(path, np.ones(64))
    whole = path.read_bytes()
    if kind == "absent":
        path.unlink()
    elif kind == "pickle":
        torch.save({"__import__": [object]}, path)
    elif kind in ("nan", "matrix", "scalar"):
        value = {"nan": [np.nan, 1.0], "matrix": np.ones((2, 3)), "scalar": np.float32(1)}[kind]
        np.save(path, np.asarray(value, np.float32))
    else:
        path.write_bytes({"empty": b"", "cut": whole[:-40], "text": b"hello"}[kind])
    with pytest.raises(DatasetError, match=r"x\.npy") as caught:
        read_feature(path)
    assert "\n" not in str(caught.value)


def test_lists_have_the_published_form_and_come_back(world):
    path = world.folder / "train.json"
    write_samples(path, world.samples)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert set(rows[0]) == {"target", "target_emb", "ref_emb"}
    assert rows[0]["target_emb"] == ["own/id_emb/00000.npy", "own/clip_emb/00000.npy"]
    assert [len(part) for part in rows[1]["ref_emb"]] == [2, 2]
    assert rows[1]["ref_emb"][1][0] == "ref/clip_emb/00001/0_0.npy"
    assert read_samples(path) == world.samples
    assert read_samples(path, world.folder) == world.samples
    path.write_text(path.read_text().replace("own/", "../own/", 1))
    with pytest.raises(DatasetError, match="leaves the folder"):
        read_samples(path, world.folder)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"target": "a.png"}',
        '{"target": "a.png", "target_emb": ["a.npy"], "ref_emb": [[], []]}',
        '{"target": "a.png", "target_emb": ["i/a.npy", "c/a.npy"], "ref_emb": [["i/b.npy"], []]}',
        '{"target": "a.png", "target_emb": ["i/a.npy", "c/a.npy"], "ref_emb": [["i/b.npy"], ["c/c.npy"]]}',
        '{"target": 3, "target_emb": ["i/a.npy", "c/a.npy"], "ref_emb": [[], []]}',
    ],
)
def test_lists_of_another_form_are_refused(tmp_path, line):
    path = tmp_path / "train.json"
    good = '{"target": "a.png", "target_emb": ["i/a.npy", "c/a.npy"], "ref_emb": [[], []]}'
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(DatasetError, match="line 2"):
        read_samples(path)
    path.write_text("")
    with pytest.raises(DatasetError, match="nothing to train on"):
        read_samples(path)


def test_references_synthetic_real_or_both(world):
    pictures = {name: f"{name}.png" for name in ("00000", "00001", "00002", "99999")}
    folders = {"features": world.folder / "own", "synthetic": world.folder / "ref"}
    real = {"00000": ["00001", "99999"], "00001": ["00000"]}
    made, missing = list_samples(pictures, references="synthetic", **folders)
    assert [len(item.references) for item in made] == [5, 2, 3]
    assert [item.image_id for item in missing] == ["99999"]
    made, missing = list_samples(pictures, references="real", features=world.folder / "own", real=real)
    assert made[0].references == (feature_of(world.folder / "own", "00001"),)  # 99999 has no features
    assert [item.image_id for item in missing] == ["00002", "99999"]
    assert all(item.reason for item in missing)
    made, missing = list_samples(pictures, references="both", real=real, **folders)
    assert [len(item.references) for item in made] == [6, 3, 3]
    for references in ("real", "both", "none"):
        with pytest.raises(ConfigError, match=references):
            list_samples(pictures, references=references, **folders)


# References of a sample


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


PARTS = ("target", "condition", "identity", "clip")


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


# A step


def test_first_steps_reach_what_the_zero_convolutions_let_through(world):
    """From the U-Net: first the zero convolutions and Mix, then the condition stem's last layer, then all."""
    task = world.task()
    source = world.source(task.settings.batch_rules)

    def moved() -> set[str]:
        return {name for name, value in task.trained if float(value.grad.abs().max()) > 0}

    names = {name for name, _ in task.trained}
    zero = {n for n in names if n.startswith(("controlnet.controlnet_down_blocks", "controlnet.controlnet_mid"))}
    stem = {n for n in names if "controlnet_cond_embedding" in n}
    last = {n for n in stem if "conv_out" in n}
    mix = {n for n in names if n.startswith("mix.")}
    seen = []
    for step in range(3):
        task.step([source(step, 0, 1)], 1e-3, torch.Generator())
        seen.append(moved())
    assert seen[0] == zero | mix
    assert seen[1] == names - (stem - last)
    assert seen[2] == names


@pytest.mark.parametrize("stage", [1, 2])
def test_frozen_means_frozen(world, stage):
    task = world.task(stage=stage)
    frozen = [task.unet, task.vae] + ([task.mix] if stage == 2 else [])
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in frozen]
    source = world.source(task.settings.batch_rules)
    start = state(task)
    for step in range(3):
        task.step([source(step, 0, 1)], 1e-2, torch.Generator())
    for network, values in zip(frozen, before, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in network.state_dict().items())
        assert all(value.grad is None for value in network.parameters())
    assert all(not torch.equal(value, start[name]) for name, value in task.trained)
    assert any(name.startswith("mix.") for name, _ in task.trained) == (stage == 1)


def test_plain_text_batch_ignores_the_references(world):
    task = world.task(stage=2)
    batch = world.source(BatchRules(batch_size=2, identity_share=0.0))(0, 0, 1)
    other = FaceMeBatch(**{**vars(batch), "identity": batch.identity + 1, "clip": batch.clip * 2})
    told = FaceMeBatch(**{**vars(batch), "text": False})
    with torch.no_grad():
        one, two, three = (task.forward(item, task.draws(batch)).loss for item in (batch, other, told))
    assert batch.text
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_accumulated_gradients_are_those_of_one_large_batch(world):
    task = world.task()
    whole = world.source(BatchRules(batch_size=4))(1, 0, 1)
    draws = task.draws(whole)

    def part(rows: slice) -> tuple[FaceMeBatch, Draws]:
        cut = {name: getattr(whole, name)[rows] for name in (*PARTS, "names")}
        return FaceMeBatch(**{**vars(whole), **cut}), Draws(*(value[rows] for value in vars(draws).values()))

    task.gradients([(whole, draws)])
    wanted = {name: value.grad.clone() for name, value in task.trained}
    task.gradients([part(slice(0, 2)), part(slice(2, 4))])
    for name, value in task.trained:
        torch.testing.assert_close(value.grad, wanted[name], rtol=1e-3, atol=1e-7)


def test_loss_of_v_prediction_is_of_the_velocity(world):
    """What is predicted is the scheduler's choice: v = sqrt(ᾱ) ε − sqrt(1 − ᾱ) z."""
    task = world.task()
    batch = world.source(BatchRules(batch_size=2))(0, 0, 1)
    draws = task.draws(batch)
    plain = task.forward(batch, draws)
    task.scheduler.register_to_config(prediction_type="v_prediction")
    passed = task.forward(batch, draws)
    kept = task.scheduler.alphas_cumprod[draws.times].view(-1, 1, 1, 1)
    velocity = kept.sqrt() * draws.noise - (1 - kept).sqrt() * passed.latents
    assert torch.equal(passed.prediction, plain.prediction)
    torch.testing.assert_close(passed.loss, ((passed.prediction - velocity) ** 2).mean())
    torch.testing.assert_close(plain.loss, ((plain.prediction - draws.noise) ** 2).mean())


def test_gradient_checkpointing_gives_the_same_gradients(world):
    found = []
    for checkpointing in (False, True):
        task = world.task(gradient_checkpointing=checkpointing)
        source = world.source(task.settings.batch_rules)
        for step in range(2):
            task.step([source(step, 0, 1)], 1e-3, torch.Generator())
        found.append(({name: value.grad.clone() for name, value in task.trained}, task.controlnet))
    assert found[1][1].is_gradient_checkpointing
    for name, value in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], value, rtol=1e-5, atol=1e-8)


def test_cached_latents_are_the_encoded_ones(world, monkeypatch):
    plain, caching = world.task(), world.task(cached_latents=100)
    source = world.source(plain.settings.batch_rules)
    encoded = Counter()
    encode = caching.vae.encode
    monkeypatch.setattr(caching.vae, "encode", lambda x: (encoded.update([len(x)]), encode(x))[1])
    for index in range(8):
        batch = source(index, 0, 1)
        for one, other in zip(plain.moments(batch), caching.moments(batch), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert encoded == {1: len(world.samples)}


def test_bfloat16_keeps_what_is_trained_and_the_vae_in_float32(world):
    exact, rough = world.task(), world.task(run={"precision": "bfloat16"}, runtime=Runtime("cpu", "bfloat16"))
    batch = world.source(BatchRules(batch_size=2))(0, 0, 1)
    losses = [task.step([batch], 1e-3, torch.Generator())["loss"] for task in (exact, rough)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]
    assert {value.dtype for _, value in rough.trained} == {torch.float32}
    assert rough.vae.dtype == torch.float32
    assert rough.unet.dtype == torch.bfloat16


def test_warm_up_is_off_unless_asked(world):
    task = world.task(run={"learning_rate": 5e-5})
    assert [task.run.rate(step) for step in (0, 1, 499)] == [5e-5] * 3
    warm = world.task(run={"learning_rate": 5e-5, "warmup": 500})
    assert warm.run.rate(0) == pytest.approx(1e-7)
    assert warm.run.rate(499) == 5e-5


# A run


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stage", [1, 2])
def test_resumed_run_equals_the_unbroken_one(world, tmp_path, stage):
    """Killed after step 4, one past the saved state, in the middle of an epoch, and started again."""

    def kill(step, losses):
        if step == 5:
            raise Killed

    def make():
        task = world.task(stage=stage, ema_decay=0.9, cached_latents=2, run={"accumulate": 2})
        return task, world.source(task.settings.batch_rules, task.settings.pool_rules)

    whole, data = make()
    train(whole, data, tmp_path / "whole")
    broken, data = make()
    with pytest.raises(Killed):
        train(broken, data, tmp_path / "broken", told=kill)
    again, data = make()
    written = train(again, data, tmp_path / "broken")
    first, second = state(whole), state(again)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert all(torch.equal(value, again.ema.values[name]) for name, value in whole.ema.values.items())
    curves = [(tmp_path / name / "curve.csv").read_text() for name in ("whole", "broken")]
    assert curves[0] == curves[1]
    assert len(list(csv.reader(curves[0].splitlines()))) == 7
    assert written[0].parent == latest_checkpoint(tmp_path / "broken")
    with pytest.raises(ConfigError, match="other settings"):
        train(world.task(stage=stage), data, tmp_path / "broken")


def test_checkpoints_have_the_published_layout_and_go_on_into_stage_2(world, tmp_path):
    task = world.task(run={"steps": 4, "save_every": 4}, ema_decay=0.5)
    train(task, world.source(task.settings.batch_rules), tmp_path, export_every=2)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    folder = latest_checkpoint(tmp_path)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    plain = {"controlnet/config.json", "controlnet/diffusion_pytorch_model.safetensors", "mix/mix.safetensors"}
    assert plain <= files
    assert {name.replace("/", "_ema/", 1) for name in plain} | plain == files
    widths = MixConfig(CROSS, IDENTITY)
    for suffix, wanted in (("", state(task)), ("_ema", task.ema.values)):
        for prefix, network in (
            ("controlnet.", load_controlnet(folder / f"controlnet{suffix}")),
            ("mix.", load_mix(folder / f"mix{suffix}", widths)),
        ):
            for name, value in network.named_parameters():
                assert torch.equal(value, wanted[prefix + name])
    # Stage 2 begins with the trained Mix, and with a ControlNet from the U-Net again, or from stage 1 when asked.
    again = load_networks(world.base, world.prompt, mix=folder / "mix", mix_config=widths)
    onward = load_networks(
        world.base, world.prompt, controlnet=folder / "controlnet", mix=folder / "mix", mix_config=widths
    )
    assert all(torch.equal(value, task.mix.state_dict()[name]) for name, value in again.mix.state_dict().items())
    assert not any(value.any() for value in again.controlnet.controlnet_mid_block.parameters())
    found = onward.controlnet.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in task.controlnet.state_dict().items())


def test_sample_grids_show_lq_restored_and_truth(world, tmp_path):
    task = world.task(run={"steps": 2, "sample_every": 2}, ema_decay=0.5, sample_steps=2)
    source = world.source(task.settings.batch_rules)
    train(task, source, tmp_path, look=source(9, 0, 1))
    assert read_rgb(tmp_path / "samples" / "0000002.png").shape == (2 * SIDE, 3 * SIDE, 3)
    batch = source(9, 0, 1)
    weights = state(task)
    first, again = task.samples(batch), task.samples(batch)
    assert torch.equal(first, again)
    assert torch.equal(first[:, 0], batch.condition)
    assert torch.equal(first[:, 2], batch.target)
    assert all(torch.equal(value, weights[name]) for name, value in task.trained)  # averages are put away again


def test_sample_grids_are_what_the_restorer_makes(world, tmp_path):
    """Exported, loaded by the restorer's own model, sampled with the same draws and features: the same latents."""
    task = world.task(run={"steps": 2}, sample_steps=3)
    source = world.source(task.settings.batch_rules)
    train(task, source, tmp_path / "run")
    folder = latest_checkpoint(tmp_path / "run")
    tower = IdentityEncoderConfig(16, 16, 1, 2, 14, 28, CROSS - 16, 16)
    files = Files(
        world.base, folder / "controlnet", folder / "mix", write_small_photomaker(tmp_path / "photomaker.bin", tower)
    )
    model = FaceMe(
        files, FaceMeConfig(MixConfig(CROSS, IDENTITY), tower), Prompts(PROMPT, PROMPT, KEY_WORD), lora=False
    )
    batch = source(5, 0, 1)
    shape = (len(batch.names), 4, SIDE // 8, SIDE // 8)
    drawn = SamplerDraws.of_seed(task.run.seed, shape, 3)
    wanted = task.samples(batch)[:, 1]
    for case in range(len(batch.names)):
        with torch.no_grad():
            tokens = model.mix(batch.clip[case], batch.identity[case])
        own = SamplerDraws(
            drawn.posterior[case : case + 1], drawn.start[case : case + 1], drawn.steps[:, case : case + 1]
        )
        made = model.decode(model.sample(batch.condition[case : case + 1], tokens, own, 5.0)).clamp(-1, 1)
        torch.testing.assert_close(made[0], wanted[case], rtol=1e-3, atol=1e-3)


def test_a_cuda_device_takes_the_steps_of_the_cpu(world, tmp_path, cuda):
    """Steps, a saved state, a resumed run, a sample grid and checkpoints."""
    source = world.source(BatchRules(2, identity_share=0.5, seed=4))
    run = {"steps": 2, "save_every": 1, "sample_every": 2}
    more = {"ema_decay": 0.9, "cached_latents": 2, "gradient_checkpointing": True, "sample_steps": 1}

    def go(device, until=None):
        task = world.task(run=run, runtime=Runtime(device), **more)
        return train(task, source, tmp_path / device, look=source(0, 0, 1), until=until)

    with sdpa_kernel(SDPBackend.MATH):
        go(cuda, until=1)
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
    task = world.task(run={"precision": "bfloat16"}, runtime=Runtime(cuda, "bfloat16"))
    source = world.source(BatchRules(2, seed=4))
    assert all(np.isfinite(task.step([source(step, 0, 1)], 1e-3, torch.Generator())["loss"]) for step in range(2))


def test_wrong_settings_are_refused(world):
    run = RunSettings(steps=1, batch_size=1, warmup=0)
    for wrong in (
        {"stage": 3},
        {"controlnet_init": "nothing"},
        {"stage": 1, "controlnet_init": "stage1"},
        {"identity_share": 1.5},
        {"stage": 2, "identity_share": -0.1},
        {"most_references": 5},
        {"ema_decay": 1.0},
    ):
        settings = {"stage": 2, **wrong}
        with pytest.raises(ConfigError, match="training"):
            FaceMeSettings(run, **settings)
    with pytest.raises(ConfigError, match="channels"):
        load_networks(world.base, world.prompt, mix_config=MixConfig(CROSS + 1, IDENTITY))
    with pytest.raises(WeightsError, match="no checkpoint"):
        latest_checkpoint(world.folder)
    with pytest.raises(ConfigError, match="own embedding"):
        alone = World.__new__(World)
        alone.samples = [Sample("x.png", Feature("a", "b"))]
        alone.source(BatchRules(batch_size=1), PoolRules(own_embedding=False))


# Learning


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
    """A toy whose answer only the references have: a picture a person, of which the condition picture shows nothing.

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

    def pair(who: np.ndarray, told: np.ndarray, seed: int) -> tuple[FaceMeBatch, Draws]:
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
        return batch, Draws(torch.zeros_like(drawn.posterior), drawn.noise, 900 + drawn.times // 10)

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
