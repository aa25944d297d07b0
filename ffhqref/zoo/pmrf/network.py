"""The flow's network: a hourglass transformer on pixels (HDiT, "image transformer v2").

Crowson et al., "Scalable High-Resolution Pixel-Space Image Synthesis with Hourglass Diffusion Transformers", ICML 2024
(arXiv 2401.11605). Names and order of the parameters are the published ones. Maps are [B, h, w, channels].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.pmrf.neighbourhood import attend

if TYPE_CHECKING:
    from ffhqref.zoo.pmrf.config import HDiTConfig

_EPS = 1e-6
_AUGMENTATIONS = 9
"""Settings of k-diffusion's augmentation; always zero here."""


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """Return x · scale over the root of its mean square along the last axis, computed in float32."""
    wide = x.float()
    mean = (wide**2).mean(dim=-1, keepdim=True)
    return (wide * (scale.float() * torch.rsqrt(mean + _EPS))).to(x.dtype)


class RMSNorm(nn.Module):
    """Normalisation with a learned scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., width]."""
        return rms_norm(x, self.scale)


class AdaRMSNorm(nn.Module):
    """Normalisation with a scale from the condition."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, width, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return [B, h, w, width] of a map and the condition [B, c]."""
        return rms_norm(x, self.linear(condition)[:, None, None] + 1)


class Fourier(nn.Module):
    """Cosines and sines of fixed random frequencies."""

    weight: Tensor

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(width // 2, inputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, width] of [B, inputs]."""
        angles = 2 * math.pi * x @ self.weight.T
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


def geglu(x: Tensor) -> Tensor:
    """Return the first half of the channels times GELU of the second."""
    first, gate = x.chunk(2, dim=-1)
    return first * F.gelu(gate)


class MappingBlock(nn.Module):
    """Feed-forward block of the condition."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.up_proj = nn.Linear(width, 2 * ratio * width, bias=False)
        self.down_proj = nn.Linear(ratio * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, width]."""
        return x + cast("Tensor", self.down_proj(geglu(self.up_proj(self.norm(x)))))


class Mapping(nn.Module):
    """From the embedded time to the condition of every layer."""

    def __init__(self, depth: int, width: int, ratio: int) -> None:
        super().__init__()
        self.in_norm = RMSNorm(width)
        self.blocks = nn.ModuleList(MappingBlock(width, ratio) for _ in range(depth))
        self.out_norm = RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, width]."""
        x = self.in_norm(x)
        for block in self.blocks:
            x = block(x)
        return cast("Tensor", self.out_norm(x))


class AxialPositions(nn.Module):
    """Angles of the rotary embedding: rows first, then columns."""

    freqs: Tensor

    def __init__(self, head_width: int, heads: int) -> None:
        super().__init__()
        count = head_width // 8
        steps = torch.linspace(math.log(math.pi), math.log(10 * math.pi), heads * count + 1)[:-1].exp()
        self.register_buffer("freqs", steps.view(count, heads).T.contiguous())

    def forward(self, positions: Tensor) -> Tensor:
        """Return [h, w, heads, head width / 4] of [h, w, 2]."""
        rows, columns = (positions[..., axis, None, None] * self.freqs for axis in (0, 1))
        return torch.cat([rows, columns], dim=-1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the first two quarters of each head as pairs; the rest stays.

    Args:
        x: [B, h, w, heads, d].
        angles: [h, w, heads, d/4].
    """
    quarter = angles.shape[-1]
    first, second, rest = x.split([quarter, quarter, x.shape[-1] - 2 * quarter], dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def unit(x: Tensor, scale: Tensor) -> Tensor:
    """Return heads [B, h, w, heads, d] of length sqrt(scale [heads])."""
    return x * (scale.sqrt()[:, None] * torch.rsqrt((x**2).sum(dim=-1, keepdim=True) + _EPS))


class SelfAttention(nn.Module):
    """Cosine attention with rotary positions, to all tokens or to a neighbourhood; the input is added.

    Args:
        width: channels.
        head_width: channels of a head.
        condition: channels of the condition.
        kernel: side of the neighbourhood; 0: all tokens.
    """

    def __init__(self, width: int, head_width: int, condition: int, kernel: int) -> None:
        super().__init__()
        self.heads = width // head_width
        self.kernel = kernel
        self.scale = nn.Parameter(torch.full([self.heads], 10.0))
        self.norm = AdaRMSNorm(width, condition)
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.pos_emb = AxialPositions(head_width, self.heads)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, positions: Tensor, condition: Tensor) -> Tensor:
        """Return [B, h, w, width]."""
        q, k, v = self.qkv_proj(self.norm(x, condition)).unflatten(-1, (3, self.heads, -1)).unbind(dim=-3)
        angles = self.pos_emb(positions)
        q, k = (rotate(unit(part, self.scale), angles) for part in (q, k))
        made = attend(q, k, v, self.kernel) if self.kernel else _attend_to_all(q, k, v)
        return x + cast("Tensor", self.out_proj(made.flatten(-2)))


def _attend_to_all(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    queries, keys, values = (part.flatten(1, 2).transpose(1, 2) for part in (q, k, v))
    made = F.scaled_dot_product_attention(queries, keys, values, scale=1.0)
    return made.transpose(1, 2).reshape(q.shape)


class FeedForward(nn.Module):
    """Feed-forward block of a map; the input is added."""

    def __init__(self, width: int, condition: int, ratio: int) -> None:
        super().__init__()
        self.norm = AdaRMSNorm(width, condition)
        self.up_proj = nn.Linear(width, 2 * ratio * width, bias=False)
        self.down_proj = nn.Linear(ratio * width, width, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return [B, h, w, width]."""
        return x + cast("Tensor", self.down_proj(geglu(self.up_proj(self.norm(x, condition)))))


class Layer(nn.Module):
    """Attention, then the feed-forward block."""

    def __init__(self, width: int, head_width: int, condition: int, kernel: int, ratio: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, head_width, condition, kernel)
        self.ff = FeedForward(width, condition, ratio)

    def forward(self, x: Tensor, positions: Tensor, condition: Tensor) -> Tensor:
        """Return [B, h, w, width]."""
        return cast("Tensor", self.ff(self.self_attn(x, positions, condition), condition))


class Level(nn.ModuleList):
    """The layers of one resolution."""

    def forward(self, x: Tensor, positions: Tensor, condition: Tensor) -> Tensor:
        """Return [B, h, w, width]."""
        for layer in self:
            x = layer(x, positions, condition)
        return x


def gather(x: Tensor, height: int, width: int) -> Tensor:
    """Return [B, H/height, W/width, height·width·C] of a map: each block's rows, columns, channels."""
    split: Tensor = x.unflatten(2, (-1, width)).unflatten(1, (-1, height))
    return split.transpose(2, 3).flatten(3)


def scatter(x: Tensor, height: int, width: int) -> Tensor:
    """Undo `gather`."""
    split: Tensor = x.unflatten(-1, (height, width, -1)).transpose(2, 3)
    return split.flatten(3, 4).flatten(1, 2)


class Merge(nn.Module):
    """Blocks of tokens, or of pixels, to one token each."""

    def __init__(self, inputs: int, outputs: int, height: int = 2, width: int = 2) -> None:
        super().__init__()
        self.block = (height, width)
        self.proj = nn.Linear(inputs * height * width, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, H/height, W/width, outputs]."""
        return cast("Tensor", self.proj(gather(x, *self.block)))


class PatchOut(nn.Module):
    """Each token to its pixels."""

    def __init__(self, inputs: int, outputs: int, height: int, width: int) -> None:
        super().__init__()
        self.block = (height, width)
        self.proj = nn.Linear(inputs, outputs * height * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, h·height, w·width, outputs]."""
        return scatter(self.proj(x), *self.block)


class Split(nn.Module):
    """Each token to four of the finer level, mixed with what skipped the coarser ones."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fac = nn.Parameter(torch.full([1], 0.5))
        self.proj = nn.Linear(inputs, outputs * 4, bias=False)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return [B, 2h, 2w, outputs]."""
        return torch.lerp(skip, scatter(self.proj(x), 2, 2), self.fac)


def centres(height: int, width: int, device: torch.device) -> Tensor:
    """Return the centres of cells, row and column, [h, w, 2]: the longer side of the map goes from −1 to 1."""
    longer = max(height, width)
    axes = []
    for count in (height, width):
        edges = torch.linspace(-count / longer, count / longer, count + 1, device=device)
        axes.append((edges[:-1] + edges[1:]) / 2)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


class HDiT(nn.Module):
    """The velocity of the flow, from an image and a time.

    Args:
        config: widths and depths.
    """

    def __init__(self, config: HDiTConfig) -> None:
        super().__init__()
        condition = config.mapping_width
        self.patch_in = Merge(3, config.widths[0], *config.patch_size)
        self.time_emb = Fourier(1, condition)
        self.time_in_proj = nn.Linear(condition, condition, bias=False)
        self.aug_emb = Fourier(_AUGMENTATIONS, condition)
        self.aug_in_proj = nn.Linear(condition, condition, bias=False)
        self.mapping = Mapping(config.mapping_depth, condition, config.ff_ratio)
        levels = list(zip(config.widths, config.depths, config.head_widths, config.kernels, strict=True))

        def level(width: int, depth: int, head: int, kernel: int) -> Level:
            return Level(Layer(width, head, condition, kernel, config.ff_ratio) for _ in range(depth))

        self.down_levels = nn.ModuleList(level(*one) for one in levels[:-1])
        self.up_levels = nn.ModuleList(level(*one) for one in levels[:-1])
        self.mid_level = level(*levels[-1])
        pairs = list(zip(config.widths, config.widths[1:], strict=False))
        self.merges = nn.ModuleList(Merge(fine, coarse) for fine, coarse in pairs)
        self.splits = nn.ModuleList(Split(coarse, fine) for fine, coarse in pairs)
        self.out_norm = RMSNorm(config.widths[0])
        self.patch_out = PatchOut(config.widths[0], 3, *config.patch_size)

    def forward(self, x: Tensor, time: float) -> Tensor:
        """Return [B, 3, H, W].

        Args:
            x: [B, 3, H, W].
            time: of the flow, 0 (start) to 1, the same for all.
        """
        x = self.patch_in(x.permute(0, 2, 3, 1))
        condition = self.condition(torch.full((len(x), 1), time, dtype=x.dtype, device=x.device))
        positions, skips = [centres(x.shape[1], x.shape[2], x.device)], []
        for level, merge in zip(self.down_levels, self.merges, strict=True):
            x = level(x, positions[-1], condition)
            skips.append(x)
            x = merge(x)
            positions.append(positions[-1].unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).mean(dim=(1, 3)))
        x = self.mid_level(x, positions.pop(), condition)
        for level, split in zip(reversed(self.up_levels), reversed(self.splits), strict=True):
            x = level(split(x, skips.pop()), positions.pop(), condition)
        return cast("Tensor", self.patch_out(self.out_norm(x)).permute(0, 3, 1, 2))

    def condition(self, time: Tensor) -> Tensor:
        """Return what every layer is told, [B, c] of times [B, 1]."""
        none = self.aug_emb(time.new_zeros(len(time), _AUGMENTATIONS))
        return cast("Tensor", self.mapping(self.time_in_proj(self.time_emb(time)) + self.aug_in_proj(none)))
