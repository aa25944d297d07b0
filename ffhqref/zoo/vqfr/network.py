"""The network of VQFR version 2, in the published file's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.shared.layers import PaddedDownsample, Upsample
from ffhqref.zoo.vqfr.blocks import ResidualBlock, TextureWarping, conv3, group_norm, resize

if TYPE_CHECKING:
    from ffhqref.zoo.vqfr.config import VQFRConfig


def _residual(channels: int, out: int) -> ResidualBlock:
    return ResidualBlock(channels, out, "residual_func")


class Attention(nn.Module):
    """Self-attention with one head over all places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        normed = self.norm(x)
        q, k, v = (layer(normed).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        made = F.scaled_dot_product_attention(q, k, v)
        found: Tensor = x + self.proj_out(made.transpose(1, 2).reshape(x.shape))
        return found


def _level(channels: int, out: int, blocks: int, attention: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for index in range(blocks):
        layers.append(_residual(channels if index == 0 else out, out))
        if attention:
            layers.append(Attention(out))
    return layers


def _middle(channels: int) -> nn.Sequential:
    return nn.Sequential(_residual(channels, channels), Attention(channels), _residual(channels, channels))


class Encoder(nn.Module):
    """Image to code vectors; attention at the coarsest level."""

    def __init__(self, config: VQFRConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = conv3(3, widths[0])
        self.blocks = nn.ModuleList()
        for index, width in enumerate(widths):
            before = widths[max(index - 1, 0)]
            down = [PaddedDownsample(before)] if index else []
            layers = _level(before, width, config.num_enc_blocks, attention=index == len(widths) - 1)
            self.blocks.append(nn.Sequential(*down, *layers))
        self.mid_blocks = _middle(widths[-1])
        self.conv_out = nn.Sequential(group_norm(widths[-1]), nn.SiLU(), conv3(widths[-1], config.code_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, code_dim, h, w]."""
        x = self.conv_in(x)
        for block in self.blocks:
            x = block(x)
        made: Tensor = self.conv_out(self.mid_blocks(x))
        return made


class Decoder(nn.Module):
    """Codes to texture features; `conv_out` turns the finest into an image."""

    def __init__(self, config: VQFRConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.conv_in = conv3(config.code_dim, widths[0])
        self.mid_blocks = _middle(widths[0])
        self.blocks = nn.ModuleList()
        for index, width in enumerate(widths):
            before = widths[max(index - 1, 0)]
            up = [Upsample(before)] if index else []
            layers = _level(before, width, config.num_dec_blocks, attention=index == 0)
            self.blocks.append(nn.Sequential(*up, *layers))
        self.conv_out = nn.Sequential(group_norm(widths[-1]), nn.SiLU(), conv3(widths[-1], 3))

    def forward(self, codes: Tensor) -> list[Tensor]:
        """Return the texture feature of each level, coarsest first, from [B, code_dim, h, w]."""
        x = self.mid_blocks(self.conv_in(codes))
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features


class Resize(nn.Module):
    """Bilinear resizing without weights."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, factor·H, factor·W]."""
        return resize(x, self.factor)


class MainBranch(nn.Module):
    """Texture, warped level by level, to features that keep to the LQ image."""

    def __init__(self, config: VQFRConfig) -> None:
        super().__init__()
        self._levels = config.levels[::-1]
        widths = dict(zip(config.levels, config.widths, strict=True))
        align = config.align_opt
        self.decoder_dict, self.pre_upsample_dict = nn.ModuleDict(), nn.ModuleDict()
        self.align_func_dict = nn.ModuleDict()
        for index, level in enumerate(self._levels):
            width = widths[level]
            before = widths[self._levels[index - 1]] if index else 0
            factor = 0.5 ** (len(self._levels) - 1 - index)
            self.align_func_dict[level] = TextureWarping(
                width, align.cond_channels, align.deformable_groups, before, Resize(factor)
            )
            if index:
                self.pre_upsample_dict[level] = nn.Sequential(nn.Upsample(scale_factor=2.0), conv3(before, width))
                self.decoder_dict[level] = _residual(2 * width, width)

    def forward(self, condition: Tensor, textures: list[Tensor]) -> Tensor:
        """Return the finest feature [B, C, H, W].

        Args:
            condition: feature of the input image.
            textures: of each level, coarsest first.
        """
        x: Tensor
        x, offset = self.align_func_dict[self._levels[0]](condition, textures[0], None)
        for level, texture in zip(self._levels[1:], textures[1:], strict=True):
            x = self.pre_upsample_dict[level](x)
            warped, offset = self.align_func_dict[level](condition, texture, offset)
            x = self.decoder_dict[level](torch.cat([x, warped], dim=1))
        return x


class Codebook(nn.Module):
    """The code vectors."""

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)


class VQFRv2(nn.Module):
    """Version 2: codes are predicted, and the fidelity ratio weighs the warped branch.

    Args:
        config: the architecture.
    """

    def __init__(self, config: VQFRConfig) -> None:
        super().__init__()
        codes = config.quantizer_opt.num_code
        self.inpfeat_extraction = conv3(3, config.inpfeat_dim)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.main_branch = MainBranch(config)
        self.feat2index = nn.Sequential(nn.LayerNorm(config.code_dim), nn.Linear(config.code_dim, codes))
        self.quantizer = Codebook(codes, config.code_dim)

    def code_indices(self, x: Tensor) -> Tensor:
        """Return the predicted codes [B, h, w] of an image."""
        feature = self.encoder(x)
        logits = self.feat2index(feature.flatten(2).transpose(1, 2))
        made: Tensor = logits.argmax(dim=2).view(len(x), *feature.shape[2:])
        return made

    def forward(self, x: Tensor, fidelity_ratio: float) -> Tensor:
        """Return [B, 3, S, S], about −1..1 and not clamped, from RGB [B, 3, S, S] in −1..1.

        Args:
            x: the images.
            fidelity_ratio: 0: texture alone, and the warped branch is not computed; 1: all of it.
        """
        codes = self.quantizer.embedding(self.code_indices(x)).permute(0, 3, 1, 2)
        textures = self.decoder(codes)
        feature = textures[-1]
        if fidelity_ratio:
            feature = feature + fidelity_ratio * self.main_branch(self.inpfeat_extraction(x), textures)
        made: Tensor = self.decoder.conv_out(feature)
        return made
