"""ReF-LDM's trainings: losses that fall, runs that resume exactly, checkpoints that sample, published settings."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.training.ema import RunningAverage
from ffhqref.training.faces import TrainingItem
from ffhqref.training.loop import grid, train
from ffhqref.training.refldm.data import FaceBatches
from ffhqref.training.refldm.diffusion import DiffusionTask
from ffhqref.training.refldm.settings import DiffusionSettings, VQGANSettings
from ffhqref.training.refldm.start import (
    fresh_first_stage,
    fresh_unet,
    trained_first_stage,
    unet_of_ldm,
)
from ffhqref.training.refldm.vqgan import VQGANTask
from ffhqref.training.runtime import TrainingRuntime
from ffhqref.training.settings import RunSettings
from ffhqref.zoo.refldm import RefLDM

from .training_tools import RUN, blurred, diffusion, rows, smooth, source, vqgan


@pytest.mark.parametrize("kind", ["vqgan", "ldm", "refldm"])
def test_resumed_run_equals_the_unbroken_one(small_config, tmp_path, kind):
    """Killed after step 4, one step past the state of step 3, and started again."""
    references = 2 if kind == "refldm" else 0

    def make():
        return vqgan(small_config) if kind == "vqgan" else diffusion(small_config, references, identity_weight=0.1)

    class Killed(BaseException):
        pass

    def kill(step, losses):
        if step == 5:
            raise Killed

    data = source(references)
    whole, broken = make(), make()
    train(whole, data, tmp_path / "whole")
    with pytest.raises(Killed):
        train(broken, data, tmp_path / "broken", callback=kill)
    again = make()
    train(again, data, tmp_path / "broken")
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    assert len(rows(tmp_path / "whole")) == 7
    ours, theirs = again.state_dict(), whole.state_dict()
    name = "first_stage" if kind == "vqgan" else "unet"
    assert all(torch.equal(value, theirs[name][key]) for key, value in ours[name].items())
    if kind != "vqgan":
        assert ours["ema"]["updates"] == 6
        assert all(torch.equal(v, theirs["ema"]["values"][k]) for k, v in ours["ema"]["values"].items())


@pytest.mark.parametrize("kind", ["vqgan", "refldm"])
def test_a_cuda_device_takes_the_steps_of_the_cpu(small_config, tmp_path, cuda, kind):
    """Steps, saved states, a resumed run, sample grids and the exported files."""
    run = replace(RUN, steps=2, save_every=1, sample_every=2)
    data = source(2)

    def make(device):
        if kind == "vqgan":
            return vqgan(small_config, run, device, revive_after=1, adversarial_start=1)
        return diffusion(small_config, 2, run, device, identity_weight=0.1, weighting="min_snr")

    written = {}
    for device in ("cpu", cuda):
        folder = tmp_path / device
        train(make(device), data, folder, look=data(9, 0, 1), max_steps=1)
        written[device] = train(make(device), data, folder, look=data(9, 0, 1))
        assert (folder / "samples" / "0000002.png").is_file()
    here, there = (np.array(rows(tmp_path / device)[1:], float) for device in ("cpu", cuda))
    assert here.shape[0] == 2
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(written["cpu"], written[cuda], strict=True):
        assert ours.name == theirs.name
        if ours.suffix == ".ckpt":
            one, other = (torch.load(file, weights_only=True) for file in (ours, theirs))
            assert one.get("state_dict", one).keys() == other.get("state_dict", other).keys()
            assert all(value.device.type == "cpu" for value in other.get("state_dict", other).values())


@pytest.mark.parametrize("kind", ["vqgan", "refldm"])
def test_bfloat16_trains_on_a_cuda_device(small_config, cuda, kind):
    run = replace(RUN, precision="bfloat16")
    task = vqgan(small_config, run, cuda) if kind == "vqgan" else diffusion(small_config, 2, run, cuda)
    losses = task.step([source(2)(0, 0, 1)], 1e-3, torch.Generator().manual_seed(0))
    assert all(math.isfinite(value) for value in losses.values())


def test_state_of_other_settings_is_refused(small_config, tmp_path):
    train(diffusion(small_config), source(2), tmp_path, max_steps=1)
    with pytest.raises(ConfigError, match="other settings"):
        train(diffusion(small_config, drop_lq=0.5), source(2), tmp_path)
    (tmp_path / "state.pt").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="delete it"):
        train(diffusion(small_config), source(2), tmp_path)


@pytest.mark.parametrize("kind", ["vqgan", "refldm"])
def test_loss_falls(small_config, kind):
    run = replace(RUN, steps=40, learning_rate=2e-3, warmup=5)
    task = vqgan(small_config, run, adversarial_start=1000) if kind == "vqgan" else diffusion(small_config, run=run)
    batch = source(0 if kind == "vqgan" else 2)(0, 0, 1)
    losses = []
    for step in range(run.steps):
        generator = torch.Generator().manual_seed(step % 4)
        losses.append(task.step([batch], run.rate(step), generator)["reconstruction" if kind == "vqgan" else "latent"])
    assert np.mean(losses[-8:]) < 0.75 * np.mean(losses[:8])


def test_running_average_against_the_closed_form():
    module = torch.nn.Linear(1, 1, bias=False)
    values = [1.0, 5.0, -2.0, 7.0]
    with torch.no_grad():
        module.weight.fill_(values[0])
    average, expected = RunningAverage(module, 0.25), values[0]
    for n, value in enumerate(values[1:], start=1):
        with torch.no_grad():
            module.weight.fill_(value)
        average.update(module)
        decay = min(0.25, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert float(average.values["weight"]) == pytest.approx(expected)


def test_the_three_trainings_follow_each_other_and_sample(small_config, tmp_path):
    run = replace(RUN, steps=2, sample_every=2)
    data, faces = source(2), source(0)
    (vq_ckpt,) = train(vqgan(small_config, run), faces, tmp_path / "vqgan", look=faces(9, 0, 1))
    first_stage = trained_first_stage(small_config, vq_ckpt)
    settings = DiffusionSettings(run, references=0, identity_weight=0.0)
    ldm = DiffusionTask(small_config, settings, first_stage, fresh_unet(small_config, 3), TrainingRuntime())
    ldm_ckpt, _ = train(ldm, faces, tmp_path / "ldm")
    unet = unet_of_ldm(small_config, ldm_ckpt, vq_ckpt)
    assert all(torch.equal(v, ldm.unet.state_dict()[k]) for k, v in unet.state_dict().items())
    task = DiffusionTask(small_config, replace(settings, references=2), first_stage, unet, TrainingRuntime())
    checkpoint, config = train(task, data, tmp_path / "refldm", look=data(9, 0, 1))

    model = RefLDM.from_checkpoint(checkpoint, vq_ckpt, config)
    for name, value in model.unet.state_dict().items():
        assert torch.equal(value, task.ema.values[name])
    batch = data(3, 0, 1)
    x_T = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    latent = model.sample_latent(batch.lq, batch.references, x_T, 4)
    torch.testing.assert_close(task.sampler().sample_latent(batch.lq, batch.references, x_T, 4), latent)
    for part, columns in (("vqgan", 2), ("refldm", 5)):
        from ffhqref.core.images import read_rgb

        assert read_rgb(tmp_path / part / "samples" / "0000002.png").shape == (2 * 64, columns * 64, 3)


def test_discriminator_starts_when_it_should(small_config, tmp_path):
    task = vqgan(small_config)
    train(task, source(0), tmp_path)
    table = rows(tmp_path)
    column = table[0].index("discriminator")
    values = [float(row[column]) for row in table[1:]]
    assert values[:2] == [0, 0]
    assert all(value > 0 for value in values[2:])


def test_idle_codes_are_revived_where_latents_are(small_config):
    kept, revived = vqgan(small_config, revive_after=0), vqgan(small_config, revive_after=3)
    batch = source(0)(0, 0, 1)
    for step in range(3):
        for task in (kept, revived):
            losses = task.step([batch], 1e-9, torch.Generator().manual_seed(step))
    codes = [task.first_stage.quantize.embedding.weight for task in (kept, revived)]
    changed = ~torch.isclose(codes[0], codes[1], atol=1e-4).all(dim=1)
    assert int(changed.sum()) == small_config.first_stage.n_embed - int(losses["codes_used"])
    latents = revived.first_stage.encode(batch.gt).permute(0, 2, 3, 1).flatten(0, 2)
    assert float(torch.cdist(codes[1][changed], latents).min(dim=1).values.max()) < 1e-3


def test_learning_rates():
    run = RunSettings(steps=100, batch_size=1, learning_rate=1.0, warmup=10)
    assert [run.rate(step) for step in (0, 4, 9, 10, 99)] == [0.1, 0.5, 1.0, 1.0, 1.0]
    cosine = replace(run, cosine=True)
    assert cosine.rate(55) == pytest.approx(0.5)
    assert cosine.rate(99) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_paper_settings_are_the_published_ones():
    """Of conf/train/paper.yaml, which inherits from tiny.yaml: nothing unpublished may come along."""
    from omegaconf import OmegaConf

    conf = Path(__file__).parents[3] / "conf" / "train"
    tiny = OmegaConf.load(conf / "tiny.yaml")
    paper = OmegaConf.merge(tiny, OmegaConf.load(conf / "paper.yaml"))
    assert (paper.vqgan.steps, paper.vqgan.batch_size, paper.vqgan.learning_rate) == (200_000, 32, 1e-4)
    first = {key: value for key, value in paper.vqgan.items() if key in VQGANSettings.__dataclass_fields__}
    published = VQGANSettings(RUN, **first)
    assert (published.adversarial_start, published.adversarial_weight, published.revive_after) == (30_001, 0.8, 0)
    assert (paper.ldm.steps, paper.ldm.batch_size, paper.ldm.references) == (500_000, 40, 0)
    for stage, references, identity in (("ldm", 0, 0.0), ("refldm", 5, 0.1)):
        given = {key: value for key, value in paper[stage].items() if key in DiffusionSettings.__dataclass_fields__}
        fine = DiffusionSettings(RUN, **given)
        assert (fine.references, fine.drop_lq, fine.drop_references) == (references, 0.1, 0.1)
        assert (fine.identity_weight, fine.ema_decay) == (identity, 0.9999)
        assert (fine.augment, fine.vary, fine.weighting) == (True, False, "noise")
    run = paper.refldm
    assert (run.steps, run.batch_size, run.warmup, run.learning_rate) == (150_000, 8, 10_000, 5e-5)


def test_missing_networks_and_references_are_named(small_config):
    with pytest.raises(ConfigError, match="face embedder"):
        DiffusionTask(
            small_config,
            DiffusionSettings(RUN),
            fresh_first_stage(small_config, 0),
            fresh_unet(small_config, 0),
            TrainingRuntime(),
        )
    with pytest.raises(ConfigError, match="LPIPS"):
        VQGANTask(small_config, VQGANSettings(RUN), fresh_first_stage(small_config, 0), TrainingRuntime())
    with pytest.raises(ConfigError, match="have no reference, for instance a"):
        FaceBatches([TrainingItem("a")], smooth, blurred, batch_size=1, references=1)
    with pytest.raises(ConfigError, match="no image"):
        FaceBatches([], smooth, blurred, batch_size=1, references=1)


def test_bfloat16_trains(small_config):
    task = diffusion(small_config, run=replace(RUN, precision="bfloat16"))
    task.runtime = TrainingRuntime(precision="bfloat16")
    losses = task.step([source(2)(0, 0, 1)], 1e-3, torch.Generator().manual_seed(0))
    assert math.isfinite(losses["loss"])
    assert all(p.dtype == torch.float32 for p in task.unet.parameters())


def test_float16_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        TrainingRuntime("cpu", "float16")


def test_grid_puts_cases_in_rows():
    pictures = torch.stack([torch.full((2, 3, 4, 4), -1.0), torch.full((2, 3, 4, 4), 1.0)])
    made = grid(pictures)
    assert made.shape == (8, 8, 3)
    assert (made[:4] == 0).all()
    assert (made[4:] == 255).all()
