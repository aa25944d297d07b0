"""The identity network of PGDiff's reference task: IResNet-50 in PyTorch, with insightface's parameter names."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from ffhqref.zoo.pgdiff.config import ArcFaceConfig

SIDE = 112
"""Side in pixels of the images the network takes."""


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
            if stride > 1
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        h = self.bn3(self.conv2(h))
        return cast("Tensor", h + (x if self.downsample is None else self.downsample(x)))


class ArcFace(nn.Module):
    """Identity vectors [B, F], not normalised, of images [B, 3, 112, 112] RGB in −1..1."""

    def __init__(self, config: ArcFaceConfig) -> None:
        super().__init__()
        first, last = config.widths[0], config.widths[-1]
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.prelu = nn.PReLU(first)
        channels = first
        for number, (width, count) in enumerate(zip(config.widths, config.layers, strict=True), start=1):
            blocks = [_Block(channels if i == 0 else width, width, 2 if i == 0 else 1) for i in range(count)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            channels = width
        self.bn2 = nn.BatchNorm2d(last)
        self.fc = nn.Linear(last * (SIDE // 16) ** 2, config.features)
        self.features = nn.BatchNorm1d(config.features)

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return cast("Tensor", self.features(self.fc(self.bn2(x).flatten(1))))


def shrunk(pictures: Tensor) -> Tensor:
    """Return images [B, 3, S, S] at 112x112, bilinear with antialiasing; the whole image, not aligned."""
    size = (SIDE, SIDE)
    return F.interpolate(pictures, size=size, mode="bilinear", antialias=True, align_corners=False)


def identity_gradient(network: ArcFace, x0: Tensor, wanted: Tensor) -> Tensor:
    """Return the gradient [B, 3, S, S] with respect to `x0` of the squared distance of its vector from `wanted`.

    Args:
        network: in evaluation mode.
        x0: images [B, 3, S, S] in −1..1.
        wanted: vectors of the references, [B, F].
    """
    with torch.enable_grad():
        picture = x0.detach().requires_grad_(True)
        distance = (network(shrunk(picture)) - wanted).pow(2).sum()
        return torch.autograd.grad(distance, picture)[0]
