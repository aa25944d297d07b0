"""The noise schedule of guided-diffusion, its respacing, and the two sampling steps that the methods use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_FIRST_BETA, _LAST_BETA = 0.0001, 0.02


def kept_times(respacing: str | Sequence[int], steps: int = 1000) -> NDArray[np.int64]:
    """Return which of the times 0..steps-1 are kept, rising.

    Args:
        respacing: ``""``: all; ``ddimN`` or ``ddpmN``: 0, s, 2s, … with the smallest whole stride s that gives N of
            them; counts, ``"10,20"`` or a list: as many equal sections, of each so many times, evenly spaced.
        steps: times of the full chain.

    Raises:
        ConfigError: not of this form, no stride gives N, or more times than a section has.
    """
    if respacing == "":
        return np.arange(steps)
    if isinstance(respacing, str) and respacing[:4] in ("ddim", "ddpm") and respacing[4:].isdigit():
        count = int(respacing[4:])
        for stride in range(1, steps):
            if len(range(0, steps, stride)) == count:
                return np.arange(0, steps, stride)
        raise ConfigError(f"respacing {respacing!r}: no whole stride takes {count} of {steps} steps")
    try:
        counts = [int(item) for item in (respacing.split(",") if isinstance(respacing, str) else respacing)]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise ConfigError(
            f"respacing {respacing!r}, expected '' (all), 'ddimN', 'ddpmN', or the steps of each section ('10,20')"
        )
    kept: list[int] = []
    start = 0
    for index, count in enumerate(counts):
        size = steps // len(counts) + (index < steps % len(counts))
        if count > size:
            raise ConfigError(f"respacing {respacing!r}: {count} steps of a section that has {size}")
        stride_ = (size - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0  # added up, as the published code does: products round to other times now and then
        for _ in range(count):
            kept.append(start + round(position))
            position += stride_
        start += size
    return np.asarray(kept, dtype=np.int64)


@dataclass(frozen=True)
class Step:
    """What happened at one call of the network."""

    index: int
    """Place in the respaced chain; the last one is 0."""
    time: int
    """Original time, which the network was told."""
    entered: Tensor
    """The network's input [B, 3, S, S]."""
    output: Tensor
    """The network's output [B, 6, S, S]."""
    x0: Tensor
    """The image foreseen, clamped to −1..1."""
    state: Tensor
    """What the step made of it."""
    gradient: Tensor | None = None
    """Of the guiding loss with respect to `x0`, where there is one."""


@dataclass(frozen=True)
class Diffusion:
    """A respaced chain. Tables are float64 and meet tensors as float32."""

    times: NDArray[np.int64]
    """Original time of each index."""
    betas: NDArray[np.float64]

    @classmethod
    def respaced(cls, respacing: str | Sequence[int] = "", steps: int = 1000) -> Diffusion:
        """Return the chain over the kept times, its betas made from what is left of ᾱ.

        Raises:
            ConfigError: see `kept_times`; or fewer than two times, too few for the variance of the last step.
        """
        times = kept_times(respacing, steps)
        if len(times) < 2:
            raise ConfigError(f"respacing {respacing!r} keeps {len(times)} step of {steps}, expected at least 2")
        scale = 1000 / steps
        full = np.cumprod(1.0 - np.linspace(scale * _FIRST_BETA, scale * _LAST_BETA, steps, dtype=np.float64))
        kept = full[times]
        return cls(times, 1.0 - kept / np.append(1.0, kept[:-1]))

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def alphas(self) -> NDArray[np.float64]:
        """ᾱ of each index."""
        return np.asarray(np.cumprod(1.0 - self.betas))

    @cached_property
    def alphas_before(self) -> NDArray[np.float64]:
        """ᾱ of the index below; 1 at index 0."""
        return np.append(1.0, self.alphas[:-1])

    @cached_property
    def _posterior(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Weights of x̂0 and of x in the mean of the step, and the logarithm of its smallest variance."""
        before, rest = self.alphas_before, 1.0 - self.alphas
        variance = self.betas * (1.0 - before) / rest
        smallest = np.log(np.append(variance[1], variance[1:]))
        return self.betas * np.sqrt(before) / rest, (1.0 - before) * np.sqrt(1.0 - self.betas) / rest, smallest

    def noised(self, picture: Tensor, index: int, noise: Tensor) -> Tensor:
        """Return the image with the noise of an index: sqrt(ᾱ)·image + sqrt(1 − ᾱ)·noise."""
        alpha = self.alphas[index]
        return _float(np.sqrt(alpha)) * picture + _float(np.sqrt(1.0 - alpha)) * noise

    def foreseen(self, x: Tensor, index: int, output: Tensor) -> Tensor:
        """Return x̂0, clamped to −1..1, of a state and the network's output for it."""
        alpha = self.alphas[index]
        noise = output[:, : x.shape[1]]
        return (_float(np.sqrt(1.0 / alpha)) * x - _float(np.sqrt(1.0 / alpha - 1.0)) * noise).clamp(-1.0, 1.0)

    def ddim(self, x0: Tensor, output: Tensor, index: int, eta: float, draw: Tensor) -> Tensor:
        """Return the next state of DifFace's DDIM step.

        The noise is the network's own, not re-derived from the clamped x̂0 as other DDIM code has it.

        Args:
            x0: see `foreseen`.
            output: of the network.
            index: of the step.
            eta: 0: no fresh noise; 1: as much as DDPM.
            draw: standard normal; not used at index 0.
        """
        alpha, before = np.float32(self.alphas[index]), np.float32(self.alphas_before[index])
        one = np.float32(1.0)
        sigma = np.float32(eta) * np.sqrt((one - before) / (one - alpha)) * np.sqrt(one - alpha / before)
        noise = output[:, : x0.shape[1]]
        mean = _float(np.sqrt(before)) * x0 + _float(np.sqrt(one - before - sigma**2)) * noise
        return mean + _float(sigma) * draw if index else mean

    def posterior(self, x: Tensor, x0: Tensor, index: int, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the learned variance of the DDPM step, each [B, 3, S, S]."""
        of_start, of_state, smallest = (_float(table[index]) for table in self._posterior)
        fraction = (output[:, x.shape[1] :] + 1) / 2
        log_variance = fraction * _float(np.log(self.betas[index])) + (1 - fraction) * smallest
        return of_start * x0 + of_state * x, log_variance

    def ddpm(self, mean: Tensor, log_variance: Tensor, index: int, draw: Tensor) -> Tensor:
        """Return the next state of the DDPM step; at index 0 it is the mean."""
        return mean + (0.5 * log_variance).exp() * draw if index else mean


def _float(value: np.floating) -> float:
    """Return a table's entry as the published code's float32 tensors hold it."""
    return float(np.float32(value))
