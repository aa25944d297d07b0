"""The architecture of ASFFNet512."""

from __future__ import annotations

from dataclasses import dataclass

from ffhqref.core.errors import ConfigError


@dataclass(frozen=True)
class ASFFNetConfig:
    """The numbers of the published class. Defaults: the published network."""

    ngf: int = 64
    """Channels of the finest maps; doubled twice below."""
    blocks: int = 4
    """Blocks that join the LQ image and the reference."""

    def __post_init__(self) -> None:
        if self.ngf < 1 or self.blocks < 0:
            raise ConfigError(
                f"ASFFNetConfig: ngf={self.ngf} should be positive, and blocks={self.blocks} not negative"
            )
