"""The network of ASFFNet512 (Li et al., CVPR 2020; the author's version of 2022), in the published file's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.shared.spectral import Residual, SpectralConv, pair, with_statistics_of

if TYPE_CHECKING:
    from ffhqref.zoo.asffnet.config import ASFFNetConfig


def _active(channels: int, out: int, stride: int = 1, dilation: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(SpectralConv(channels, out, stride, dilation, kernel=kernel), nn.LeakyReLU(0.2))


class Extractor(nn.Module):
    """Image to a map at a quarter of its sides."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _active(3, width), _active(width, 2 * width, 2)
        self.conv3, self.conv4 = _active(2 * width, 4 * width, 2), _active(4 * width, 2 * width)
        self.stem1_1, self.stem1_2 = (Residual(width, "stem", (7, 5)) for _ in range(2))
        self.stem2_1, self.stem2_2 = (Residual(2 * width, "stem", (5, 3)) for _ in range(2))
        self.stem3_1, self.stem3_2 = (Residual(4 * width, "stem", (3, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H/4, W/4]."""
        x = self.stem1_2(self.stem1_1(self.conv1(x)))
        x = self.stem2_2(self.stem2_1(self.conv2(x)))
        made: Tensor = self.conv4(self.stem3_2(self.stem3_1(self.conv3(x))))
        return made


class MaskFeatures(nn.Module):
    """Mask to a map of 0..1 at a quarter of its sides."""

    def __init__(self, channels: int) -> None:
        super().__init__()

        def plain(given: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(given, out, kernel, stride, kernel // 2, bias=False)

        self.model = nn.Sequential(
            plain(1, 16, 9, 2),
            nn.LeakyReLU(0.2),
            plain(16, 32, 7),
            nn.LeakyReLU(0.2),
            plain(32, 64, 5, 2),
            nn.LeakyReLU(0.2),
            plain(64, channels, 3),
            nn.LeakyReLU(0.2),
            plain(channels, channels, 3),
            nn.Sigmoid(),
        )

    def forward(self, mask: Tensor) -> Tensor:
        """Return [B, C, H/4, W/4]."""
        made: Tensor = self.model(mask)
        return made


class ActiveResidual(nn.Module):
    """Input plus a pair of convolutions, each followed by leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Model = pair(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        return x + F.leaky_relu(self.Model(x), 0.2)


class ReferenceFeatures(nn.Module):
    """What the warped map of the reference goes through."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *_active(channels, channels, kernel=1),
            ActiveResidual(channels),
            *_active(channels, channels, kernel=1),
            ActiveResidual(channels),
            *_active(channels, channels, kernel=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        made: Tensor = self.model(x)
        return made


class Fusion(nn.Module):
    """Degraded and reference maps joined place by place, by a weight that is not confined to 0..1."""

    def __init__(self, channels: int, *, last: bool = False) -> None:
        super().__init__()
        half = channels // 2
        self.DegradedModel, self.RefModel = pair(channels, channels), pair(channels, channels)
        self.MaskConcat, self.DegradedConcat, self.RefConcat = (
            nn.Sequential(SpectralConv(channels, half, kernel=1)) for _ in range(3)
        )
        end = (
            SpectralConv(channels, channels, bias=False) if last else nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        )
        self.MaskModel = nn.Sequential(SpectralConv(3 * half, channels, bias=False), nn.LeakyReLU(0.2), end)

    def forward(self, x: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        own, given = self.DegradedModel(x), self.RefModel(reference)
        joined = [self.MaskConcat(mask), self.DegradedConcat(own), self.RefConcat(given)]
        made: Tensor = own + (given - own) * self.MaskModel(torch.cat(joined, dim=1))
        return made


class FusionBlock(nn.Module):
    """Two fusions, each followed by two convolutions, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()

        def convolutions() -> nn.Sequential:
            return nn.Sequential(
                *_active(channels, channels, kernel=5), SpectralConv(channels, channels), nn.LeakyReLU(0.2)
            )

        self.sff0, self.sff1 = Fusion(channels), Fusion(channels)
        self.conv0, self.conv1 = convolutions(), convolutions()

    def forward(self, x: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        between = self.conv0(self.sff0(x, reference, mask))
        made: Tensor = x + self.conv1(self.sff1(between, reference, mask))
        return made


class MultiDilation(nn.Module):
    """Four branches of falling dilation, joined, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            _active(channels, channels // 2, dilation=dilation) for dilation in (4, 3, 2, 1)
        )
        self.convi = pair(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        branches = [self.conv1(x), self.conv2(x), self.conv3(x), self.conv4(x)]
        made: Tensor = self.convi(torch.cat(branches, dim=1)) + x
        return made


class TwoResiduals(nn.Module):
    """Two pairs of convolutions, each followed by leaky ReLU and added to its input."""

    def __init__(self, channels: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        self.Model0, self.Model1 = (pair(channels, channels, dilations=(one, one)) for one in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        x = x + F.leaky_relu(self.Model0(x), 0.2)
        return x + F.leaky_relu(self.Model1(x), 0.2)


class ASFFNet(nn.Module):
    """Extractors of both images, fusion and decoder.

    Args:
        config: the architecture.
    """

    def __init__(self, config: ASFFNetConfig) -> None:
        super().__init__()
        width, channels = config.ngf, 2 * config.ngf
        self.LQ_Model, self.Ref_Model = Extractor(width), Extractor(width)
        self.Mask_CModel, self.Component_CModel = MaskFeatures(channels), ReferenceFeatures(channels)
        blocks = (FusionBlock(channels) for _ in range(config.blocks))
        self.sff_branch = nn.ModuleList([*blocks, Fusion(channels, last=True)])
        self.MSDilate = MultiDilation(channels)

        def doubled() -> nn.Upsample:
            return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

        self.UpModel = nn.Sequential(
            doubled(),
            *_active(channels, channels),
            TwoResiduals(channels, (1, 2)),
            *_active(channels, width),
            TwoResiduals(width, (1, 2)),
            doubled(),
            TwoResiduals(width, (1, 1)),
            SpectralConv(width, 3),
            nn.Tanh(),
        )

    def forward(self, lq: Tensor, mask: Tensor, reference: Tensor, grid: Tensor) -> Tensor:
        """Return [B, 3, 512, 512] in −1..1.

        Args:
            lq: RGB [B, 3, 512, 512] in −1..1.
            mask: [B, 1, 512, 512].
            reference: RGB [B, 3, 512, 512] in −1..1.
            grid: [B, 128, 128, 2] (x, y) in −1..1.
        """
        own = self.LQ_Model(lq)
        coloured = with_statistics_of(self.Ref_Model(reference), own)
        given = self.Component_CModel(warped(coloured, grid))
        places = self.Mask_CModel(mask)
        x = own
        for block in self.sff_branch:
            x = block(x, given, places)
        made: Tensor = self.UpModel(self.MSDilate(x) + own)
        return made


def warped(features: Tensor, grid: Tensor) -> Tensor:
    """Return a map sampled at the grid, with zeros outside; half a pixel up and left of the grid's places."""
    return F.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
