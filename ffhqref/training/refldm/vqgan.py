"""Training of the first stage: L1, perceptual and adversarial reconstruction with a learned codebook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ffhqref.core.errors import ConfigError
from ffhqref.training.files import State, save_whole
from ffhqref.training.refldm.losses import (
    PatchDiscriminator,
    adversarial_share,
    codebook_loss,
    discriminator_loss,
)
from ffhqref.zoo.refldm.layers import laid_out

if TYPE_CHECKING:
    from ffhqref.training.refldm.data import TrainingBatch
    from ffhqref.training.refldm.settings import VQGANSettings
    from ffhqref.training.runtime import TrainingRuntime
    from ffhqref.zoo.refldm.config import RefLDMConfig
    from ffhqref.zoo.refldm.first_stage import FirstStage

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""A perceptual distance of two batches of images in −1..1, of any shape that has a mean: LPIPS, for instance."""


class _Reconstruct(nn.Module):
    """The whole auto-encoder in one forward call."""

    def __init__(self, first_stage: FirstStage) -> None:
        super().__init__()
        self.first_stage = first_stage

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstructions [B, 3, H, W], latents and their codes [B, C, h, w]."""
        latents = self.first_stage.encode(images)
        quantize = self.first_stage.quantize
        codes = quantize.lookup(quantize.nearest(latents)).float()
        return self.first_stage.decode_codes(latents + (codes - latents).detach()), latents, codes


class VQGANTask:
    """The first stage's training: its networks, its two optimisers, and a step of it.

    Args:
        config: the architecture.
        settings: how it is trained.
        first_stage: the network to train.
        runtime: where it runs.
        perceptual: the perceptual distance; needed where that has a weight.

    Raises:
        ConfigError: the perceptual loss has a weight and no network, or codes are to be revived in more than one
            process, which would each revive their own.
    """

    curve: tuple[str, ...] = (
        "loss",
        "reconstruction",
        "perceptual",
        "codebook",
        "adversarial",
        "discriminator",
        "codes_used",
    )

    def __init__(
        self,
        config: RefLDMConfig,
        settings: VQGANSettings,
        first_stage: FirstStage,
        runtime: TrainingRuntime,
        perceptual: Perceptual | None = None,
    ) -> None:
        if settings.perceptual_weight and perceptual is None:
            raise ConfigError(
                "training: the perceptual loss needs a network (LPIPS); give one, or set perceptual_weight to 0"
            )
        if settings.revive_after and runtime.processes > 1:
            raise ConfigError("training: codes can be revived in one process only; set revive_after to 0")
        self.config = config
        self.settings = settings
        self.run = settings.run
        self.runtime = runtime
        self.first_stage = laid_out(first_stage.to(runtime.device), torch.channels_last).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.run.seed)
            self.discriminator = PatchDiscriminator(settings.discriminator_width).to(runtime.device).train()
        self._perceptual = perceptual
        self._reconstruct = runtime.prepare(_Reconstruct(self.first_stage))
        self._judge = runtime.prepare(self.discriminator)
        rate, betas = self.run.learning_rate, (0.5, 0.9)
        self._optimizer = runtime.prepare(torch.optim.Adam(self.first_stage.parameters(), rate, betas))
        self._judge_optimizer = runtime.prepare(torch.optim.Adam(self.discriminator.parameters(), rate, betas))
        self.steps_done = 0
        self._idle = torch.zeros(config.first_stage.n_embed, dtype=torch.long)

    def step(self, batches: list[TrainingBatch], rate: float, generator: torch.Generator) -> dict[str, float]:
        """Do one step of the auto-encoder and, from its start on, one of the discriminator; return the losses."""
        judged = self.steps_done >= self.settings.adversarial_start
        optimizers = [self._optimizer, *([self._judge_optimizer] if judged else [])]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate
        sums = dict.fromkeys(self.curve, 0.0)
        pairs = []
        seen = []
        for batch in batches:
            real = batch.gt.to(self.runtime.device)
            parts, fake, latents = self.losses(real, judged)
            seen.append(latents)
            self.runtime.backward(parts["loss"] / len(batches))
            pairs.append((real, fake.detach()))
            for name, value in parts.items():
                sums[name] += self.runtime.mean(value) / len(batches)
        self._optimizer.step()
        if judged:
            self._judge_optimizer.zero_grad(set_to_none=True)  # the auto-encoder's loss went through it too
            for real, fake in pairs:
                with self.runtime.autocast():
                    loss = discriminator_loss(self._judge(real).float(), self._judge(fake).float())
                self.runtime.backward(loss / len(pairs))
                sums["discriminator"] += self.runtime.mean(loss) / len(pairs)
            self._judge_optimizer.step()
        if self.settings.revive_after:
            self._revive(torch.cat(seen), generator)
        self.steps_done += 1
        return sums

    @torch.no_grad()
    def _revive(self, latents: Tensor, generator: torch.Generator) -> None:
        """Put codes that were idle for long where random latents of the step are."""
        quantize = self.first_stage.quantize
        self._idle += 1
        self._idle[quantize.nearest(latents).flatten().unique().cpu()] = 0
        dead = (self._idle >= self.settings.revive_after).nonzero().flatten()
        pool = latents.permute(0, 2, 3, 1).flatten(0, 2)
        chosen = torch.randint(0, len(pool), (len(dead),), generator=generator)
        quantize.embedding.weight[dead.to(pool.device)] = pool[chosen.to(pool.device)]
        self._idle[dead] = 0

    def losses(self, real: Tensor, judged: bool) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return ``loss`` and its parts for images [B, 3, H, W] in −1..1, reconstructions, and latents."""
        settings = self.settings
        with self.runtime.autocast():
            fake, latents, codes = self._reconstruct(real)
        difference = (real - fake).abs().mean()
        perceptual = difference.new_zeros(())
        if self._perceptual is not None and settings.perceptual_weight:
            perceptual = self._perceptual(real, fake).mean()
        reconstruction = difference + settings.perceptual_weight * perceptual
        codebook = codebook_loss(latents, codes, settings.commitment)
        adversarial = difference.new_zeros(())
        total = reconstruction + settings.codebook_weight * codebook
        if judged:
            with self.runtime.autocast():
                adversarial = -self._judge(fake).float().mean()
            share = adversarial_share(reconstruction, adversarial, self.first_stage.decoder.last_layer)
            total = total + settings.adversarial_weight * share * adversarial
        used = codes.detach().permute(0, 2, 3, 1).flatten(0, 2).unique(dim=0).shape[0]
        parts = {
            "loss": total,
            "reconstruction": difference,
            "perceptual": perceptual,
            "codebook": codebook,
            "adversarial": adversarial,
            "codes_used": difference.new_tensor(float(used)),
        }
        parts = {name: value if name == "loss" else value.detach() for name, value in parts.items()}
        return parts, fake, latents.detach()

    @torch.no_grad()
    def samples(self, batch: TrainingBatch) -> Tensor:
        """Return images to look at, [B, 2, 3, H, W] in −1..1: ground truth and its reconstruction."""
        self.first_stage.eval()
        image = self.first_stage.decode(self.first_stage.encode(batch.gt.to(self.runtime.device)))
        self.first_stage.train()
        return torch.stack([batch.gt, image.clamp(-1, 1).cpu()], dim=1)

    def state_dict(self) -> State:
        """Return all that a resumed run needs."""
        return {
            "first_stage": self.first_stage.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "judge_optimizer": self._judge_optimizer.state_dict(),
            "steps_done": self.steps_done,
            "idle": self._idle,
        }

    def load_state_dict(self, state: State) -> None:
        """Take up a saved state."""
        self.first_stage.load_state_dict(state["first_stage"])
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._judge_optimizer.load_state_dict(state["judge_optimizer"])
        self.steps_done = cast("int", state["steps_done"])
        self._idle.copy_(state["idle"])

    def export(self, folder: Path) -> list[Path]:
        """Write ``vqgan.ckpt`` in the published layout: a ``state_dict`` of the first stage, discriminator beside."""
        state = self.first_stage.state_dict()
        state |= {f"loss.discriminator.{name}": value for name, value in self.discriminator.state_dict().items()}
        path = folder / "vqgan.ckpt"
        save_whole(path, {"state_dict": {name: value.cpu().contiguous() for name, value in state.items()}})
        return [path]
