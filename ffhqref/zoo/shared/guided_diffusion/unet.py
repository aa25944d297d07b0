"""The denoiser of DifFace, DR2 and PGDiff, with the parameter names of the published checkpoints.

Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis" (2021): the U-Net of guided-diffusion without
classes, with scale-shift conditioning and the older order of heads in attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.shared.guided_diffusion.config import GROUPS
from ffhqref.zoo.shared.layers import Downsample, Upsample, time_network, timestep_embedding

if TYPE_CHECKING:
    from ffhqref.zoo.shared.guided_diffusion.config import GuidedUNetConfig

Resample = Literal["down", "up"]


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-5)


def _resampled(x: Tensor, way: Resample | None) -> Tensor:
    if way == "down":
        return F.avg_pool2d(x, 2)
    return x if way is None else F.interpolate(x, scale_factor=2.0, mode="nearest")


class _ResBlock(nn.Module):
    """Two convolutions; the time scales and shifts what the second normalisation gives."""

    def __init__(self, channels: int, embedding: int, out_channels: int, way: Resample | None = None) -> None:
        super().__init__()
        self.way = way
        self.in_layers = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out_channels))
        self.out_layers = nn.Sequential(
            # the third place is the dropout of training, which keeps the published names
            _norm(out_channels), nn.SiLU(), nn.Identity(), nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )  # fmt: skip
        self.skip_connection = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = _resampled(F.silu(self.in_layers[0](x)), self.way)
        h = self.in_layers[2](h)
        scale, shift = self.emb_layers(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.out_layers[0](h) * (1 + scale) + shift
        h = self.out_layers[3](F.silu(h))
        return cast("Tensor", self.skip_connection(_resampled(x, self.way)) + h)


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        flat = x.flatten(2)
        # heads first, then q, k and v within each head
        qkv = self.qkv(self.norm(flat)).reshape(batch * self.heads, -1, height * width)
        q, k, v = qkv.chunk(3, dim=1)
        scale = (channels // self.heads) ** -0.25  # on both sides, for half precision's sake
        weights = torch.softmax(((q * scale).transpose(1, 2) @ (k * scale)).float(), dim=-1).to(v.dtype)
        out = (v @ weights.transpose(1, 2)).reshape(batch, channels, -1)
        return cast("Tensor", (flat + self.proj_out(out)).reshape(x.shape))


class _Block(nn.ModuleList):
    """Layers in a row; the residual ones are told the time."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, _ResBlock) else layer(x)
        return x


class GuidedUNet(nn.Module):
    """Noise and variance value, [B, 6, S, S], of a noisy image [B, 3, S, S] at a time 0..999.

    S must be such that every halving is exact. `ffhqref.zoo.shared.guided_diffusion.diffusion.Diffusion` says what the
    six channels mean.
    """

    def __init__(self, config: GuidedUNetConfig) -> None:
        super().__init__()
        self.config = config
        base = config.model_channels
        self._embedding = 4 * base
        self.time_embed = time_network(base)

        width = base * config.channel_mult[0]
        self.input_blocks = nn.ModuleList([_Block([nn.Conv2d(config.in_channels, width, 3, padding=1)])])
        skips = [width]
        last = len(config.channel_mult) - 1
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks[level]):
                self.input_blocks.append(_Block(self._layers(width, mult * base, level)))
                width = mult * base
                skips.append(width)
            if level < last:
                self.input_blocks.append(_Block([self._between(width, "down")]))
                skips.append(width)

        self.middle_block = _Block(
            [self._residual(width, width), _Attention(width, config.heads(width)), self._residual(width, width)]
        )

        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            blocks = config.num_res_blocks[level] + 1
            for index in range(blocks):
                layers = self._layers(width + skips.pop(), config.channel_mult[level] * base, level)
                width = config.channel_mult[level] * base
                if level and index == blocks - 1:
                    layers.append(self._between(width, "up"))
                self.output_blocks.append(_Block(layers))

        self.out = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, config.out_channels, 3, padding=1))

    def _residual(self, channels: int, out_channels: int, way: Resample | None = None) -> _ResBlock:
        return _ResBlock(channels, self._embedding, out_channels, way)

    def _layers(self, channels: int, width: int, level: int) -> list[nn.Module]:
        layers: list[nn.Module] = [self._residual(channels, width)]
        if level in self.config.attention_levels:
            layers.append(_Attention(width, self.config.heads(width)))
        return layers

    def _between(self, width: int, way: Resample) -> nn.Module:
        if self.config.resblock_updown:
            return self._residual(width, width, way)
        return Downsample(width) if way == "down" else Upsample(width)

    def forward(self, x: Tensor, time: int) -> Tensor:
        """Return float32 [B, 6, S, S].

        Args:
            x: noisy images, float32 [B, 3, S, S].
            time: original time of all of them, 0..999.
        """
        t = torch.full((1,), time, device=x.device)
        emb = self.time_embed(timestep_embedding(t, self.config.model_channels))
        h = x
        skips = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return cast("Tensor", self.out(h))
