"""Architecture of GFPGAN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ffhqref.core.errors import ConfigError


@dataclass(frozen=True)
class GFPGANConfig:
    """Widths of a GFPGAN, by the names of the published constructor. Defaults: all released files."""

    FIXED: ClassVar[Mapping[str, object]] = {"input_is_latent": True, "different_w": True, "decoder_load_path": None}
    UNUSED: ClassVar[tuple[str, ...]] = ("fix_decoder",)

    out_size: int = 512
    """Side of the images in pixels: a power of two, at least 16."""
    num_style_feat: int = 512
    """Length of a style code."""
    channel_multiplier: int = 2
    """Widens the levels from 64 pixels on."""
    num_mlp: int = 8
    """Layers of the mapping network, which is in the file and has no influence."""
    narrow: float = 1.0
    """Width of every level as a fraction of the published one."""
    sft_half: bool = True
    """Whether half of the decoder's channels escape the modulation."""

    def __post_init__(self) -> None:
        if self.out_size not in (16, 32, 64, 128, 256, 512, 1024):
            raise ConfigError(f"GFPGANConfig: out_size={self.out_size} should be a power of two from 16 to 1024")
