"""Where standard normal draws come from: the cases' seeds, or numbers stored by a run of the published code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ffhqref.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


class Draws(Protocol):
    """A row of draws."""

    def __call__(self) -> torch.Tensor:
        """Return the next float32 [B, 3, S, S], standard normal."""
        ...


class SeededDraws:
    """Draws of each case from its own seed, always made on the CPU, so that they do not depend on batch or device.

    Args:
        seeds: one a case.
        shape: [3, S, S] of a draw.
        device: where they are handed out.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], device: str) -> None:
        import torch

        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape = shape
        self._device = device

    def __call__(self) -> torch.Tensor:
        """Return the next draw of every case."""
        import torch

        rows = [torch.randn(self._shape, generator=generator) for generator in self._generators]
        return torch.stack(rows).to(self._device)


class StoredDraws:
    """Draws in the order of a stored tensor.

    Args:
        tensor: float32 [K, B, 3, S, S].
        device: where they are handed out.
    """

    def __init__(self, tensor: torch.Tensor, device: str = "cpu") -> None:
        self._tensor = tensor
        self._device = device
        self.used = 0

    def __call__(self) -> torch.Tensor:
        """Return the next draw.

        Raises:
            ConfigError: all have been used.
        """
        if self.used == len(self._tensor):
            raise ConfigError(f"all {self.used} stored draws are used; the stored run had other settings")
        self.used += 1
        return self._tensor[self.used - 1].to(self._device)
