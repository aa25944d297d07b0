"""Losses of ReF-LDM's training: their values, their gradients, and the conditions they are taken under."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ffhqref.training.refldm.data import TrainingBatch
from ffhqref.training.refldm.diffusion import ReferenceDenoiser
from ffhqref.training.refldm.losses import codebook_loss, identity_crop, identity_loss
from ffhqref.training.refldm.start import (
    fresh_first_stage,
    fresh_unet,
)

from .training_tools import diffusion, embedder, source


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
    """scripts/eval.py: of 512 rows and columns 32 to 480, by area to 112 (four by four means)."""
    images = torch.rand((1, 3, 512, 512), generator=torch.Generator().manual_seed(0))
    expected = images[:, :, 32:480, 32:480].reshape(1, 3, 112, 4, 112, 4).mean(dim=(3, 5))
    torch.testing.assert_close(identity_crop(images), expected)


def test_codebook_loss_weighs_the_published_side():
    latents, codes = torch.tensor([1.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    codebook_loss(latents, codes, 0.25).backward()
    assert float(latents.grad) == pytest.approx(-4.0)
    assert float(codes.grad) == pytest.approx(1.0)


def test_conditions_are_dropped_whole_and_independently(small_config):
    task = diffusion(small_config, drop_lq=0.3, drop_references=0.4)
    corners = (x[..., :16, :16] for x in vars(source(2)(0, 0, 1)).values())
    batch = TrainingBatch(*(x.repeat(32, *[1] * (x.dim() - 1)) for x in corners))
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


def test_accumulated_gradients_are_the_mean(small_config):
    one, two = diffusion(small_config), diffusion(small_config)
    batches = [source(2)(index, 0, 1) for index in (0, 1)]
    one.step(batches, 1e-3, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    (sum(two.losses(batch, generator)["loss"] for batch in batches) / 2).backward()
    for a, b in zip(one.unet.parameters(), two.unet.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)
