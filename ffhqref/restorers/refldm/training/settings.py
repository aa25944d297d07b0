"""What is trained how: the paper's settings, and tiny ones for two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ffhqref.restorers.refldm.config import FirstStageConfig, RefLDMConfig, UNetConfig
from ffhqref.training.settings import RunSettings


@dataclass(frozen=True)
class VQGANSettings:
    """Training of the first stage (protocols.md 6.1; the loss weights are those of the VQGAN code it builds on).

    Attributes:
        run: see `RunSettings`.
        perceptual_weight: of LPIPS beside the L1 difference.
        adversarial_weight: of the discriminator, times the ratio of the two losses' gradients at the last layer.
        adversarial_start: step from which the discriminator counts.
        codebook_weight: of the codebook loss.
        commitment: share of the codebook loss's second part, which moves the codes.
        discriminator_width: channels of the discriminator's first layer.
        vary: whether pictures are changed by `data.vary_person`; not published.
        revive_after: a code that no latent chose for so many steps is put where a random latent of the batch is;
            0: never, as published. Small runs need it: without it all but a few codes die at the start.
    """

    run: RunSettings
    perceptual_weight: float = 1.0
    adversarial_weight: float = 0.8
    adversarial_start: int = 30_001
    codebook_weight: float = 1.0
    commitment: float = 0.25
    discriminator_width: int = 64
    vary: bool = False
    revive_after: int = 0


@dataclass(frozen=True)
class DiffusionSettings:
    """Training of the denoiser, without references (LDM) or with them (ReF-LDM).

    Attributes:
        run: see `RunSettings`.
        references: references a case, its list repeated and cut; 0: LQ only.
        drop_lq: probability with which a case's LQ latent is set to zero.
        drop_references: probability with which all reference latents of a case are.
        augment: whether references are augmented, as published.
        vary: whether target and references of a case are changed alike (`data.vary_person`); not published.
        weighting: how much a case's latent loss counts. ``noise``: all alike, as published. ``min_snr``: 1/SNR where
            the signal-to-noise ratio is above 1, else 1 (Hang et al. 2023, gamma 1). ``picture``: 1/SNR, which is the
            squared error of the latent itself, at most 20; a small network otherwise learns the first, noisiest steps
            of sampling last.
    """

    run: RunSettings
    references: int = 5
    drop_lq: float = 0.1
    drop_references: float = 0.1
    augment: bool = True
    vary: bool = False
    weighting: Literal["noise", "min_snr", "picture"] = "noise"
    identity_weight: float = 0.1
    ema_decay: float = 0.9999


@dataclass(frozen=True)
class Recipe:
    """An architecture and its three trainings, in order."""

    config: RefLDMConfig
    vqgan: VQGANSettings
    ldm: DiffusionSettings
    refldm: DiffusionSettings


def paper() -> Recipe:
    """Return the paper's recipe (protocols.md 6.1); batch sizes are those of all processes together."""
    return Recipe(
        config=RefLDMConfig(),
        vqgan=VQGANSettings(RunSettings(steps=200_000, batch_size=32, learning_rate=1e-4, cosine=True)),
        # Neither the published LDM config nor the paper gives it a warm-up; the fine-tune has one of 10k steps.
        ldm=DiffusionSettings(RunSettings(steps=500_000, batch_size=40, warmup=0), references=0, identity_weight=0.0),
        refldm=DiffusionSettings(RunSettings(steps=150_000, batch_size=8)),
    )


def tiny() -> Recipe:
    """Return a recipe for two CPU cores, about half an hour in all: 128 pixels, 1.0 and 2.9 million parameters."""
    run = RunSettings(
        steps=1500, batch_size=4, learning_rate=1e-3, warmup=100, cosine=True, save_every=250, sample_every=250
    )
    config = RefLDMConfig(
        first_stage=FirstStageConfig(
            embed_dim=8, n_embed=1024, z_channels=8, resolution=128, ch=32, ch_mult=(1, 1, 2, 2), num_res_blocks=1
        ),
        unet=UNetConfig(
            in_channels=16,
            out_channels=8,
            model_channels=64,
            attention_resolutions=(1, 2),
            num_res_blocks=1,
            channel_mult=(1, 2),
            num_head_channels=32,
        ),
        image_size=16,
    )
    diffusion = DiffusionSettings(replace(run, batch_size=8), ema_decay=0.999, identity_weight=0.0)
    return Recipe(
        config=config,
        # No perceptual network is at hand offline, and without one the discriminator does harm: it never starts.
        vqgan=VQGANSettings(
            run, perceptual_weight=0.0, adversarial_start=run.steps, discriminator_width=32, revive_after=20
        ),
        ldm=replace(diffusion, references=0),
        refldm=replace(diffusion, references=2, run=replace(diffusion.run, steps=1000, learning_rate=5e-4)),
    )
