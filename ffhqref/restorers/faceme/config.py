"""Widths of FaceMe's own networks; those of SDXL and the ControlNet stand in their folders' ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass

from ffhqref.errors import ConfigError


@dataclass(frozen=True)
class MixConfig:
    """Widths of `ffhqref.restorers.faceme.mix.Mix`. Defaults: the released network, 39,367,680 parameters."""

    embed_dim: int = 2048
    """Channels of the joined CLIP features and of a token: SDXL's cross-attention width."""
    id_dim: int = 512
    """Channels of an ArcFace vector; it is widened to four times as many."""

    def __post_init__(self) -> None:
        for name, value in (("embed_dim", self.embed_dim), ("id_dim", self.id_dim)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"FaceMe config: mix.{name} must be a whole number above 0, not {value!r}")
