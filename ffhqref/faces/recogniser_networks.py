"""Face recognition networks in torch: the IResNets of AdaFace and the Inception-ResNet-v1 of FaceNet.

Names of layers are those of the published state dicts, so that files load strictly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

IRESNETS: Mapping[int, tuple[int, ...]] = {8: (2, 2, 2, 2), 24: (3, 4, 14, 3), 49: (3, 13, 30, 3)}
"""Blocks of each of the four stages by their number: IR-18, IR-50, IR-101."""


class IResNetBlock(nn.Module):
    """Normalise, convolve, normalise, activate, convolve with the stride, normalise, add."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        made: torch.Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return made


class IResNet(nn.Module):
    """IR-18, IR-50 or IR-101 without squeeze-and-excitation: [B, 3, 112, 112] in -1..1 to [B, 512].

    Args:
        stages: blocks of each stage, see `IRESNETS`.
    """

    def __init__(self, stages: Sequence[int]) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks: list[nn.Module] = []
        before = 64
        for width, count in zip((64, 128, 256, 512), stages, strict=True):
            blocks += [IResNetBlock(before, width, 2), *(IResNetBlock(width, width, 1) for _ in range(count - 1))]
            before = width
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512, affine=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return vectors of any length."""
        made: torch.Tensor = self.output_layer(self.body(self.input_layer(x)))
        return made


class Unit(nn.Module):
    """Convolve, normalise as TensorFlow does, rectify."""

    def __init__(
        self, before: int, after: int, kernel: int | tuple[int, int], stride: int = 1, pad: bool = False
    ) -> None:
        super().__init__()
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = (height // 2, width // 2) if pad else 0
        self.conv = nn.Conv2d(before, after, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the unit's output."""
        return torch.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Branches side by side, called ``branch0``, ``branch1``, …; with `conv2d` their sum with the input.

    Args:
        branches: in order.
        joined: width of the branches together, where they are added to an input; None: they are the output.
        width: of that input.
        scale: of what is added.
        rectify: the sum.
    """

    def __init__(
        self,
        branches: Sequence[nn.Module],
        joined: int | None = None,
        width: int = 0,
        scale: float = 1.0,
        rectify: bool = True,
    ) -> None:
        super().__init__()
        self._count, self._scale, self._rectify = len(branches), scale, rectify
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)
        self.conv2d = None if joined is None else nn.Conv2d(joined, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        made = torch.cat([self.get_submodule(f"branch{number}")(x) for number in range(self._count)], 1)
        if self.conv2d is None:
            return made
        made = self.conv2d(made) * self._scale + x
        return torch.relu(made) if self._rectify else made


def _block35() -> Branches:
    first = nn.Sequential(Unit(256, 32, 1), Unit(32, 32, 3, pad=True))
    second = nn.Sequential(Unit(256, 32, 1), Unit(32, 32, 3, pad=True), Unit(32, 32, 3, pad=True))
    return Branches([Unit(256, 32, 1), first, second], 96, 256, 0.17)


def _block17() -> Branches:
    second = nn.Sequential(Unit(896, 128, 1), Unit(128, 128, (1, 7), pad=True), Unit(128, 128, (7, 1), pad=True))
    return Branches([Unit(896, 128, 1), second], 256, 896, 0.1)


def _block8(scale: float = 0.2, rectify: bool = True) -> Branches:
    second = nn.Sequential(Unit(1792, 192, 1), Unit(192, 192, (1, 3), pad=True), Unit(192, 192, (3, 1), pad=True))
    return Branches([Unit(1792, 192, 1), second], 384, 1792, scale, rectify)


class InceptionResNetV1(nn.Module):
    """FaceNet's network in the layout of the package facenet-pytorch: [B, 3, 160, 160] to [B, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = Unit(3, 32, 3, 2)
        self.conv2d_2a = Unit(32, 32, 3)
        self.conv2d_2b = Unit(32, 64, 3, pad=True)
        self.conv2d_3b = Unit(64, 80, 1)
        self.conv2d_4a = Unit(80, 192, 3)
        self.conv2d_4b = Unit(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        narrow = nn.Sequential(Unit(256, 192, 1), Unit(192, 192, 3, pad=True), Unit(192, 256, 3, 2))
        self.mixed_6a = Branches([Unit(256, 384, 3, 2), narrow, nn.MaxPool2d(3, 2)])
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = Branches(
            [
                nn.Sequential(Unit(896, 256, 1), Unit(256, 384, 3, 2)),
                nn.Sequential(Unit(896, 256, 1), Unit(256, 256, 3, 2)),
                nn.Sequential(Unit(896, 256, 1), Unit(256, 256, 3, pad=True), Unit(256, 256, 3, 2)),
                nn.MaxPool2d(3, 2),
            ]
        )
        self.repeat_3 = nn.Sequential(*(_block8() for _ in range(5)))
        self.block8 = _block8(1.0, rectify=False)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return vectors of any length."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_3b(torch.max_pool2d(x, 3, 2))
        x = self.repeat_1(self.conv2d_4b(self.conv2d_4a(x)))
        x = self.repeat_2(self.mixed_6a(x))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        made: torch.Tensor = self.last_bn(self.last_linear(x.mean((2, 3))))
        return made
