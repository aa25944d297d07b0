"""The structure encoder: half a U-Net on the LQ image's latent that is told the time (StableSR's kind)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.restorerid.blocks import ResidualBlock, norm
from ffhqref.zoo.shared.layers import Downsample, time_network, timestep_embedding

if TYPE_CHECKING:
    from ffhqref.zoo.restorerid.config import StructureConfig


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        # heads first, then q, k and v within each head
        qkv = self.qkv(self.norm(flat)).unflatten(1, (self.heads, 3, -1))
        q, k, v = qkv.transpose(3, 4).unbind(2)
        out = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2)
        return cast("Tensor", (flat + self.proj_out(out)).view_as(x))


class _Block(nn.ModuleList):
    """Layers in a row; the residual ones are told the time."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResidualBlock) else layer(x)
        return x


class StructureEncoder(nn.Module):
    """Features of the LQ image at every scale of the U-Net, for a time.

    Args:
        config: widths.
    """

    def __init__(self, config: StructureConfig) -> None:
        super().__init__()
        self.config = config
        base, embedding = config.model_channels, 4 * config.model_channels
        self.time_embed = time_network(base)
        width, last = base, len(config.channel_mult) - 1
        self.input_blocks = nn.ModuleList([_Block([nn.Conv2d(4, width, 3, padding=1)])])
        widths = []
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                layers: list[nn.Module] = [ResidualBlock(width, embedding, mult * base)]
                width = mult * base
                if 2**level in config.attention_resolutions:
                    layers.append(_Attention(width, config.num_heads))
                self.input_blocks.append(_Block(layers))
            widths.append(width)
            if level < last:
                self.input_blocks.append(_Block([Downsample(width)]))
        self.middle_block = _Block(
            [
                ResidualBlock(width, embedding, width),
                _Attention(width, config.num_heads),
                ResidualBlock(width, embedding, width),
            ]
        )
        self.fea_tran = nn.ModuleList([ResidualBlock(each, embedding, config.out_channels) for each in widths])

    def forward(self, latent: Tensor, time: int) -> dict[int, Tensor]:
        """Return the features [B, C, h, w] by their width w in latent pixels.

        Args:
            latent: of the LQ image, [B, 4, h, w].
            time: of all rows.
        """
        t = torch.full((1,), time, device=latent.device)
        emb = self.time_embed(timestep_embedding(t, self.config.model_channels).to(latent.dtype))
        h, maps = latent, []
        for block in self.input_blocks:
            if isinstance(next(block.children()), Downsample):
                maps.append(h)
            h = block(h, emb)
        maps.append(self.middle_block(h, emb))
        return {each.shape[-1]: layer(each, emb) for each, layer in zip(maps, self.fea_tran, strict=True)}
