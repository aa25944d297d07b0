"""The network of VQFR version 1, in the published file's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ffhqref.zoo.vqfr.blocks import ResidualBlock, TextureWarping, conv3, group_norm, resize

if TYPE_CHECKING:
    from ffhqref.zoo.vqfr.config import LevelQuantizerConfig, VQFRv1Config


class Resample(nn.Module):
    """Bilinear resizing with a 3x3 convolution, at the smaller of the two sizes.

    Args:
        channels: of the input.
        out: of the output.
        factor: of the side; below 1 the convolution follows the resizing, above 1 it comes first.
    """

    def __init__(self, channels: int, out: int, factor: float) -> None:
        super().__init__()
        self.conv = conv3(channels, out)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out, factor·H, factor·W]."""
        return self.conv(resize(x, self.factor)) if self.factor < 1 else resize(self.conv(x), self.factor)


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_residual(width, width) for _ in range(count)))


def _residual(channels: int, out: int) -> ResidualBlock:
    return ResidualBlock(channels, out, "shortcut_conv")


class Encoder(nn.Module):
    """Image to the feature that is quantised."""

    def __init__(self, config: VQFRv1Config) -> None:
        super().__init__()
        self._levels, widths = config.levels, config.widths
        self.conv_in = conv3(3, widths[0])
        self.encoder_dict, self.pre_downsample_dict = nn.ModuleDict(), nn.ModuleDict()
        for index, level in enumerate(self._levels):
            if index:
                self.pre_downsample_dict[level] = Resample(widths[index - 1], widths[index], 0.5)
            self.encoder_dict[level] = _blocks(widths[index], config.encoder_num_blocks)
        last = nn.Sequential(group_norm(widths[-1]), nn.SiLU(), conv3(widths[-1], widths[-1]))
        self.enc_convout_dict = nn.ModuleDict({self._levels[-1]: last})

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, h, w]."""
        x = self.conv_in(x)
        for level in self._levels:
            if level in self.pre_downsample_dict:
                x = self.pre_downsample_dict[level](x)
            x = self.encoder_dict[level](x)
        made: Tensor = self.enc_convout_dict[self._levels[-1]](x)
        return made


class TextureDecoder(nn.Module):
    """Quantised feature to texture features; `conv_out` turns the finest into an image that is not the result."""

    def __init__(self, config: VQFRv1Config) -> None:
        super().__init__()
        self._levels, widths = config.levels[::-1], config.widths[::-1]
        self.decoder_dict, self.pre_upsample_dict = nn.ModuleDict(), nn.ModuleDict()
        for index, level in enumerate(self._levels):
            if index:
                self.pre_upsample_dict[level] = Resample(widths[index - 1], widths[index], 2.0)
            self.decoder_dict[level] = _blocks(widths[index], config.decoder_num_blocks)
        self.conv_out = nn.Sequential(group_norm(widths[-1]), nn.SiLU(), conv3(widths[-1], 3))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the texture feature of each level, coarsest first."""
        features = []
        for level in self._levels:
            if level in self.pre_upsample_dict:
                x = self.pre_upsample_dict[level](x)
            x = self.decoder_dict[level](x)
            features.append(x)
        return features


class MainDecoder(nn.Module):
    """Texture, warped level by level, to the result."""

    def __init__(self, config: VQFRv1Config) -> None:
        super().__init__()
        self._levels, widths = config.levels[::-1], config.widths[::-1]
        self.decoder_dict, self.pre_upsample_dict = nn.ModuleDict(), nn.ModuleDict()
        self.align_func_dict = nn.ModuleDict()
        for index, level in enumerate(self._levels):
            width, before = widths[index], widths[index - 1] if index else 0
            align = config.align_opt[level]
            channels, rate = align.cond_channels, align.cond_downscale_rate
            down = nn.Identity() if rate == 1 else Resample(channels, channels, 1 / rate)
            self.align_func_dict[level] = TextureWarping(width, channels, align.deformable_groups, before, down)
            if index:
                self.pre_upsample_dict[level] = Resample(before, width, 2.0)
                self.decoder_dict[level] = _residual(2 * width, width)
        self.conv_out_1 = nn.Sequential(group_norm(widths[-1]), nn.SiLU())
        self.conv_out = nn.Sequential(conv3(widths[-1] + 3, 3))

    def forward(self, picture: Tensor, condition: Tensor, textures: list[Tensor]) -> Tensor:
        """Return [B, 3, H, W].

        Args:
            picture: the input.
            condition: its feature.
            textures: of each level, coarsest first.
        """
        x, offset = self.align_func_dict[self._levels[0]](condition, textures[0], None)
        for level, texture in zip(self._levels[1:], textures[1:], strict=True):
            x = self.pre_upsample_dict[level](x)
            warped, offset = self.align_func_dict[level](condition, texture, offset)
            x = self.decoder_dict[level](torch.cat([x, warped], dim=1))
        made: Tensor = self.conv_out(torch.cat([self.conv_out_1(x), picture], dim=1))
        return made


class Quantizer(nn.Module):
    """The nearest code of each place."""

    def __init__(self, config: LevelQuantizerConfig) -> None:
        super().__init__()
        self.quant_conv = nn.Conv2d(config.in_dim, config.code_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.in_dim, 1)
        self.embedding = nn.Embedding(config.num_code, config.code_dim)

    def code_indices(self, x: Tensor) -> Tensor:
        """Return the codes [B, h, w] of a feature [B, C, h, w].

        Differences are squared one by one: with the usual |z|² + |e|² − 2·z·e, rounding decides between near codes.
        """
        vectors = self.quant_conv(x).permute(0, 2, 3, 1)
        flat = vectors.flatten(0, 2)
        distances = torch.cdist(flat, self.embedding.weight, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.argmin(dim=1).view(vectors.shape[:3])

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, h, w]."""
        made: Tensor = self.post_quant_conv(self.embedding(self.code_indices(x)).permute(0, 3, 1, 2))
        return made


class Quantizers(nn.Module):
    """The quantisers by level, of which there is one."""

    def __init__(self, config: VQFRv1Config) -> None:
        super().__init__()
        level = config.levels[-1]
        self.quantize_dict = nn.ModuleDict({level: Quantizer(config.quantizer_opt[level])})
        self._level = level

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, h, w]."""
        made: Tensor = self.quantize_dict[self._level](x)
        return made


class InputFeature(nn.Module):
    """One convolution on the input image."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.conv = conv3(3, out)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out, H, W]."""
        made: Tensor = self.conv(x)
        return made


class VQFRv1(nn.Module):
    """Version 1: the nearest codes, and the input image joined to the last features.

    Args:
        config: the architecture.
    """

    def __init__(self, config: VQFRv1Config) -> None:
        super().__init__()
        self.inpfeat_extraction = InputFeature(config.inpfeat_extraction_opt.out_dim)
        self.encoder, self.decoder = Encoder(config), TextureDecoder(config)
        self.main_decoder = MainDecoder(config)
        self.quantizer = Quantizers(config)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, 3, S, S], about −1..1 and not clamped, from RGB [B, 3, S, S] in −1..1."""
        textures = self.decoder(self.quantizer(self.encoder(x)))
        made: Tensor = self.main_decoder(x, self.inpfeat_extraction(x), textures)
        return made
