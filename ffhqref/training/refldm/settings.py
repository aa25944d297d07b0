"""What is trained how; conf/train has the paper's settings, and tiny ones for two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ffhqref.training.settings import RunSettings


@dataclass(frozen=True)
class VQGANSettings:
    """Training of the first stage.

    The loss weights are those of the published VQGAN code (Esser et al. 2021), which ReF-LDM builds on.

    Attributes:
        run: see `RunSettings`.
        perceptual_weight: of LPIPS beside the L1 difference.
        adversarial_weight: of the discriminator, times the ratio of the two losses' gradients at the last layer.
        adversarial_start: step from which the discriminator counts.
        codebook_weight: of the codebook loss.
        commitment: share of the codebook loss's second part, which moves the codes.
        discriminator_width: channels of the discriminator's first layer.
        vary: whether images are changed by `data.vary_person`; not published.
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
            the signal-to-noise ratio is above 1, else 1 (Hang et al. 2023, gamma 1). ``image``: 1/SNR, which is the
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
