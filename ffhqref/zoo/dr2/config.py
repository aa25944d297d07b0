"""The architecture of DR2's denoiser and of its enhancer SPARNetHD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ffhqref.core.errors import ConfigError
from ffhqref.zoo.shared.architecture import read_tree
from ffhqref.zoo.shared.guided_diffusion.config import (
    GuidedUNetConfig,
    changed,
    section,
    whole_number,
    whole_numbers,
)

_UNET = GuidedUNetConfig(
    image_size=256,
    model_channels=128,
    channel_mult=(1, 1, 2, 2, 4, 4),
    num_res_blocks=(1, 1, 1, 1, 1, 1),
    attention_levels=(4,),
    num_heads=4,
    resblock_updown=True,
)


@dataclass(frozen=True)
class SPARNetConfig:
    """SPARNetHD. Defaults: the released one."""

    min_ch: int = 32
    """Narrowest layer."""
    max_ch: int = 512
    """Widest layer."""
    size: int = 512
    """Nominal side in pixels; decides, with `min_feat_size`, how often it is halved."""
    min_feat_size: int = 32
    res_depth: int = 10
    hourglass_mid: int = 64
    """Width of the attention's hourglasses."""
    bottleneck_size: int = 4
    """The first hourglass halves log2(64 / this) times."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.min_feat_size << self.steps != self.size:
            raise ConfigError(
                f"SPARNet config: size={self.size}, expected min_feat_size={self.min_feat_size} times a power of two"
            )
        if self.depth < self.steps:
            raise ConfigError(
                f"SPARNet config: hourglass depth {self.depth} (bottleneck_size={self.bottleneck_size}), expected at "
                f"least the number of halvings, {self.steps}"
            )

    @property
    def steps(self) -> int:
        """How often the side is halved."""
        return (self.size // max(self.min_feat_size, 1)).bit_length() - 1

    @property
    def depth(self) -> int:
        """Depth of the first hourglass."""
        return (64 // max(self.bottleneck_size, 1)).bit_length() - 1

    def width(self, channels: int) -> int:
        """Return a width kept within the bounds."""
        return min(max(channels, self.min_ch), self.max_ch)


_FIXED_SPARNET = {"att_name": "spar", "norm_type": "in", "relu_type": "leakyrelu", "ch_in": 3}


@dataclass(frozen=True)
class DR2Config:
    """Both networks, the respaced chain and the sides. ``DR2Config()`` is the released full-size model."""

    unet: GuidedUNetConfig = _UNET
    sparnet: SPARNetConfig = field(default_factory=SPARNetConfig)
    steps: int = 1000
    respacing: tuple[int, ...] = (100,)
    """Steps kept of each equal section of the chain."""
    dr2_size: int = 256
    """Side in pixels at which the degradation is removed."""
    sr_size: int = 512
    """Side of the enhancement."""

    @classmethod
    def load(cls, source: DR2Config | Mapping[str, object] | str | Path | None) -> DR2Config:
        """Return a config: as it is, or from a mapping or file; None: released.

        A mapping has ``unet``, ``spar``, ``diffusion`` (steps, section) and ``inference`` (dr2_size, sr_size) with the
        published arguments; what is left out is as released.

        Raises:
            ConfigError: not readable, or another network.
        """
        if source is None:
            return cls()
        if isinstance(source, DR2Config):
            return source
        what = "DR2 config"
        tree = read_tree(source, "DR2")
        config = cls()
        diffusion, sizes = section(tree, "diffusion", what), section(tree, "inference", what)
        respacing = diffusion.get("section", config.respacing)
        return cls(
            unet=config.unet.changed(section(tree, "unet", what), "factors", f"{what}: unet"),
            sparnet=changed(config.sparnet, section(tree, "spar", what), f"{what}: spar", fixed=_FIXED_SPARNET),
            steps=whole_number(diffusion.get("steps", config.steps), f"{what}: steps"),
            respacing=whole_numbers(respacing, f"{what}: section"),
            dr2_size=whole_number(sizes.get("dr2_size", config.dr2_size), f"{what}: dr2_size"),
            sr_size=whole_number(sizes.get("sr_size", config.sr_size), f"{what}: sr_size"),
        )
