"""FaceMe's training: a step, what moves and what does not."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from ffhqref.core.hashing import sha256_file
from ffhqref.training.faceme.data import BatchRules, FaceMeBatch
from ffhqref.training.faceme.small import CROSS
from ffhqref.training.faceme.start import encode_prompt, load_networks
from ffhqref.training.faceme.task import TrainingDraws
from ffhqref.training.runtime import TrainingRuntime
from ffhqref.zoo.faceme.config import MixConfig
from ffhqref.zoo.faceme.lora import lora_shapes

from .faceme_training_world import IDENTITY, PARTS, state


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


@pytest.mark.parametrize("stage", [1, 2])
def test_text_states_and_the_files_of_the_base_stay_as_they_are(world, stage):
    """The text encoders are asked once, before training, and are no part of it."""

    def files() -> dict[str, str]:
        return {str(path): sha256_file(path) for path in sorted(world.base.rglob("*")) if path.is_file()}

    before, states = files(), (world.prompt.states.clone(), world.prompt.pooled.clone())
    task = world.task(stage=stage)
    for step in range(2):
        task.step([world.source(task.settings.batch_rules)(step, 0, 1)], 1e-2, torch.Generator())
    for mine, kept in zip((task.prompt.states, task.prompt.pooled), states, strict=True):
        assert torch.equal(mine, kept)
        assert not mine.requires_grad
    again = encode_prompt(world.base)
    assert torch.equal(again.states, states[0])
    assert torch.equal(again.pooled, states[1])
    assert any("text_encoder_2" in name for name in before)
    assert files() == before


def test_lora_is_merged_only_when_asked(world, tmp_path):
    """As published the U-Net is the file's, bit for bit, and so is what the ControlNet copies from it."""
    plain = load_networks(world.base, world.prompt, mix_config=MixConfig(CROSS, IDENTITY))
    stored = load_file(world.base / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in plain.unet.state_dict().items())
    generator = torch.Generator().manual_seed(0)
    lora = {name: torch.randn(shape, generator=generator) for name, shape in lora_shapes(plain.unet, 2).items()}
    torch.save({"id_encoder": {}, "lora_weights": lora}, tmp_path / "photomaker.bin")
    tuned = load_networks(
        world.base, world.prompt, mix_config=MixConfig(CROSS, IDENTITY), lora=tmp_path / "photomaker.bin"
    )
    stems = {name.removesuffix(".down.weight") for name in lora if name.endswith(".down.weight")}
    found = dict(tuned.unet.named_parameters())
    changed = {name for name, value in found.items() if not torch.equal(value, stored[name])}
    assert len(changed) == len(stems) > 0
    copied = tuned.controlnet.state_dict()
    both = [name for name in changed if name in copied]
    assert both
    assert all(torch.equal(copied[name], found[name]) for name in both)
    name = next(name for name in sorted(changed) if name.endswith(".to_q.weight"))
    stem = f"unet.{name.removesuffix('.to_q.weight')}.processor.to_q_lora"
    wanted = stored[name] + lora[f"{stem}.up.weight"] @ lora[f"{stem}.down.weight"]
    torch.testing.assert_close(found[name].detach(), wanted)


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

    def part(rows: slice) -> tuple[FaceMeBatch, TrainingDraws]:
        cut = {name: getattr(whole, name)[rows] for name in (*PARTS, "names")}
        return FaceMeBatch(**{**vars(whole), **cut}), TrainingDraws(*(value[rows] for value in vars(draws).values()))

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
    exact, rough = world.task(), world.task(run={"precision": "bfloat16"}, runtime=TrainingRuntime("cpu", "bfloat16"))
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
