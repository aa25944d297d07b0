"""The architecture of GPEN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ffhqref.core.errors import ConfigError


@dataclass(frozen=True)
class GPENConfig:
    """Arguments of the published ``FullGenerator``. Defaults: GPEN-BFR-512."""

    FIXED: ClassVar[Mapping[str, object]] = {"blur_kernel": [1, 3, 3, 1], "isconcat": True}

    size: int = 512
    """Side of the image in pixels, a power of two."""
    style_dim: int = 512
    n_mlp: int = 8
    channel_multiplier: int = 2
    lr_mlp: float = 0.01
    narrow: float = 1.0
    """Factor of all widths."""

    def __post_init__(self) -> None:
        if self.size not in (8, 16, 32, 64, 128, 256, 512, 1024):
            raise ConfigError(f"gpen config: size={self.size} should be a power of two from 8 to 1024")

    @property
    def sides(self) -> list[int]:
        """Return the sides of the maps, from 4 to `size`."""
        return [2**power for power in range(2, self.size.bit_length())]

    def channels(self, side: int) -> int:
        """Return the number of channels of the encoder's map of that side."""
        full = 512 if side <= 32 else 16384 // side * self.channel_multiplier
        return int(full * self.narrow)
