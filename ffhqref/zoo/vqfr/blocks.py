"""Layers that both versions of VQFR have (Gu et al., ECCV 2022, arXiv 2205.06803)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.shared.deform_conv import DeformConv


def group_norm(channels: int) -> nn.GroupNorm:
    """Return the norm of all layers: 32 groups, eps 1e-6."""
    return nn.GroupNorm(32, channels, eps=1e-6)


def conv3(channels: int, out: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels, out, 3, padding=1)


def resize(x: Tensor, factor: float) -> Tensor:
    """Return [B, C, H, W] resized bilinearly, half-pixel centres, no anti-aliasing."""
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3, twice, plus the input.

    Args:
        channels: of the input.
        out: of the output.
        shortcut: name in the file of the 1x1 convolution on the input where the channels differ.
    """

    def __init__(self, channels: int, out: int, shortcut: str) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(channels), conv3(channels, out)
        self.norm2, self.conv2 = group_norm(out), conv3(out, out)
        self._shortcut = shortcut if channels != out else None
        if self._shortcut:
            self.add_module(self._shortcut, nn.Conv2d(channels, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out, H, W]."""
        made = self.conv1(F.silu(self.norm1(x)))
        made = self.conv2(F.silu(self.norm2(made)))
        found: Tensor = made + (self.get_submodule(self._shortcut)(x) if self._shortcut else x)
        return found


class TextureWarping(nn.Module):
    """Shifts texture features to where the LQ image has them.

    Args:
        channels: of the texture feature.
        cond_channels: of the input image's feature.
        groups: of the deformable convolution.
        coarser: channels of the coarser level's offset feature; 0 at the coarsest level.
        downsample: brings the input image's feature to this level's size.
    """

    def __init__(self, channels: int, cond_channels: int, groups: int, coarser: int, downsample: nn.Module) -> None:
        super().__init__()
        self.downsample = downsample
        self.offset_conv1 = nn.Sequential(
            nn.Conv2d(channels + cond_channels, channels, 1),
            group_norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            group_norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1),
        )
        self.offset_conv2 = nn.Sequential(conv3(channels + coarser, channels), group_norm(channels), nn.SiLU())
        self.dcn = DeformConv(channels, groups)

    def forward(self, condition: Tensor, texture: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the warped texture and the offset feature, both [B, C, H, W].

        Args:
            condition: feature of the input image at its full size.
            texture: [B, C, H, W].
            coarser: offset feature of the coarser level, at half the side.
        """
        feature = self.offset_conv1(torch.cat([self.downsample(condition), texture], dim=1))
        if coarser is not None:
            feature = torch.cat([feature, resize(coarser, 2) * 2], dim=1)  # offsets are in pixels of their level
        feature = self.offset_conv2(feature)
        return self.dcn(texture, feature), feature
