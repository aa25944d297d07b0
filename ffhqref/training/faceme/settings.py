"""How FaceMe is trained: the published settings as defaults, and each defect of the published script as a switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError
from ffhqref.training.faceme.data import BatchRules
from ffhqref.training.faceme.references import MOST, PoolRules

if TYPE_CHECKING:
    from ffhqref.training.settings import RunSettings


@dataclass(frozen=True)
class FaceMeSettings:
    """One stage of the training. Defaults are what the published script does.

    Attributes:
        run: see `RunSettings`. The published rate is constant from the first step on (its 500 steps of warm-up are
            an argument without effect): `run.warmup` 0; another value switches the warm-up on.
        stage: 1 trains ControlNet and Mix, with references always; 2 the ControlNet alone.
        resolution: R of the time ids (R, R, 0, 0, R, R); the images are not resized to it.
        identity_share: stage 2's share of batches with references, the others have the plain text.
        most_references: n is uniform over 1 to this.
        own_embedding: see `PoolRules`.
        growing_pool: see `PoolRules`.
        draws_per_device: see `BatchRules`.
        controlnet_init: where the ControlNet starts: ``unet``, a copy of the U-Net, in stage 2 too, as published; or
            ``stage1``, the ControlNet that stage 1 ended with.
        lora: PhotoMaker's LoRA merged into the U-Net. The paper speaks of the tuned base, the published code loads
            the LoRA and applies nothing.
        weight_decay: of AdamW, for every trained tensor.
        gradient_checkpointing: activations are computed again in the backward pass, which saves memory.
        cached_latents: images whose latent distribution is kept in memory; the frozen VAE sees each of them once.
            0: encoded anew each time, as published.
        ema_decay: running averages are exported beside the weights; None: no averages, as published.
        sample_steps: of the sampler that makes the sample grids.
    """

    run: RunSettings
    stage: int = 1
    resolution: int = 512
    identity_share: float = 0.5
    most_references: int = MOST
    own_embedding: bool = True
    growing_pool: bool = False
    draws_per_device: bool = False
    controlnet_init: str = "unet"
    lora: bool = False
    weight_decay: float = 1e-2
    gradient_checkpointing: bool = False
    cached_latents: int = 0
    ema_decay: float | None = None
    sample_steps: int = 10

    def __post_init__(self) -> None:
        if self.stage not in (1, 2):
            raise ConfigError(f"training: FaceMe has the stages 1 and 2, not {self.stage}")
        if self.controlnet_init not in ("unet", "stage1"):
            raise ConfigError(f"training: controlnet_init must be unet or stage1, not '{self.controlnet_init}'")
        if self.stage == 1 and self.controlnet_init != "unet":
            raise ConfigError("training: stage 1 starts its ControlNet from the U-Net: controlnet_init=unet")
        _ = self.batch_rules  # refuses now what would fail later
        if self.ema_decay is not None and not 0.0 < self.ema_decay < 1.0:
            raise ConfigError(f"training: ema_decay must lie between 0 and 1, or be null, not {self.ema_decay}")

    @property
    def batch_rules(self) -> BatchRules:
        """Return how batches are drawn."""
        return BatchRules(
            batch_size=self.run.batch_size,
            identity_share=1.0 if self.stage == 1 else self.identity_share,
            most=self.most_references,
            draws_per_device=self.draws_per_device,
            seed=self.run.seed,
        )

    @property
    def pool_rules(self) -> PoolRules:
        """Return what references are drawn from."""
        return PoolRules(self.own_embedding, self.growing_pool)
