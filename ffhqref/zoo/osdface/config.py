"""Widths of OSDFace's prompt encoder; those of Stable Diffusion stand in its folders' ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ffhqref.core.errors import ConfigError


@dataclass(frozen=True)
class PromptConfig:
    """The encoder from an image to a prompt, by the names of the published constructor. Defaults: the released one."""

    FIXED: ClassVar[Mapping[str, object]] = {"double_z": False, "norm_groups": 32}

    n_embed: int = 1024
    """Number of codes."""
    embed_dim: int = 512
    """Length of a code."""
    ch: int = 64
    """Width of the first level, a multiple of 32."""
    ch_mult: tuple[int, ...] = (1, 2, 2, 2, 4, 8)
    """Width of each level as a multiple of `ch`; each level but the last halves the side."""
    num_res_blocks: int = 2
    z_channels: int = 512
    """Width of the latent before quantisation."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Sides at which levels have attention; the middle block always has it."""
    resolution: int = 512
    """Side in pixels of the encoder's input, and of the result of a square image."""
    head_size: int = 1
    """Number of attention heads."""
    n_min: int = 77
    """Length of the prompt."""

    def __post_init__(self) -> None:
        halvings = len(self.ch_mult) - 1
        if halvings < 0 or self.resolution % 2**halvings:
            raise ConfigError(f"PromptConfig: resolution={self.resolution} is not halved {halvings} times")
        if self.ch % 32 or self.n_min < 1:
            raise ConfigError(f"PromptConfig: ch={self.ch} should be a multiple of 32, n_min={self.n_min} at least 1")
