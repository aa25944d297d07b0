"""The network of GPEN (Yang et al., CVPR 2021, arXiv 2105.06070) in the published file's layout.

Modules carry the names of the published state dict; modulated convolutions scale their input and output in place of
their weight, which is the same product and lets a batch share one convolution.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from ffhqref.zoo.gpen.config import GPENConfig

_BLUR = (1, 3, 3, 1)


def upfirdn(x: Tensor, kernel: Tensor, up: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Insert ``up`` − 1 zeros after each pixel, pad both axes with zeros, and convolve each channel.

    Args:
        x: [B, C, H, W].
        kernel: [k, k].
        up: factor.
        pad: zeros before and after.

    Returns:
        [B, C, up·H + pad − k + 1, up·W + pad − k + 1].
    """
    batch, channels, height, width = x.shape
    if up > 1:
        spread = x.new_zeros(batch, channels, height, up, width, up)
        spread[:, :, :, 0, :, 0] = x
        x = spread.view(batch, channels, height * up, width * up)
    x = F.pad(x, (*pad, *pad))
    taps = kernel.flip(0, 1).to(x.dtype)
    return F.conv2d(x, taps.expand(channels, 1, *taps.shape), groups=channels)


def _kernel(gain: float) -> Tensor:
    line = torch.tensor(_BLUR, dtype=torch.float32)
    return torch.outer(line, line) / line.sum() ** 2 * gain


class Blur(nn.Module):
    """Blurring with the kernel that the file holds."""

    kernel: Tensor

    def __init__(self, pad: tuple[int, int], up: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("kernel", _kernel(gain))
        self.pad, self.up = pad, up

    def forward(self, x: Tensor) -> Tensor:
        """Blur [B, C, H, W], enlarged by ``up`` before."""
        return upfirdn(x, self.kernel, self.up, self.pad)


class BiasedActivation(nn.Module):
    """A bias for each channel, leaky ReLU, and √2 to keep the variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Activate [B, C, H, W]."""
        return biased_activation(x, self.bias.view(1, -1, 1, 1))


def biased_activation(x: Tensor, bias: Tensor) -> Tensor:
    """Return √2 · leaky ReLU(x + bias) with slope 0.2."""
    return F.leaky_relu(x + bias, 0.2) * math.sqrt(2)


class EqualConv(nn.Module):
    """Convolution without bias, its weight scaled by the fan-in at run time."""

    def __init__(self, channels: int, out: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, channels, size, size))
        self.scale = 1.0 / math.sqrt(channels * size * size)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, H, W] without padding."""
        return F.conv2d(x, self.weight * self.scale, stride=self.stride)


class EqualLinear(nn.Module):
    """Linear layer with run-time scaling, and with `biased_activation` where asked for."""

    def __init__(self, channels: int, out: int, lr_mul: float = 1.0, *, active: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, channels) / lr_mul)
        self.bias = nn.Parameter(torch.zeros(out))
        self.scale, self.lr_mul, self.active = lr_mul / math.sqrt(channels), lr_mul, active

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out] from [B, channels]."""
        made = F.linear(x, self.weight * self.scale)
        bias = self.bias * self.lr_mul
        return biased_activation(made, bias) if self.active else made + bias


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by the latent, and whose output is brought back to unit variance."""

    def __init__(
        self, channels: int, out: int, size: int, style_dim: int, *, upsample: bool = False, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, out, channels, size, size))
        self.modulation = EqualLinear(style_dim, channels)
        if upsample:
            self.blur = Blur((1, 1), gain=4.0)
        self.scale = 1.0 / math.sqrt(channels * size * size)
        self.padding, self.upsample, self.demodulate = size // 2, upsample, demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return [B, out, H, W], or twice the sides, from [B, C, H, W] and [B, style_dim]."""
        scales = self.modulation(style)
        weight = self.weight[0] * self.scale
        x = x * scales[:, :, None, None]
        if self.upsample:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        if not self.demodulate:
            return x
        energy = scales.square() @ weight.square().sum(dim=(2, 3)).t()
        return x * torch.rsqrt(energy + 1e-8)[:, :, None, None]


class FeatureInput(nn.Module):
    """The noise input of StyleGAN2, here an encoder map appended to the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        """Return [B, 2C, H, W]."""
        return torch.cat([x, self.weight * feature], dim=1)


class StyledConv(nn.Module):
    """Modulated convolution, encoder map, activation."""

    def __init__(self, channels: int, out: int, style_dim: int, *, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(channels, out, 3, style_dim, upsample=upsample)
        self.noise = FeatureInput()
        self.activate = BiasedActivation(2 * out)

    def forward(self, x: Tensor, style: Tensor, feature: Tensor) -> Tensor:
        """Return [B, 2·out, H, W]."""
        made: Tensor = self.activate(self.noise(self.conv(x, style), feature))
        return made


class ToRGB(nn.Module):
    """Features to an image, added to the enlarged image of the level below."""

    def __init__(self, channels: int, style_dim: int, *, upsample: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if upsample:
            self.upsample = Blur((2, 1), up=2, gain=4.0)
        self.conv = ModulatedConv(channels, 3, 1, style_dim, demodulate=False)

    def forward(self, x: Tensor, style: Tensor, below: Tensor | None = None) -> Tensor:
        """Return [B, 3, H, W]."""
        picture = self.conv(x, style) + self.bias
        made: Tensor = picture if below is None else picture + self.upsample(below)
        return made


class PixelNorm(nn.Module):
    """Scaling of each vector to unit mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C]."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class ConstantInput(nn.Module):
    """The learned 4x4 map that the generator starts from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, batch: int) -> Tensor:
        """Return [B, C, 4, 4]."""
        return self.input.expand(batch, -1, -1, -1)


class Generator(nn.Module):
    """StyleGAN2 over doubled channels; one latent for all layers."""

    def __init__(self, config: GPENConfig) -> None:
        super().__init__()
        dim = config.style_dim
        self.style = nn.Sequential(
            PixelNorm(), *(EqualLinear(dim, dim, config.lr_mlp, active=True) for _ in range(config.n_mlp))
        )
        widths = [config.channels(side) for side in config.sides]
        self.input = ConstantInput(widths[0])
        self.conv1 = StyledConv(widths[0], widths[0], dim)
        self.to_rgb1 = ToRGB(2 * widths[0], dim, upsample=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for before, width in pairwise(widths):
            self.convs.append(StyledConv(2 * before, width, dim, upsample=True))
            self.convs.append(StyledConv(2 * width, width, dim))
            self.to_rgbs.append(ToRGB(2 * width, dim))

    def forward(self, latent: Tensor, features: list[Tensor]) -> Tensor:
        """Return [B, 3, S, S] from [B, style_dim] and the encoder's maps, 4x4 first."""
        style = self.style(latent)
        x = self.conv1(self.input(len(latent)), style, features[0])
        picture: Tensor = self.to_rgb1(x, style)
        for level, feature in enumerate(features[1:]):
            x = self.convs[2 * level](x, style, feature)
            x = self.convs[2 * level + 1](x, style, feature)
            picture = self.to_rgbs[level](x, style, picture)
        return picture


class FullGenerator(nn.Module):
    """Encoder and generator. No random draw at all.

    Args:
        config: the architecture.
    """

    def __init__(self, config: GPENConfig) -> None:
        super().__init__()
        widths = [config.channels(side) for side in reversed(config.sides)]
        self.generator = Generator(config)
        self.depth = len(widths)
        first = nn.Sequential(EqualConv(3, widths[0], 1), BiasedActivation(widths[0]))
        self.add_module("ecd0", nn.Sequential(first))
        for level, (before, width) in enumerate(pairwise(widths), start=1):
            down = nn.Sequential(Blur((2, 2)), EqualConv(before, width, 3, stride=2), BiasedActivation(width))
            self.add_module(f"ecd{level}", nn.Sequential(down))
        self.final_linear = nn.Sequential(EqualLinear(widths[-1] * 16, config.style_dim, active=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return float [B, 3, S, S], about −1..1 and not clamped, from RGB [B, 3, S, S] in −1..1."""
        features = []
        for level in range(self.depth):
            x = self.get_submodule(f"ecd{level}")(x)
            features.append(x)
        made: Tensor = self.generator(self.final_linear(x.flatten(1)), features[::-1])
        return made
