"""RestorerID's sampling schedule: DDIM's tables beside times that do not agree with them, both as published.

Source: RestorerID, published code (commit 157e2883): scripts/Inference.py. Formulas: Song et al., "Denoising Diffusion
Implicit Models" (2021), equation 12.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ffhqref.zoo.restorerid.config import DiffusionConfig


class Schedule:
    """Times and steps of one sampling length.

    The networks are told times from 0 to 999 at equal distances. The steps are computed with the table's entries at
    multiples of floor(1000 / steps) instead. The first entry's predecessor is itself, so that the last step changes
    nothing. Both are quirks of the published script, which its weights' results have.

    Args:
        steps: number of steps, 1 to 1000.
        eta: 1 is ancestral sampling, 0 is deterministic.
        diffusion: the noise of training.
    """

    def __init__(self, steps: int, eta: float, diffusion: DiffusionConfig) -> None:
        trained = diffusion.timesteps
        self.times = _spaced(steps, trained)
        self.indices = list(range(0, trained, trained // steps))
        root = torch.linspace(diffusion.linear_start**0.5, diffusion.linear_end**0.5, trained, dtype=torch.float64)
        kept = (1 - root**2).cumprod(0).float().double()
        self.alphas = kept[self.indices]
        self.alphas_prev = torch.cat([kept[:1], self.alphas[:-1]])
        share = (1 - self.alphas_prev) / (1 - self.alphas) * (1 - self.alphas / self.alphas_prev)
        self.sigmas = eta * share.sqrt()

    def step(
        self, index: int, x: torch.Tensor, noise: torch.Tensor, draw: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latent after a step, and the clean latent that the step assumed.

        Args:
            index: of the entry; the last entry is the first step, entry 0 the last.
            x: latent before it, [1, 4, h, w].
            noise: the guided prediction.
            draw: standard normal.
        """
        alpha, before, sigma = (
            table[index].float().to(x.device) for table in (self.alphas, self.alphas_prev, self.sigmas)
        )
        clean = (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        return before.sqrt() * clean + (1 - before - sigma**2).sqrt() * noise + sigma * draw, clean


def _spaced(steps: int, trained: int) -> list[int]:
    """Return times from 0 to the last at equal distances, added up in floating point and rounded half to even."""
    stride = (trained - 1) / (steps - 1) if steps > 1 else 1.0
    position, times = 0.0, []
    for _ in range(steps):
        times.append(round(position))
        position += stride
    return times
