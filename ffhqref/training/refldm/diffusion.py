"""Training of the denoiser: LQ-only LDM, and ReF-LDM from it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ffhqref.core.errors import ConfigError
from ffhqref.core.files import write_atomic
from ffhqref.training.ema import RunningAverage
from ffhqref.training.files import State, save_whole
from ffhqref.training.refldm.losses import Embed, identity_loss
from ffhqref.zoo.refldm.checkpoint import published_state
from ffhqref.zoo.refldm.keys_values import RowGroup, WithReferences
from ffhqref.zoo.refldm.layers import laid_out
from ffhqref.zoo.refldm.model import RefLDM
from ffhqref.zoo.refldm.schedule import alphas_cumprod

if TYPE_CHECKING:
    from ffhqref.training.refldm.data import TrainingBatch
    from ffhqref.training.refldm.settings import DiffusionSettings
    from ffhqref.training.runtime import TrainingRuntime
    from ffhqref.zoo.refldm.config import RefLDMConfig
    from ffhqref.zoo.refldm.first_stage import FirstStage
    from ffhqref.zoo.refldm.unet import UNet


class ReferenceDenoiser(nn.Module):
    """The U-Net with its references in one forward call, so that gradients of both passes are spread together."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, lq: Tensor, t: Tensor, references: Tensor) -> Tensor:
        """Return predicted noise [B, C, h, w] for latents x and lq [B, C, h, w], t [B], references [B, N, C, h, w]."""
        batch, count = references.shape[:2]
        attend = None
        if count:
            given = references.flatten(0, 1)
            # Like the main pass, references get gradients: they learn to be looked at (CacheKV).
            keys_values = self.unet.keys_values(torch.cat([given, torch.zeros_like(given)], dim=1)).merged(count)
            attend = WithReferences([RowGroup(0, batch, keys_values)])
        return cast("Tensor", self.unet(torch.cat([x, lq], dim=1), t, attend))


class DiffusionTask:
    """One kind of denoiser training: its networks, its optimiser, and a step of it.

    Args:
        config: the architecture.
        settings: how it is trained.
        first_stage: trained VQ auto-encoder; frozen here.
        unet: the denoiser, fresh for the LDM, the LDM's raw weights for the fine-tune.
        runtime: where it runs.
        embed: the face embedder of the identity loss; needed where that has a weight.

    Raises:
        ConfigError: the identity loss has a weight and no embedder.
    """

    curve: tuple[str, ...] = ("loss", "latent", "identity")

    def __init__(
        self,
        config: RefLDMConfig,
        settings: DiffusionSettings,
        first_stage: FirstStage,
        unet: UNet,
        runtime: TrainingRuntime,
        embed: Embed | None = None,
    ) -> None:
        if settings.identity_weight and embed is None:
            raise ConfigError(
                "training: the identity loss needs a face embedder; give one, or set identity_weight to 0"
            )
        self.config = config
        self.settings = settings
        self.run = settings.run
        self.runtime = runtime
        self.first_stage = laid_out(first_stage.to(runtime.device), torch.channels_last).eval().requires_grad_(False)
        self.unet = laid_out(unet.to(runtime.device), torch.channels_last).train()
        self.ema = RunningAverage(self.unet, settings.ema_decay)
        self._embed = embed
        self._denoise = runtime.prepare(ReferenceDenoiser(self.unet))
        self._optimizer = runtime.prepare(torch.optim.AdamW(self.unet.parameters(), lr=self.run.learning_rate))
        alphas = alphas_cumprod(config.timesteps, config.linear_start, config.linear_end)
        self._alphas = torch.from_numpy(alphas).float().to(runtime.device)

    def step(self, batches: list[TrainingBatch], rate: float, generator: torch.Generator) -> dict[str, float]:
        """Do one optimiser step over batches whose gradients are averaged, and return its losses."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        sums = dict.fromkeys(self.curve, 0.0)
        for batch in batches:
            parts = self.losses(batch, generator)
            self.runtime.backward(parts["loss"] / len(batches))
            for name in self.curve:
                sums[name] += self.runtime.mean(parts[name]) / len(batches)
        self._optimizer.step()
        self.ema.update(self.unet)
        return sums

    def losses(self, batch: TrainingBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``latent`` and ``identity`` for a batch.

        Draws come from a CPU generator, so that every device sees the same.
        """
        target, lq, references = self.conditions(batch, generator)
        size = target.shape[0]
        t = torch.randint(0, self.config.timesteps, (size,), generator=generator).to(target.device)
        noise = torch.randn(target.shape, generator=generator).to(target.device)
        alpha = self._alphas[t]
        wide = alpha.view(-1, 1, 1, 1)
        x = wide.sqrt() * target + (1.0 - wide).sqrt() * noise
        with self.runtime.autocast():
            found = self._denoise(x, lq, t, references).float()
        latent = (self._weight(alpha) * ((found - noise) ** 2).mean(dim=(1, 2, 3))).mean()
        identity = latent.new_zeros(())
        if self._embed is not None and self.settings.identity_weight:
            x_0 = (x - (1.0 - wide).sqrt() * found) / wide.sqrt()
            with torch.no_grad():
                truth = self.first_stage.decode(target)
            identity = identity_loss(self.first_stage.decode(x_0), truth, alpha, self._embed)
        return {
            "loss": latent + self.settings.identity_weight * identity,
            "latent": latent.detach(),
            "identity": identity.detach(),
        }

    def _weight(self, alpha: Tensor) -> Tensor:
        """Return the weight of each case's latent loss."""
        snr = alpha / (1.0 - alpha)
        if self.settings.weighting == "min_snr":
            return snr.clamp(max=1.0) / snr
        if self.settings.weighting == "picture":
            return (1.0 / snr).clamp(max=20.0)
        return torch.ones_like(alpha)

    @torch.no_grad()
    def conditions(self, batch: TrainingBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the latents of target, LQ and references, the latter two dropped at random, case by case."""
        gt, lq, references = (x.to(self.runtime.device) for x in (batch.gt, batch.lq, batch.references))
        target, condition = self.first_stage.encode(torch.cat([gt, lq])).chunk(2)
        size, count = references.shape[:2]
        if count:
            strip = self.first_stage.encode(torch.cat(list(references.unbind(1)), dim=3))
            given = torch.stack(strip.chunk(count, dim=3), dim=1)
        else:
            given = target.new_zeros(size, 0, *target.shape[1:])
        draws = torch.rand((2, size), generator=generator).to(target.device)
        keep_lq, keep_references = draws[0] >= self.settings.drop_lq, draws[1] >= self.settings.drop_references
        return target, condition * keep_lq.view(-1, 1, 1, 1), given * keep_references.view(-1, 1, 1, 1, 1)

    def sampler(self) -> RefLDM:
        """Return a sampler with copies of the averaged weights."""
        unet = copy.deepcopy(self.unet)
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                parameter.copy_(self.ema.values[name])
        return RefLDM(self.config, unet, copy.deepcopy(self.first_stage), device=self.runtime.device)

    def samples(self, batch: TrainingBatch, steps: int = 10) -> Tensor:
        """Return images to look at, [B, 3 + N, 3, H, W] in −1..1: LQ, restored, ground truth, references."""
        references = batch.references
        shape = (1, self.config.channels, self.config.image_size, self.config.image_size)
        x_T = torch.randn(shape, generator=torch.Generator().manual_seed(self.run.seed))
        sampler = self.sampler()
        image = sampler.decode(
            sampler.sample_latent(batch.lq, references, x_T, steps, 1.5 if references.shape[1] else 1.0)
        )
        return torch.cat([torch.stack([batch.lq, image.clamp(-1, 1).cpu(), batch.gt], dim=1), references], dim=1)

    def state_dict(self) -> State:
        """Return all that a resumed run needs."""
        return {
            "unet": self.unet.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take up a saved state."""
        self.unet.load_state_dict(state["unet"])
        self.ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])

    def export(self, folder: Path) -> list[Path]:
        """Write ``refldm.ckpt`` in the published layout, and its architecture as ``config.yaml``."""
        import yaml

        state = published_state(
            self.config,
            self.unet.state_dict(),
            self.ema.values,
            self.first_stage.state_dict(),
            decay=self.settings.ema_decay,
            updates=self.ema.updates,
        )
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint, config = folder / "refldm.ckpt", folder / "config.yaml"
        save_whole(checkpoint, {name: value.detach().cpu().contiguous() for name, value in state.items()})
        write_atomic(config, yaml.safe_dump(self.config.to_tree(), sort_keys=False).encode(), lasting=True)
        return [checkpoint, config]
