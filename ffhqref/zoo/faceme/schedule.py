"""FaceMe's sampling schedule: diffusers' DDPM with draws that are given, not drawn.

diffusers' own ``DDPMScheduler.step`` draws its noise itself, so that a recorded case could not be run again. The
formulas are those of Ho et al., "Denoising Diffusion Probabilistic Models" (2020), equations 6 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SamplerDraws:
    """All randomness of one case: standard normal, float32, on the CPU or where they were drawn."""

    posterior: torch.Tensor
    """[1, 4, h, w]: which sample of the VAE's posterior of the input is taken."""
    start: torch.Tensor
    """[1, 4, h, w]: noise of the start."""
    steps: torch.Tensor
    """[S, 1, 4, h, w]: noise of each step; that of the last one has no effect."""

    @classmethod
    def of_seed(cls, seed: int, shape: tuple[int, ...], steps: int, device: str = "cpu") -> SamplerDraws:
        """Return the draws of one generator, in the order of the fields.

        Args:
            seed: of the case.
            shape: of the latent, [1, 4, h, w].
            steps: number of sampling steps.
            device: where they are drawn; the same seed gives others on CUDA than on the CPU.
        """
        import torch

        generator = torch.Generator(device).manual_seed(seed)
        drawn = [torch.randn(shape, generator=generator, device=device) for _ in range(2 + steps)]
        return cls(drawn[0], drawn[1], torch.stack(drawn[2:]))


class Schedule:
    """Times and steps of one sampling length.

    Args:
        scheduler: a diffusers ``DDPMScheduler``; its settings count.
        steps: number of steps.

    Raises:
        ConfigError: more steps than the schedule has times, or settings that are not FaceMe's kind.
    """

    def __init__(self, scheduler: Any, steps: int) -> None:
        config = scheduler.config
        if not 1 <= steps <= config.num_train_timesteps:
            raise ConfigError(f"steps must be from 1 to {config.num_train_timesteps}, not {steps}")
        for name, known in (
            ("prediction_type", ("epsilon", "v_prediction")),
            ("variance_type", ("fixed_small",)),
            ("thresholding", (False,)),
        ):
            if config[name] not in known:
                raise ConfigError(f"scheduler_config.json: {name} {config[name]!r} is not supported, only {known}")
        scheduler.set_timesteps(steps)
        self.timesteps: list[int] = scheduler.timesteps.tolist()
        self._kept: torch.Tensor = scheduler.alphas_cumprod  # ᾱ, float32
        self._predicts_v = config.prediction_type == "v_prediction"
        self._clip = float(config.clip_sample_range) if config.clip_sample else None

    def start(self, latent: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the latent with the noise of the last training time.

        The first step assumes an earlier time (981 of 999 for 50 steps): a quirk of the published code, kept.
        """
        kept = self._kept[-1]
        return kept**0.5 * latent + (1 - kept) ** 0.5 * noise

    def step(self, index: int, x: torch.Tensor, predicted: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the latent after a step.

        Args:
            index: of the step, 0 first.
            x: latent before it, [B, 4, h, w].
            predicted: the guided output of the U-Net.
            noise: the step's draw.
        """
        kept = self._kept[self.timesteps[index]]
        last = index + 1 == len(self.timesteps)
        kept_next = kept.new_ones(()) if last else self._kept[self.timesteps[index + 1]]
        if self._predicts_v:
            clean = kept**0.5 * x - (1 - kept) ** 0.5 * predicted
        else:
            clean = (x - (1 - kept) ** 0.5 * predicted) / kept**0.5
        if self._clip is not None:
            clean = clean.clamp(-self._clip, self._clip)
        alpha = kept / kept_next
        mean = kept_next**0.5 * (1 - alpha) / (1 - kept) * clean + alpha**0.5 * (1 - kept_next) / (1 - kept) * x
        if self.timesteps[index] == 0:
            return mean
        variance = ((1 - kept_next) / (1 - kept) * (1 - alpha)).clamp(min=1e-20)
        return mean + variance**0.5 * noise
