"""The denoiser of ReF-LDM, with the parameter names of the published checkpoints.

Architecture: the U-Net of latent-diffusion without text or class conditioning (ReF-LDM, configs/refldm.yaml).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.refldm.keys_values import Attend, KeysValues, Recorder, SelfOnly
from ffhqref.zoo.refldm.layers import norm, picture, silu, tokens, zeroed
from ffhqref.zoo.shared.layers import Downsample, Upsample, time_network, timestep_embedding

if TYPE_CHECKING:
    from ffhqref.zoo.refldm.config import UNetConfig

_EPS = 1e-5


class _ResBlock(nn.Module):
    def __init__(self, channels: int, embedding: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(norm(channels, _EPS), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out_channels))
        self.out_layers = nn.Sequential(
            norm(out_channels, _EPS),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[2](silu(self.in_layers[0](x)))
        h = h + self.emb_layers(emb)[:, :, None, None]
        h = self.out_layers[2](silu(self.out_layers[0](h)))
        return cast("Tensor", self.skip_connection(x) + self.out_layers[3](h))


class _Attention(nn.Module):
    """Multi-head self-attention; how it attends, and to what besides itself, the caller decides."""

    def __init__(self, channels: int, heads: int, layer: int) -> None:
        super().__init__()
        self.heads = heads
        self.layer = layer
        self.norm = norm(channels, _EPS)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        qkv = F.linear(tokens(self.norm(x)), self.qkv.weight.squeeze(-1), self.qkv.bias)
        # Heads first, then q, k and v within each head (``QKVAttentionLegacy``).
        q, k, v = qkv.unflatten(2, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        out = attend(self.layer, q, k, v).transpose(1, 2).flatten(2)
        out = F.linear(out, self.proj_out.weight.squeeze(-1), self.proj_out.bias)
        return x + picture(out, x.shape[2], x.shape[3])


class _Block(nn.ModuleList):
    """Layers in a row, each given what its kind needs."""

    def forward(self, h: Tensor, emb: Tensor, attend: Attend) -> Tensor:
        for layer in self:
            if isinstance(layer, _ResBlock):
                h = layer(h, emb)
            elif isinstance(layer, _Attention):
                h = layer(_widened(h, attend.rows), attend)
            else:
                h = layer(h)
        return h


def _widened(h: Tensor, rows: int | None) -> Tensor:
    """Repeat the batch to as many rows as the branches of guidance need."""
    if rows is None or h.shape[0] == rows:
        return h
    return h.repeat(rows // h.shape[0], 1, 1, 1)


class UNet(nn.Module):
    """Noise prediction [B, C, h, w] from [noisy latent, LQ latent] [B, 2·C, h, w] and a time step."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        base, depth = config.model_channels, config.num_res_blocks
        embedding = 4 * base
        self.time_embed = time_network(base)
        self.attention_layers = 0

        width, scale = base, 1
        self.input_blocks = nn.ModuleList([_Block([nn.Conv2d(config.in_channels, base, 3, padding=1)])])
        skips = [base]
        for level, mult in enumerate(config.channel_mult):
            for _ in range(depth):
                layers: list[nn.Module] = [_ResBlock(width, embedding, mult * base, config.dropout)]
                width = mult * base
                if scale in config.attention_resolutions:
                    layers.append(self._attention(width))
                self.input_blocks.append(_Block(layers))
                skips.append(width)
            if level < len(config.channel_mult) - 1:
                self.input_blocks.append(_Block([Downsample(width)]))
                skips.append(width)
                scale *= 2

        self.middle_block = _Block(
            [
                _ResBlock(width, embedding, width, config.dropout),
                self._attention(width),
                _ResBlock(width, embedding, width, config.dropout),
            ]
        )

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for index in range(depth + 1):
                layers = [_ResBlock(width + skips.pop(), embedding, mult * base, config.dropout)]
                width = mult * base
                if scale in config.attention_resolutions:
                    layers.append(self._attention(width))
                if level > 0 and index == depth:
                    layers.append(Upsample(width))
                    scale //= 2
                self.output_blocks.append(_Block(layers))

        self.out = nn.Sequential(
            norm(width, _EPS), nn.SiLU(), zeroed(nn.Conv2d(width, config.out_channels, 3, padding=1))
        )

    def _attention(self, channels: int) -> _Attention:
        layer = _Attention(channels, self.config.heads(channels), self.attention_layers)
        self.attention_layers += 1
        return layer

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision that the network works in."""
        return cast("Tensor", self.time_embed[0].weight).dtype

    def forward(self, x: Tensor, t: Tensor, attend: Attend | None = None) -> Tensor:
        """Return the predicted noise, float32.

        Args:
            x: noisy latent, then LQ latent, [B, 2·C, h, w].
            t: time step of each row, [B], or of all, [1].
            attend: what the attention layers look at; None: each image at itself alone.

        Returns:
            [B, C, h, w], or [attend.rows, C, h, w] where the branches of guidance part inside.
        """
        look: Attend = SelfOnly() if attend is None else attend
        h, emb, skips = self._down(x, t, look)
        h = self.middle_block(h, emb, look)
        for block in self.output_blocks:
            h = block(torch.cat([h, _widened(skips.pop(), h.shape[0])], dim=1), emb, look)
        return cast("Tensor", self.out[2](silu(self.out[0](h)))).float()

    def keys_values(self, x: Tensor) -> KeysValues:
        """Return the keys and values of references at t = 0 (ldm/cache_kv.py).

        References do not see one another, so any number of them goes through as one batch. The network runs up to
        its last attention layer only.

        Args:
            x: reference latents padded with as many zero channels, [rows, 2·C, h, w].
        """
        recorder = Recorder()
        h, emb, skips = self._down(x, x.new_zeros(1), recorder)
        h = self.middle_block(h, emb, recorder)
        for block in self.output_blocks:
            if len(recorder.keys) == self.attention_layers:
                break
            h = block(torch.cat([h, skips.pop()], dim=1), emb, recorder)
        return KeysValues(tuple(recorder.keys), tuple(recorder.values))

    def _down(self, x: Tensor, t: Tensor, attend: Attend) -> tuple[Tensor, Tensor, list[Tensor]]:
        embedding = timestep_embedding(t, self.config.model_channels)
        emb = self.time_embed(embedding.to(self.dtype))
        h = x.to(self.dtype)
        skips = []
        for block in self.input_blocks:
            h = block(h, emb, attend)
            skips.append(h)
        return h, emb, skips
