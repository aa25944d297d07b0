"""The noise schedule and the time steps of DDIM, as the published code takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ffhqref.core.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Spacing = Literal["uniform", "uniform_trailing"]
SPACINGS: tuple[Spacing, ...] = ("uniform", "uniform_trailing")


def alphas_cumprod(timesteps: int, linear_start: float, linear_end: float) -> NDArray[np.float64]:
    """Return ᾱ [timesteps] for betas that are linear in their square root (configs/refldm.yaml)."""
    betas = np.linspace(linear_start**0.5, linear_end**0.5, timesteps, dtype=np.float64) ** 2
    return np.asarray(np.cumprod(1.0 - betas), dtype=np.float64)


def ddim_timesteps(steps: int, spacing: str, timesteps: int = 1000) -> NDArray[np.int64]:
    """Return the time steps, largest first, in the order the sampler takes them.

    The number of steps is nominal, as in the published code: with a stride c = timesteps // steps there are
    ceil(timesteps / c) of them (6 asked for of 1000 gives 7). ``uniform`` is 1, 1 + c, …; ``uniform_trailing`` is
    timesteps - 1, timesteps - 1 - c, … (ldm/models/diffusion/ddim.py).

    Raises:
        ConfigError: an unknown spacing; a number of steps out of 1..timesteps; or one for which ``uniform`` asks
            for time step ``timesteps``, which the published code cannot do either.
    """
    if spacing not in SPACINGS:
        raise ConfigError(f"unknown DDIM spacing '{spacing}'; known: {', '.join(SPACINGS)}")
    if isinstance(steps, bool) or int(steps) != steps or not 1 <= steps <= timesteps:
        raise ConfigError(f"DDIM steps must be a whole number from 1 to {timesteps}, not {steps}")
    stride = timesteps // int(steps)
    if spacing == "uniform_trailing":
        return np.arange(timesteps - 1, -1, -stride, dtype=np.int64)
    found = np.arange(0, timesteps, stride, dtype=np.int64) + 1
    if found[-1] >= timesteps:
        usable = [s for s in range(1, timesteps + 1) if (timesteps - 1) % (timesteps // s)]
        near = sorted(sorted(usable, key=lambda s: (abs(s - steps), s))[:4])
        raise ConfigError(
            f"{steps} DDIM steps with 'uniform' spacing run past the {timesteps} time steps the model knows; take "
            f"{', '.join(map(str, near))}, or 'uniform_trailing'"
        )
    return found[::-1].copy()


@dataclass(frozen=True)
class DDIMTable:
    """One row a step, in the sampler's order: time step, ᾱ at it, and ᾱ at the one after it."""

    timesteps: NDArray[np.int64]
    alpha: NDArray[np.float64]
    alpha_next: NDArray[np.float64]

    @classmethod
    def make(cls, alphas: NDArray[np.float64], steps: int, spacing: str) -> DDIMTable:
        """Return the table; the last step goes to ᾱ of time step 0, not to 1 (ldm/models/diffusion/ddim.py).

        Raises:
            ConfigError: see `ddim_timesteps`.
        """
        times = ddim_timesteps(steps, spacing, len(alphas))
        # The published buffers are float32; the few square roots of a step are then taken in double.
        table = alphas.astype(np.float32).astype(np.float64)
        return cls(times, table[times], table[np.append(times[1:], 0)])

    def up_to(self, time: int) -> DDIMTable:
        """Return the table without the steps that are noisier than this time step; at least the last step stays."""
        first = min(int((self.timesteps > time).sum()), len(self.timesteps) - 1)
        return DDIMTable(self.timesteps[first:], self.alpha[first:], self.alpha_next[first:])

    def __len__(self) -> int:
        return len(self.timesteps)
