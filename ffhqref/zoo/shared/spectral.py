"""Layers of DMDNet and ASFFNet: spectrally normalised convolutions in the published files' layout."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SpectralConv(nn.Module):
    """Convolution whose weight is divided by its largest singular value, told by two stored vectors.

    The vectors are taken as they are stored, so the division is done once, by `fold` after loading.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(
        self, channels: int, out: int, stride: int = 1, dilation: int = 1, *, kernel: int = 3, bias: bool = True
    ) -> None:
        super().__init__()
        fan = channels * kernel**2
        self.weight_orig = nn.Parameter(torch.randn(out, channels, kernel, kernel) / fan**0.5)
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None
        self.register_buffer("weight_u", torch.full((out,), out**-0.5))
        self.register_buffer("weight_v", torch.full((fan,), fan**-0.5))
        self.stride, self.dilation, self.padding = stride, dilation, dilation * (kernel // 2)
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
        return F.conv2d(x, self.weight_orig, self.bias, self.stride, self.padding, self.dilation)


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


def with_statistics_of(x: Tensor, model: Tensor) -> Tensor:
    """Return ``x`` with each channel's mean and standard deviation replaced by those of ``model``."""
    deviation, wanted = ((item.var(dim=(2, 3), keepdim=True) + 1e-5).sqrt() for item in (x, model))
    centred = x - x.mean(dim=(2, 3), keepdim=True)
    return centred / deviation * wanted + model.mean(dim=(2, 3), keepdim=True)
