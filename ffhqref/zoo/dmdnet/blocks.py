"""Layers of DMDNet, in the published file's layout."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SpectralConv(nn.Module):
    """3x3 convolution whose weight is divided by its largest singular value, told by two stored vectors.

    The vectors are taken as they are stored, so the division is done once, by `fold` after loading.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, channels: int, out: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.randn(out, channels, 3, 3) / (channels * 9) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(out))
        self.register_buffer("weight_u", torch.full((out,), out**-0.5))
        self.register_buffer("weight_v", torch.full((channels * 9,), (channels * 9) ** -0.5))
        self.stride, self.dilation = stride, dilation
        self._folded = False

    def fold(self) -> None:
        """Divide the weight, once."""
        if not self._folded:
            with torch.no_grad():
                self.weight_orig.div_(self.weight_u @ (self.weight_orig.flatten(1) @ self.weight_v))
            self._folded = True

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, H, W], padded to its size; the weight must have been folded."""
        assert self._folded
        return F.conv2d(x, self.weight_orig, self.bias, self.stride, self.dilation, self.dilation)


def fold(network: nn.Module) -> None:
    """Fold every `SpectralConv` of a network whose file is loaded."""
    for module in network.modules():
        if isinstance(module, SpectralConv):
            module.fold()


def pair(channels: int, out: int, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> nn.Sequential:
    """Return two convolutions with leaky ReLU between them, and none after."""
    return nn.Sequential(
        SpectralConv(channels, out, stride, dilations[0]), nn.LeakyReLU(0.2), SpectralConv(out, out, 1, dilations[1])
    )


class Residual(nn.Module):
    """Input plus a `pair`, which the file knows by ``name``."""

    def __init__(self, channels: int, name: str, dilations: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, pair(channels, channels, dilations=dilations))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        return x + cast("Tensor", self.get_submodule(self._name)(x))


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


def with_statistics_of(x: Tensor, model: Tensor) -> Tensor:
    """Return ``x`` with each channel's mean and standard deviation replaced by those of ``model``."""
    deviation, wanted = ((item.var(dim=(2, 3), keepdim=True) + 1e-5).sqrt() for item in (x, model))
    centred = x - x.mean(dim=(2, 3), keepdim=True)
    return centred / deviation * wanted + model.mean(dim=(2, 3), keepdim=True)
