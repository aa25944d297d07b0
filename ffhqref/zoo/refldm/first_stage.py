"""The VQ auto-encoder of ReF-LDM, with the parameter names of the published checkpoints.

Architecture: taming-transformers' VQGAN with one head of attention in the middle block (ReF-LDM, configs/vqgan.yaml).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.refldm.layers import norm, picture, silu, tokens
from ffhqref.zoo.shared.layers import PaddedDownsample, Upsample

if TYPE_CHECKING:
    from ffhqref.zoo.refldm.config import FirstStageConfig

_EPS = 1e-6


class _ResBlock(nn.Module):
    def __init__(self, channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = norm(channels, _EPS)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels, _EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(self.dropout(silu(self.norm2(h))))
        return cast("Tensor", h + self.nin_shortcut(x))


class _Attention(nn.Module):
    """Self-attention with one head over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels, _EPS)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (tokens(layer(h)).unsqueeze(1).contiguous() for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return cast("Tensor", x + self.proj_out(picture(out, x.shape[2], x.shape[3])))


class _Middle(nn.Module):
    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = _ResBlock(channels, channels, dropout)
        self.attn_1 = _Attention(channels)
        self.block_2 = _ResBlock(channels, channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.block_2(self.attn_1(self.block_1(x))))


class _Level(nn.Module):
    """Residual blocks of one side, each with attention behind it or none of them, then the resampling."""

    def __init__(self, channels: int, width: int, blocks: int, attention: bool, dropout: float) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            _ResBlock(channels if index == 0 else width, width, dropout) for index in range(blocks)
        )
        self.attn = nn.ModuleList(_Attention(width) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return x


class _DownLevel(_Level):
    def __init__(self, channels: int, width: int, blocks: int, attention: bool, dropout: float, resample: bool) -> None:
        super().__init__(channels, width, blocks, attention, dropout)
        self.downsample = PaddedDownsample(width) if resample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.downsample(super().forward(x)))


class _UpLevel(_Level):
    def __init__(self, channels: int, width: int, blocks: int, attention: bool, dropout: float, resample: bool) -> None:
        super().__init__(channels, width, blocks, attention, dropout)
        self.upsample = Upsample(width) if resample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.upsample(super().forward(x)))


class _Encoder(nn.Module):
    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList(
            _DownLevel(
                config.ch if level == 0 else widths[level - 1],
                width,
                config.num_res_blocks,
                config.resolution // 2**level in config.attn_resolutions,
                config.dropout,
                resample=level < len(widths) - 1,
            )
            for level, width in enumerate(widths)
        )
        self.mid = _Middle(widths[-1], config.dropout)
        self.norm_out = norm(widths[-1], _EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return cast("Tensor", self.conv_out(silu(self.norm_out(self.mid(h)))))


class _Decoder(nn.Module):
    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = _Middle(widths[-1], config.dropout)
        self.up = nn.ModuleList(  # level 0 is the largest side, as in the encoder, and runs last
            _UpLevel(
                widths[min(level + 1, last)],
                width,
                config.num_res_blocks + 1,
                config.resolution // 2**level in config.attn_resolutions,
                config.dropout,
                resample=level > 0,
            )
            for level, width in enumerate(widths)
        )
        self.norm_out = norm(widths[0], _EPS)
        self.conv_out = nn.Conv2d(widths[0], config.out_ch, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        return cast("Tensor", self.conv_out(silu(self.norm_out(h))))

    @property
    def last_layer(self) -> Tensor:
        """Return the weight through which the adversarial weight of VQGAN training is measured."""
        return self.conv_out.weight


class Codebook(nn.Module):
    """Nearest-code quantisation in float32, whatever the precision of the networks."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / count, 1.0 / count)

    def distances(self, z: Tensor) -> Tensor:
        """Return d = |z|² + |e|² − 2·z·e, float32 [positions, codes], for latents [B, C, H, W].

        The order of operations is the published one: it decides which code wins a tie.
        """
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]).float()
        codes = self.embedding.weight.float()
        squares = (flat**2).sum(dim=1, keepdim=True) + (codes**2).sum(dim=1)
        return squares - 2.0 * torch.einsum("bd,dn->bn", flat, codes.t())

    def nearest(self, z: Tensor) -> Tensor:
        """Return the index of the nearest code, int64 [B, H, W]; one image at a time, to bound memory."""
        with torch.no_grad():
            found = [self.distances(item.unsqueeze(0)).argmin(dim=1) for item in z]
        return torch.stack(found).reshape(z.shape[0], z.shape[2], z.shape[3])

    def lookup(self, indices: Tensor) -> Tensor:
        """Return the codes [B, C, H, W] of indices [B, H, W]."""
        return cast("Tensor", self.embedding(indices)).permute(0, 3, 1, 2)

    def forward(self, z: Tensor) -> Tensor:
        """Return z + (e − z): e up to rounding, the input of the published decoder (straight-through estimator)."""
        z = z.float()
        return z + (self.lookup(self.nearest(z)).float() - z).detach()


class FirstStage(nn.Module):
    """VQ auto-encoder: images [B, 3, H, W] in −1..1 to latents [B, C, H/f, W/f] and back."""

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.quantize = Codebook(config.n_embed, config.embed_dim)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision that encoder and decoder work in."""
        return self.quant_conv.weight.dtype

    def encode(self, images: Tensor) -> Tensor:
        """Return latents *before* quantisation, float32."""
        x = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
        return cast("Tensor", self.quant_conv(self.encoder(x))).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Quantise latents and return images, float32 in about −1..1, not clamped."""
        return self.decode_codes(self.quantize(latents))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Return the images of latents that are quantised already."""
        z = codes.to(self.dtype).contiguous(memory_format=torch.channels_last)
        return cast("Tensor", self.decoder(self.post_quant_conv(z))).float()
