"""The architectures of both versions of VQFR, in the names of the published constructors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ffhqref.core.errors import ConfigError


def level_names(count: int) -> list[str]:
    """Return ``Level_1``, ``Level_2``, ``Level_4``, …: the number is the down-scale factor."""
    return [f"Level_{2**index}" for index in range(count)]


@dataclass(frozen=True)
class AlignConfig:
    """Texture warping of version 2."""

    cond_channels: int = 32
    """Features of the input image; equal to ``inpfeat_dim``."""
    deformable_groups: int = 4


@dataclass(frozen=True)
class QuantizerConfig:
    """Codebook of version 2."""

    FIXED: ClassVar[Mapping[str, object]] = {"type": "L2VectorQuantizer"}

    num_code: int = 1024
    code_dim: int = 256
    spatial_size: tuple[int, ...] = (16, 16)
    """Height and width of the map of codes."""


@dataclass(frozen=True)
class VQFRConfig:
    """Version 2. Defaults: the published network."""

    FIXED: ClassVar[Mapping[str, object]] = {
        "use_enc_attention": True,
        "use_dec_attention": True,
        "code_selection_mode": "Predict",
    }

    base_channels: int = 64
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 4, 4, 8)
    """Width of each level as a multiple of ``base_channels``, finest first; each level halves the side."""
    num_enc_blocks: int = 2
    num_dec_blocks: int = 2
    code_dim: int = 256
    inpfeat_dim: int = 32
    align_opt: AlignConfig = field(default_factory=AlignConfig)
    quantizer_opt: QuantizerConfig = field(default_factory=QuantizerConfig)

    def __post_init__(self) -> None:
        grid = self.quantizer_opt.spatial_size
        if len(grid) != 2 or grid[0] != grid[1]:
            raise ConfigError(f"vqfr config: spatial_size={list(grid)} should be two equal numbers")
        if self.quantizer_opt.code_dim != self.code_dim:
            raise ConfigError(
                f"vqfr config: quantizer_opt.code_dim={self.quantizer_opt.code_dim} should be code_dim={self.code_dim}"
            )
        if self.align_opt.cond_channels != self.inpfeat_dim:
            raise ConfigError(
                f"vqfr config: align_opt.cond_channels={self.align_opt.cond_channels} should be "
                f"inpfeat_dim={self.inpfeat_dim}"
            )

    @property
    def widths(self) -> list[int]:
        """Return the channels of each level, finest first."""
        return [self.base_channels * multiplier for multiplier in self.channel_multipliers]

    @property
    def levels(self) -> list[str]:
        """Return the names of the levels, finest first."""
        return level_names(len(self.channel_multipliers))

    @property
    def size(self) -> int:
        """Return the side of the image in pixels."""
        made: int = self.quantizer_opt.spatial_size[0] * 2 ** (len(self.channel_multipliers) - 1)
        return made


@dataclass(frozen=True)
class InputFeatureConfig:
    """The convolution on the input image (version 1)."""

    FIXED: ClassVar[Mapping[str, object]] = {"in_dim": 3}

    out_dim: int = 32


@dataclass(frozen=True)
class LevelAlignConfig:
    """Texture warping of one level of version 1."""

    cond_channels: int = 32
    cond_downscale_rate: int = 1
    deformable_groups: int = 4


@dataclass(frozen=True)
class LevelQuantizerConfig:
    """Codebook of one level of version 1."""

    FIXED: ClassVar[Mapping[str, object]] = {"type": "L2VectorQuantizerKmeans"}
    UNUSED: ClassVar[frozenset[str]] = frozenset(
        {"reservoir_size", "reestimate_iters", "reestimate_maxiters", "warmup_iters"}
    )

    in_dim: int = 512
    num_code: int = 1024
    code_dim: int = 256


def _published_align() -> dict[str, LevelAlignConfig]:
    return {f"Level_{rate}": LevelAlignConfig(cond_downscale_rate=rate) for rate in (32, 16, 8, 4, 2, 1)}


def _published_quantizer() -> dict[str, LevelQuantizerConfig]:
    return {"Level_32": LevelQuantizerConfig()}


@dataclass(frozen=True)
class VQFRv1Config:
    """Version 1. Defaults: the published network."""

    UNUSED: ClassVar[frozenset[str]] = frozenset({"fix_keys"})

    size: int = 512
    """Side of the image in pixels; the published script's, not an argument of the constructor."""
    base_channels: int = 128
    proj_patch_size: int = 32
    """Down-scale factor of the coarsest level."""
    resolution_scale_rates: tuple[int, ...] = (1, 2, 2, 2, 2, 2)
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 2, 4)
    """Width of each level as a multiple of ``base_channels``, finest first."""
    encoder_num_blocks: int = 2
    decoder_num_blocks: int = 3
    quant_level: tuple[str, ...] = ("Level_32",)
    align_from_patch: int = 32
    inpfeat_extraction_opt: InputFeatureConfig = field(default_factory=InputFeatureConfig)
    align_opt: dict[str, LevelAlignConfig] = field(default_factory=_published_align)
    quantizer_opt: dict[str, LevelQuantizerConfig] = field(default_factory=_published_quantizer)

    def __post_init__(self) -> None:
        count = len(self.channel_multipliers)
        top = 2 ** (count - 1)
        if tuple(self.resolution_scale_rates) != (1,) + (2,) * (count - 1):
            raise ConfigError(f"vqfr_v1 config: resolution_scale_rates should be 1 and then {count - 1} times 2")
        for name, value in (("proj_patch_size", self.proj_patch_size), ("align_from_patch", self.align_from_patch)):
            if value != top:
                raise ConfigError(f"vqfr_v1 config: {name}={value} should be {top}, the coarsest level's factor")
        if tuple(self.quant_level) != (self.levels[-1],) or set(self.quantizer_opt) != {self.levels[-1]}:
            raise ConfigError(f"vqfr_v1 config: quant_level and quantizer_opt should name {self.levels[-1]} alone")
        if set(self.align_opt) != set(self.levels):
            raise ConfigError(f"vqfr_v1 config: align_opt should have the levels {', '.join(self.levels)}")
        for level, rate in zip(self.levels, (2**index for index in range(count)), strict=True):
            if self.align_opt[level].cond_downscale_rate != rate:
                raise ConfigError(f"vqfr_v1 config: align_opt.{level}.cond_downscale_rate should be {rate}")
        if self.size % top:
            raise ConfigError(f"vqfr_v1 config: size={self.size} should be a multiple of {top}")

    @property
    def widths(self) -> list[int]:
        """Return the channels of each level, finest first."""
        return [self.base_channels * multiplier for multiplier in self.channel_multipliers]

    @property
    def levels(self) -> list[str]:
        """Return the names of the levels, finest first."""
        return level_names(len(self.channel_multipliers))
