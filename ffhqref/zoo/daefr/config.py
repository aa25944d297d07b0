"""Architecture of DAEFR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ffhqref.core.errors import ConfigError


@dataclass(frozen=True)
class DAEFRConfig:
    """Widths of a DAEFR, by the published names. Defaults: the released one. No file shows the numbers of heads."""

    UNUSED: ClassVar[tuple[str, ...]] = ("dropout",)

    n_embed: int = 1024
    """Number of codes."""
    embed_dim: int = 256
    """Length of a code."""
    z_channels: int = 256
    """Width of the latent before the 1x1 convolution to `embed_dim`."""
    ch: int = 64
    """Width of the first level, a multiple of 32."""
    ch_mult: tuple[int, ...] = (1, 2, 2, 4, 4, 8)
    """Width of each level as a multiple of `ch`; each level but the last halves the side."""
    num_res_blocks: int = 2
    """Residual blocks a level in the encoders; the decoder has one more."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Sides at which levels have attention; the middle block always has it."""
    head_size: int = 1
    """Number of attention heads (not their width) in encoders and decoder."""
    cross_heads: int = 8
    """Number of heads of the attention between the two encoders."""
    dim_embd: int = 512
    """Width of the Transformer."""
    n_head: int = 8
    n_layers: int = 9
    resolution: int = 512
    """Side of the images in pixels."""

    @property
    def tokens(self) -> int:
        """Return the pixels of the latent."""
        return int((self.resolution // 2 ** (len(self.ch_mult) - 1)) ** 2)

    def __post_init__(self) -> None:
        levels = len(self.ch_mult)
        if not levels or self.resolution % 2 ** (levels - 1):
            raise ConfigError(f"DAEFRConfig: resolution={self.resolution} is not halved {levels - 1} times")
        sides = [self.resolution // 2**level for level in range(levels)]
        attended = [mult for side, mult in zip(sides, self.ch_mult, strict=True) if side in self.attn_resolutions]
        if self.ch % 32 or any(self.ch * mult % self.head_size for mult in (*attended, self.ch_mult[-1])):
            raise ConfigError(
                f"DAEFRConfig: ch={self.ch} should be a multiple of 32, and head_size={self.head_size} divide the "
                "width of every level with attention"
            )
        if self.embed_dim % self.cross_heads or self.embed_dim % 32 or self.dim_embd % self.n_head:
            raise ConfigError(
                f"DAEFRConfig: embed_dim={self.embed_dim} should be a multiple of 32 and of cross_heads="
                f"{self.cross_heads}, and dim_embd={self.dim_embd} of n_head={self.n_head}"
            )
