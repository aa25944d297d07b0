"""Widths of FaceMe's own networks; those of SDXL and the ControlNet stand in their folders' ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.zoo.shared.architecture import read_architecture, read_tree


@dataclass(frozen=True)
class MixConfig:
    """Widths of `ffhqref.zoo.faceme.mix.Mix`. Defaults: the released network, 39,367,680 parameters."""

    embed_dim: int = 2048
    """Channels of the joined CLIP features and of a token: SDXL's cross-attention width."""
    id_dim: int = 512
    """Channels of an ArcFace vector; it is widened to four times as many."""

    def __post_init__(self) -> None:
        _check_widths(self, "mix")


@dataclass(frozen=True)
class IdentityEncoderConfig:
    """Widths of `ffhqref.zoo.faceme.clip.IdentityEncoder`. Defaults: PhotoMaker v1, a ViT-L/14."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    patch_size: int = 14
    image_size: int = 224
    projection_dim: int = 768
    """Channels of the first projection, which CLIP has."""
    projection_dim_2: int = 1280
    """Channels of the second one, which PhotoMaker adds."""

    def __post_init__(self) -> None:
        _check_widths(self, "id_encoder")
        if self.hidden_size % self.num_attention_heads or self.image_size % self.patch_size:
            raise ConfigError(
                "FaceMe config: id_encoder.hidden_size must be a multiple of num_attention_heads, and image_size "
                "of patch_size"
            )


@dataclass(frozen=True)
class FaceMeConfig:
    """Widths of the networks that have no ``config.json`` of their own. Defaults: the released ones."""

    mix: MixConfig = field(default_factory=MixConfig)
    id_encoder: IdentityEncoderConfig = field(default_factory=IdentityEncoderConfig)

    def __post_init__(self) -> None:
        clip = self.id_encoder.projection_dim + self.id_encoder.projection_dim_2
        if clip != self.mix.embed_dim:
            raise ConfigError(
                f"FaceMe config: mix.embed_dim must be {clip}, the sum of the identity encoder's projections, "
                f"not {self.mix.embed_dim}"
            )

    @classmethod
    def load(cls, source: FaceMeConfig | Mapping[str, object] | str | Path | None) -> FaceMeConfig:
        """Return ``source`` as a config: a config, a mapping, the path of a YAML or JSON file, or None (released).

        Raises:
            ConfigError: the file is absent or unreadable; an entry is unknown or of a wrong type.
        """
        if source is None:
            return cls()
        if isinstance(source, FaceMeConfig):
            return source
        where = "FaceMe config" if isinstance(source, Mapping) else str(source)
        tree = read_tree(source, "FaceMe")
        kinds: dict[str, type[Any]] = {"mix": MixConfig, "id_encoder": IdentityEncoderConfig}
        parts = {}
        for name, values in tree.items():
            if name not in kinds:
                raise ConfigError(f"{where}: unknown entry '{name}'.{did_you_mean(str(name), kinds)}")
            if not isinstance(values, Mapping):
                raise ConfigError(f"{where}: {name} must be a mapping of widths")
            parts[name] = read_architecture(kinds[name], values)
        return cls(**parts)


def _check_widths(config: Any, part: str) -> None:
    for item in fields(config):
        value = getattr(config, item.name)
        if value < 1:
            raise ConfigError(f"FaceMe config: {part}.{item.name} must be above 0, not {value!r}")
