"""FaceMe's training: resuming, checkpoints, sample grids, and settings that are refused."""

from __future__ import annotations

import csv

import pytest
import torch

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.images import read_rgb
from ffhqref.training.faceme.data import BatchRules
from ffhqref.training.faceme.lists import (
    Feature,
    Sample,
)
from ffhqref.training.faceme.references import PoolRules
from ffhqref.training.faceme.settings import FaceMeSettings
from ffhqref.training.faceme.small import CROSS, write_small_photomaker
from ffhqref.training.faceme.start import latest_checkpoint, load_networks
from ffhqref.training.loop import train
from ffhqref.training.settings import RunSettings
from ffhqref.zoo.faceme.config import FaceMeConfig, IdentityEncoderConfig, MixConfig
from ffhqref.zoo.faceme.mix import load_mix
from ffhqref.zoo.faceme.model import FaceMe, Files, Prompts
from ffhqref.zoo.faceme.prompt import KEY_WORD, PROMPT
from ffhqref.zoo.faceme.schedule import SamplerDraws
from ffhqref.zoo.shared.model_folder import load_controlnet

from .faceme_training_world import IDENTITY, SIDE, World, state


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
        train(broken, data, tmp_path / "broken", callback=kill)
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
    alone = World.__new__(World)
    alone.samples = [Sample("x.png", Feature("a", "b"))]
    with pytest.raises(ConfigError, match="own embedding"):
        alone.source(BatchRules(batch_size=1), PoolRules(own_embedding=False))
