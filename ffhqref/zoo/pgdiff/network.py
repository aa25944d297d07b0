"""PGDiff's smooth-semantics network: Real-ESRGAN's RRDB generator at scale 1, told the noisy state and the time.

Names as in the published checkpoint. spandrel's RRDB has other names, a fixed growth width, and no such input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.shared.layers import timestep_embedding

if TYPE_CHECKING:
    from ffhqref.zoo.pgdiff.config import RRDBConfig

_UNSHUFFLE = 4
_TIME_CHANNELS = 3
_TIME_WIDTH = 100


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _conv(channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, padding=1)


class _DenseBlock(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for number in range(1, 5):
            setattr(self, f"conv{number}", _conv(channels + (number - 1) * growth, growth))
        self.conv5 = _conv(channels + 4 * growth, channels)

    def forward(self, x: Tensor) -> Tensor:
        joined = x
        for number in range(1, 5):
            joined = torch.cat([joined, _leaky(getattr(self, f"conv{number}")(joined))], dim=1)
        return cast("Tensor", self.conv5(joined) * 0.2 + x)


class _Block(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (_DenseBlock(channels, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x)


class _Generator(nn.Module):
    def __init__(self, config: RRDBConfig, channels: int) -> None:
        super().__init__()
        width = config.mid_channels
        self.conv_first = _conv(channels * _UNSHUFFLE**2, width)
        self.body = nn.Sequential(*(_Block(width, config.growth_channels) for _ in range(config.num_blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (_conv(width, width) for _ in range(4))
        self.conv_last = _conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_first(F.pixel_unshuffle(x, _UNSHUFFLE))
        h = first + self.conv_body(self.body(first))
        for up in (self.conv_up1, self.conv_up2):
            h = _leaky(up(F.interpolate(h, scale_factor=2.0, mode="nearest")))
        return cast("Tensor", self.conv_last(_leaky(self.conv_hr(h))))


class SmoothSemantics(nn.Module):
    """A blurred guess [B, 3, S, S] in −1..1 (not clamped) of the clean image; 4 must divide S."""

    def __init__(self, config: RRDBConfig) -> None:
        super().__init__()
        self.time_embed = nn.Sequential(
            nn.Linear(_TIME_WIDTH, _TIME_CHANNELS), nn.SiLU(), nn.Linear(_TIME_CHANNELS, _TIME_CHANNELS)
        )
        self.generator = _Generator(config, 6 + _TIME_CHANNELS)

    def forward(self, x: Tensor, y: Tensor, time: int) -> Tensor:
        """Return the guess.

        Args:
            x: state of the chain, [B, 3, S, S].
            y: the low-quality image, [B, 3, S, S] in −1..1.
            time: original time of the state, 0..999.
        """
        emb = self.time_embed(timestep_embedding(torch.full((1,), time, device=x.device), _TIME_WIDTH))
        spread = emb[:, :, None, None].expand(len(x), -1, *x.shape[2:])
        return cast("Tensor", self.generator(torch.cat([x, y, spread], dim=1)))
