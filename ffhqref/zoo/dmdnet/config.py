"""The architecture of DMDNet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DMDNetConfig:
    """The numbers of the published class. Defaults: the published network."""

    ngf: int = 64
    """Channels of the finest maps, at half the image's side; doubled twice below."""
    banks_num: int = 128
    """Slots of the generic memory."""

    def channels(self, scale: int) -> int:
        """Return the channels of the maps that are 256, 128 or 64 wide in an image of 512."""
        return self.ngf * 256 // scale
