"""Architectures of RestoreFormer and RestoreFormer++."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ffhqref.core.errors import ConfigError


@dataclass(frozen=True)
class RestoreFormerConfig:
    """Widths of a RestoreFormer, by the names of the published constructor. Defaults: the released one."""

    FIXED: ClassVar[Mapping[str, object]] = {"in_channels": 3, "out_ch": 3, "double_z": False, "enable_mid": True}
    UNUSED: ClassVar[tuple[str, ...]] = ("dropout", "fix_decoder", "fix_codebook", "fix_encoder")

    n_embed: int = 1024
    """Number of codes."""
    embed_dim: int = 256
    """Length of a code."""
    ch: int = 64
    """Width of the first level, a multiple of 32."""
    ch_mult: tuple[int, ...] = (1, 2, 2, 4, 4, 8)
    """Width of each level as a multiple of `ch`; each level but the last halves the side."""
    num_res_blocks: int = 2
    """Residual blocks a level in the encoder; the decoder has one more."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Sides at which levels have attention; the middle block always has it."""
    resolution: int = 512
    """Side of the images in pixels."""
    z_channels: int = 256
    """Width of the latent before quantisation."""
    head_size: int = 8
    """Number of attention heads (not their width); a file does not show it."""
    ex_multi_scale_num: int = 0
    """0: RestoreFormer; 1: RestoreFormer++, whose decoder attends at twice the side too."""

    @property
    def decoder_attention(self) -> tuple[int, ...]:
        """Return the sides at which the decoder's levels have attention."""
        if not self.ex_multi_scale_num:
            return self.attn_resolutions
        return (self.attn_resolutions[0], self.attn_resolutions[-1] * 2**self.ex_multi_scale_num)

    def __post_init__(self) -> None:
        levels = len(self.ch_mult)
        sides = [self.resolution // 2**level for level in range(levels)]
        if not levels or self.resolution % 2 ** (levels - 1):
            raise ConfigError(f"{type(self).__name__}: resolution={self.resolution} is not halved {levels - 1} times")
        if not self.attn_resolutions:
            raise ConfigError(f"{type(self).__name__}: attn_resolutions is empty")
        attended = [mult for side, mult in zip(sides, self.ch_mult, strict=True) if side in self.decoder_attention]
        if self.ch % 32 or any(self.ch * mult % self.head_size for mult in (*attended, self.ch_mult[-1])):
            raise ConfigError(
                f"{type(self).__name__}: ch={self.ch} should be a multiple of 32, and head_size={self.head_size} "
                "divide the width of every level with attention"
            )


@dataclass(frozen=True)
class RestoreFormerPPConfig(RestoreFormerConfig):
    """Widths of a RestoreFormer++. Defaults: the released one."""

    head_size: int = 4
    ex_multi_scale_num: int = 1
