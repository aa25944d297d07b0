"""Architecture of CodeFormer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ffhqref.core.errors import ConfigError


@dataclass(frozen=True)
class CodeFormerConfig:
    """Widths of a CodeFormer, by the names of the published constructors. Defaults: the released one."""

    UNUSED: ClassVar[tuple[str, ...]] = ("fix_modules",)

    dim_embd: int = 512
    """Width of the transformer."""
    n_head: int = 8
    n_layers: int = 9
    codebook_size: int = 1024
    latent_size: int = 256
    """Tokens: pixels of the latent."""
    connect_list: tuple[str, ...] = ("32", "64", "128", "256")
    """Sides at which the encoder's maps are fused into the generator."""
    img_size: int = 512
    """Side of the images in pixels."""
    nf: int = 64
    """Width of the first level of the auto-encoder, a multiple of 32."""
    ch_mult: tuple[int, ...] = (1, 2, 2, 4, 4, 8)
    """Width of each level as a multiple of `nf`; each level but the last halves the side."""
    res_blocks: int = 2
    """Residual blocks a level."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Sides at which levels have attention; the middle always has it."""
    emb_dim: int = 256
    """Length of a code."""

    @property
    def sides(self) -> tuple[int, ...]:
        """Return the side of each level, first level first."""
        return tuple(self.img_size // 2**level for level in range(len(self.ch_mult)))

    def __post_init__(self) -> None:
        levels = len(self.ch_mult)
        if not levels or self.img_size % 2 ** (levels - 1):
            raise ConfigError(f"CodeFormerConfig: img_size={self.img_size} is not halved {levels - 1} times")
        if self.attn_resolutions != (self.sides[-1],):
            raise ConfigError(
                f"CodeFormerConfig: attn_resolutions={list(self.attn_resolutions)} should be the side of the last "
                f"level, [{self.sides[-1]}]"
            )
        if self.latent_size != self.sides[-1] ** 2:
            raise ConfigError(f"CodeFormerConfig: latent_size={self.latent_size} should be {self.sides[-1] ** 2}")
        between = [str(side) for side in self.sides[:-1]]
        if any(side not in between for side in self.connect_list):
            raise ConfigError(
                f"CodeFormerConfig: connect_list={list(self.connect_list)} should be of {', '.join(between)}"
            )
        if self.dim_embd % self.n_head or self.nf % 32:
            raise ConfigError(
                f"CodeFormerConfig: dim_embd={self.dim_embd} should be a multiple of n_head={self.n_head}, and "
                f"nf={self.nf} of 32"
            )
