"""Layers of DMDNet, in the published file's layout."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.shared.spectral import SpectralConv, pair


class Query(nn.Module):
    """A part's feature to the question put to the memories."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Query = pair(channels, channels // 4)

    def forward(self, part: Tensor) -> Tensor:
        """Return [B, C/4, h, w]."""
        made: Tensor = self.Query(part)
        return made


class KeyValue(nn.Module):
    """A reference's part to a slot of the specific memory."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Key, self.Value = pair(channels, channels // 4), pair(channels, channels)

    def forward(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys [B, C/4, h, w] and values [B, C, h, w]."""
        return self.Key(part), self.Value(part)


class Mask(nn.Module):
    """How much of the specific memory to take, place by place; not confined to 0..1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        third = channels // 3
        self.conv1, self.conv2, self.conv3 = (pair(channels, third) for _ in range(3))
        self.convCat = pair(3 * third, channels)

    def forward(self, part: Tensor, specific: Tensor, generic: Tensor) -> Tensor:
        """Return [B, C, h, w]."""
        made: Tensor = self.convCat(torch.cat([self.conv1(part), self.conv2(specific), self.conv3(generic)], dim=1))
        return made


class MultiDilation(nn.Module):
    """Four branches of falling dilation, joined, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            pair(channels, channels, dilations=(dilation, dilation)) for dilation in (4, 3, 2, 1)
        )
        self.convi = SpectralConv(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        branches = [self.conv1(x), self.conv2(x), self.conv3(x), self.conv4(x)]
        made: Tensor = self.convi(torch.cat(branches, dim=1)) + x
        return made


class UpBlock(nn.Module):
    """Decoder level: scaled and shifted by a skip map, then enlarged by 2."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1 = pair(channels, out)
        self.ScaleModel1, self.ShiftModel1 = pair(channels, out), pair(channels, out)
        self.convup = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False), *pair(out, out)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return [B, out, 2H, 2W]."""
        x = F.leaky_relu(self.conv1(x), 0.2)
        made: Tensor = self.convup(x * self.ScaleModel1(skip) + self.ShiftModel1(skip))
        return made


def read_memory(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return [1, C, h, w]: the slots' values, weighed by how well their keys agree with the query.

    Args:
        query: [1, C/4, h, w].
        keys: [N, C/4, h, w].
        values: [N, C, h, w].
    """
    agreement = (keys.flatten(1) @ query.flatten()) / len(keys) ** 0.5  # by the slots, not by the dimension
    made: Tensor = (agreement.softmax(dim=0) @ values.flatten(1)).view(1, *values.shape[1:])
    return made
