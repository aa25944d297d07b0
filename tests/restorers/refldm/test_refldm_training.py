"""Training: losses that fall, runs that resume exactly, gradients that are right, checkpoints that sample."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ffhqref.errors import ConfigError, WeightsError
from ffhqref.restorers.refldm import RefLDM
from ffhqref.restorers.refldm.training.data import FaceBatches, TrainingBatch, augment_reference, vary_person
from ffhqref.restorers.refldm.training.diffusion import DiffusionTask, ReferenceDenoiser
from ffhqref.restorers.refldm.training.losses import codebook_loss, identity_crop, identity_loss
from ffhqref.restorers.refldm.training.settings import DiffusionSettings, VQGANSettings
from ffhqref.restorers.refldm.training.start import (
    fresh_first_stage,
    fresh_unet,
    trained_first_stage,
    unet_of_ldm,
)
from ffhqref.restorers.refldm.training.vqgan import VQGANTask
from ffhqref.training.ema import RunningAverage
from ffhqref.training.faces import TrainingItem
from ffhqref.training.loop import grid, train
from ffhqref.training.runtime import Runtime
from ffhqref.training.settings import RunSettings

RUN = RunSettings(steps=6, batch_size=2, learning_rate=1e-3, warmup=2, save_every=3, sample_every=0)


def smooth(seed: int, side: int = 64) -> np.ndarray:
    import cv2

    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def blurred(picture: np.ndarray, seed: int) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(picture, (0, 0), 2 + seed % 3)


def source(references: int, **options) -> FaceBatches:
    items = [TrainingItem(f"{i}", tuple(f"{i + 10 * (k + 1)}" for k in range(2 + i % 2))) for i in range(4)]
    return FaceBatches(
        items, lambda name: smooth(int(name)), blurred, references=references, **{"batch_size": 2, **options}
    )


def embedder() -> torch.nn.Module:
    """A fixed differentiable network in the place of a face embedder."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 7, 4),
            torch.nn.Tanh(),
            torch.nn.Conv2d(4, 8, 5, 4),
            torch.nn.Tanh(),
            torch.nn.Flatten(),
        )
    return net.requires_grad_(False)


def diffusion(config, references=2, run=RUN, device="cpu", **settings) -> DiffusionTask:
    settings = DiffusionSettings(run, references=references, **{"identity_weight": 0.0, **settings})
    embed = embedder().to(device) if settings.identity_weight else None
    runtime = Runtime(device, run.precision)
    return DiffusionTask(config, settings, fresh_first_stage(config, 1), fresh_unet(config, 2), runtime, embed)


def vqgan(config, run=RUN, device="cpu", **settings) -> VQGANTask:
    settings = VQGANSettings(
        run, perceptual_weight=0.0, **{"adversarial_start": 2, "discriminator_width": 8, **settings}
    )
    return VQGANTask(config, settings, fresh_first_stage(config, 1), Runtime(device, run.precision))


def rows(folder) -> list[list[str]]:
    with (folder / "curve.csv").open() as stream:
        return list(csv.reader(stream))


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
        train(broken, data, tmp_path / "broken", told=kill)
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
        train(make(device), data, folder, look=data(9, 0, 1), until=1)
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
    train(diffusion(small_config), source(2), tmp_path, until=1)
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


def test_gradients_reach_through_the_references(small_config):
    """CacheKV is trained through: the loss depends on references, and its gradient reaches their pass."""
    unet = fresh_unet(small_config, 2)
    with torch.no_grad():
        for parameter in unet.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    denoiser = ReferenceDenoiser(unet)
    generator = torch.Generator().manual_seed(0)
    x, lq = torch.randn((2, 2, 4, 16, 16), generator=generator)
    references = torch.randn((2, 3, 4, 16, 16), generator=generator, requires_grad=True)
    loss = (denoiser(x, lq, torch.tensor([5, 500]), references) ** 2).mean()
    found = torch.autograd.grad(loss, [references, *unet.parameters()], retain_graph=True)
    assert (found[0].flatten(2).norm(dim=2) > 0).all()
    # A step along the gradient of the references changes the loss as the gradient says.
    direction = found[0] / found[0].norm()
    with torch.no_grad():
        t = torch.tensor([5, 500])
        up, down = (float((denoiser(x, lq, t, references + e * direction) ** 2).mean()) for e in (0.05, -0.05))
    assert (up - down) / 0.1 == pytest.approx(float(found[0].norm()), rel=0.05)
    # And the weights get another gradient than they would if keys and values were taken as given.
    kv = unet.keys_values
    unet.keys_values = lambda given: _detached(kv(given))
    cut = (denoiser(x, lq, torch.tensor([5, 500]), references) ** 2).mean()
    without = torch.autograd.grad(cut, list(unet.parameters()), allow_unused=True)
    assert float(cut) == pytest.approx(float(loss), rel=1e-5)
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in zip(found[1:], without, strict=True))


def _detached(kv):
    return type(kv)(tuple(k.detach() for k in kv.keys), tuple(v.detach() for v in kv.values))


def test_identity_loss_against_finite_differences():
    embed = embedder().double()
    generator = torch.Generator().manual_seed(3)
    target, restored = torch.rand((2, 2, 3, 128, 128), generator=generator, dtype=torch.float64) * 2 - 1
    alpha = torch.tensor([0.9, 0.2], dtype=torch.float64)
    restored.requires_grad_(True)
    (gradient,) = torch.autograd.grad(identity_loss(restored, target, alpha, embed), restored)
    for seed in range(3):
        direction = torch.randn(restored.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        step = 1e-5
        with torch.no_grad():
            up, down = (identity_loss(restored + e * direction, target, alpha, embed) for e in (step, -step))
        assert float(up - down) / (2 * step) == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


def test_identity_loss_through_the_decoder(small_config):
    """Straight through the quantisation: the gradient at the latent is the one at the codes the decoder gets."""
    first_stage = fresh_first_stage(small_config, 1).requires_grad_(False)
    embed = embedder()
    generator = torch.Generator().manual_seed(4)
    latent = torch.randn((2, 4, 16, 16), generator=generator, requires_grad=True)
    target = torch.rand((2, 3, 64, 64), generator=generator) * 2 - 1
    alpha = torch.tensor([0.7, 0.3])
    (through,) = torch.autograd.grad(identity_loss(first_stage.decode(latent), target, alpha, embed), latent)
    codes = first_stage.quantize(latent).detach().requires_grad_(True)
    (at_codes,) = torch.autograd.grad(identity_loss(first_stage.decode_codes(codes), target, alpha, embed), codes)
    torch.testing.assert_close(through, at_codes)
    direction = at_codes / at_codes.norm()
    with torch.no_grad():
        up, down = (
            float(identity_loss(first_stage.decode_codes(codes + e * direction), target, alpha, embed))
            for e in (0.02, -0.02)
        )
    assert (up - down) / 0.04 == pytest.approx(float(at_codes.norm()), rel=0.05)


def test_identity_loss_is_scaled_by_the_time_step():
    embed = embedder()
    generator = torch.Generator().manual_seed(3)
    target, restored = torch.rand((2, 1, 3, 64, 64), generator=generator) * 2 - 1
    whole = float(identity_loss(restored, target, torch.ones(1), embed))
    assert float(identity_loss(restored, target, torch.tensor([0.25]), embed)) == pytest.approx(whole / 2)
    assert float(identity_loss(target, target, torch.ones(1), embed)) == pytest.approx(0, abs=1e-6)


def test_identity_crop_is_the_published_one():
    """protocols.md 3.1: of 512 rows and columns 32 to 480, by area to 112 (four by four means)."""
    images = torch.rand((1, 3, 512, 512), generator=torch.Generator().manual_seed(0))
    expected = images[:, :, 32:480, 32:480].reshape(1, 3, 112, 4, 112, 4).mean(dim=(3, 5))
    torch.testing.assert_close(identity_crop(images), expected)


def test_codebook_loss_weighs_the_published_side():
    latents, codes = torch.tensor([1.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    codebook_loss(latents, codes, 0.25).backward()
    assert float(latents.grad) == pytest.approx(-4.0)
    assert float(codes.grad) == pytest.approx(1.0)


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


def test_conditions_are_dropped_whole_and_independently(small_config):
    task = diffusion(small_config, drop_lq=0.3, drop_references=0.4)
    batch = TrainingBatch(*(x.repeat(32, *[1] * (x.dim() - 1)) for x in vars(source(2)(0, 0, 1)).values()))
    lq_gone, references_gone = [], []
    for seed in range(5):
        _, lq, references = task.conditions(batch, torch.Generator().manual_seed(seed))
        lq_gone.append((lq == 0).flatten(1).all(dim=1))
        none, every = ((references == 0).flatten(2).all(dim=2).sum(dim=1) == n for n in (0, 2))
        assert (none | every).all()
        references_gone.append(every)
    a, b = torch.cat(lq_gone).float(), torch.cat(references_gone).float()
    assert float(a.mean()) == pytest.approx(0.3, abs=0.08)
    assert float(b.mean()) == pytest.approx(0.4, abs=0.08)
    assert float((a * b).mean()) == pytest.approx(0.12, abs=0.06)


def test_references_are_encoded_as_a_strip(small_config):
    task = diffusion(small_config, drop_lq=0.0, drop_references=0.0)
    batch = source(2)(0, 0, 1)
    target, lq, references = task.conditions(batch, torch.Generator())
    model = task.sampler()
    torch.testing.assert_close(target, model.encode(batch.gt), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lq, model.encode(batch.lq), rtol=1e-4, atol=1e-4)
    for case in range(2):
        torch.testing.assert_close(
            references[case], model.encode_references(batch.references[case]), rtol=1e-4, atol=1e-4
        )


def test_the_three_trainings_follow_each_other_and_sample(small_config, tmp_path):
    run = replace(RUN, steps=2, sample_every=2)
    data, faces = source(2), source(0)
    (vq_ckpt,) = train(vqgan(small_config, run), faces, tmp_path / "vqgan", look=faces(9, 0, 1))
    first_stage = trained_first_stage(small_config, vq_ckpt)
    settings = DiffusionSettings(run, references=0, identity_weight=0.0)
    ldm = DiffusionTask(small_config, settings, first_stage, fresh_unet(small_config, 3), Runtime())
    ldm_ckpt, _ = train(ldm, faces, tmp_path / "ldm")
    unet = unet_of_ldm(small_config, ldm_ckpt, vq_ckpt)
    assert all(torch.equal(v, ldm.unet.state_dict()[k]) for k, v in unet.state_dict().items())
    task = DiffusionTask(small_config, replace(settings, references=2), first_stage, unet, Runtime())
    checkpoint, config = train(task, data, tmp_path / "refldm", look=data(9, 0, 1))

    model = RefLDM.from_checkpoint(checkpoint, vq_ckpt, config)
    for name, value in model.unet.state_dict().items():
        assert torch.equal(value, task.ema.values[name])
    batch = data(3, 0, 1)
    x_T = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    latent = model.sample_latent(batch.lq, batch.references, x_T, 4)
    torch.testing.assert_close(task.sampler().sample_latent(batch.lq, batch.references, x_T, 4), latent)
    for part, columns in (("vqgan", 2), ("refldm", 5)):
        from ffhqref.images import read_rgb

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


def test_weighting_by_the_latents_error(small_config):
    """One case, the same draws: the loss is that of the noise times 1/SNR of its time step, at most 20."""
    batch = source(1, batch_size=1)(0, 0, 1)
    for seed in range(4):
        losses = {}
        for weighting in ("noise", "min_snr", "picture"):
            task = diffusion(small_config, references=1, weighting=weighting)
            generator = torch.Generator().manual_seed(seed)
            losses[weighting] = task.losses(batch, generator)["loss"].item()
        generator = torch.Generator().manual_seed(seed)
        torch.rand((2, 1), generator=generator)  # the draws of the dropped conditions come first
        t = int(torch.randint(0, small_config.timesteps, (1,), generator=generator))
        betas = np.linspace(small_config.linear_start**0.5, small_config.linear_end**0.5, small_config.timesteps) ** 2
        alpha = float(np.cumprod(1 - betas)[t])
        snr = alpha / (1 - alpha)
        assert losses["picture"] == pytest.approx(losses["noise"] * min(1 / snr, 20), rel=1e-4)
        assert losses["min_snr"] == pytest.approx(losses["noise"] * min(1 / snr, 1), rel=1e-4)


def test_a_varied_person_is_varied_alike_in_all_pictures():
    picture, other = smooth(3), smooth(4)
    first, second, third = vary_person([picture, picture, other], np.random.default_rng(0))
    assert (first == second).all() and (first != picture).any() and (third != first).any()
    assert first.shape == picture.shape and first.dtype == np.uint8
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


def test_missing_networks_and_references_are_named(small_config):
    with pytest.raises(ConfigError, match="face embedder"):
        DiffusionTask(
            small_config,
            DiffusionSettings(RUN),
            fresh_first_stage(small_config, 0),
            fresh_unet(small_config, 0),
            Runtime(),
        )
    with pytest.raises(ConfigError, match="LPIPS"):
        VQGANTask(small_config, VQGANSettings(RUN), fresh_first_stage(small_config, 0), Runtime())
    with pytest.raises(ConfigError, match="have no reference, for instance a"):
        FaceBatches([TrainingItem("a")], smooth, blurred, batch_size=1, references=1)
    with pytest.raises(ConfigError, match="no picture"):
        FaceBatches([], smooth, blurred, batch_size=1, references=1)


def test_bfloat16_trains(small_config):
    task = diffusion(small_config, run=replace(RUN, precision="bfloat16"))
    task.runtime = Runtime(precision="bfloat16")
    losses = task.step([source(2)(0, 0, 1)], 1e-3, torch.Generator().manual_seed(0))
    assert math.isfinite(losses["loss"])
    assert all(p.dtype == torch.float32 for p in task.unet.parameters())


def test_accelerate_gives_the_same_steps(small_config):
    """An Accelerator of one process takes the same steps as no accelerator."""
    accelerate = pytest.importorskip("accelerate")
    plain = diffusion(small_config)
    settings = plain.settings
    other = DiffusionTask(
        small_config,
        settings,
        fresh_first_stage(small_config, 1),
        fresh_unet(small_config, 2),
        Runtime(accelerator=accelerate.Accelerator(cpu=True)),
    )
    for step in range(2):
        losses = [
            task.step([source(2)(step, 0, 1)], 1e-3, torch.Generator().manual_seed(step)) for task in (plain, other)
        ]
        assert losses[0] == losses[1]


def test_accumulated_gradients_are_the_mean(small_config):
    one, two = diffusion(small_config), diffusion(small_config)
    batches = [source(2)(index, 0, 1) for index in (0, 1)]
    one.step(batches, 1e-3, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    (sum(two.losses(batch, generator)["loss"] for batch in batches) / 2).backward()
    for a, b in zip(one.unet.parameters(), two.unet.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)


def test_grid_puts_cases_in_rows():
    pictures = torch.stack([torch.full((2, 3, 4, 4), -1.0), torch.full((2, 3, 4, 4), 1.0)])
    made = grid(pictures)
    assert made.shape == (8, 8, 3)
    assert (made[:4] == 0).all()
    assert (made[4:] == 255).all()
