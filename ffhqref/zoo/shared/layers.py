"""Layers of several networks: U-Nets of ReF-LDM and guided-diffusion, auto-encoders of ReF-LDM and VQFR version 2.

Parameter names are those of the published checkpoints. The residual and attention blocks of the U-Nets are not here:
they carry the same names, but ReF-LDM adds the time where guided-diffusion (DifFace, DR2, PGDiff) scales and shifts by
it, and attends to references.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MAX_PERIOD = 10_000.0


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """Return float32 [B, channels]: cosines, then sines, of t times falling frequencies (as guided-diffusion)."""
    half = channels // 2
    frequencies = torch.exp(-math.log(_MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies[None]
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(embedding, (0, channels - 2 * half))


def time_network(width: int) -> nn.Sequential:
    """Return the layers that make [B, 4·width] of the embedded times [B, width]."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))


class Downsample(nn.Module):
    """Halves the side by a convolution (U-Nets)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H/2, W/2]."""
        return cast("Tensor", self.op(x))


class PaddedDownsample(nn.Module):
    """Halves the side by a convolution after zero padding, right and bottom only (auto-encoders)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H/2, W/2]."""
        return cast("Tensor", self.conv(F.pad(x, (0, 1, 0, 1))))


class Upsample(nn.Module):
    """Doubles the side by nearest neighbours, then a convolution (U-Nets and auto-encoders)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, 2·H, 2·W]."""
        return cast("Tensor", self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))
