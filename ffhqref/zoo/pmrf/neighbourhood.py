"""Attention of each token to the square of tokens around it, tile by tile.

Hassani et al., "Neighborhood Attention Transformer", CVPR 2023: a query sees K x K keys; at the border the square is
shifted inwards, not cut. Queries are taken in tiles of up to 8 x 8, which share the keys of at most 14 x 14 (K = 7),
and a mask hides from each query what is not its own. That equals attention to everything under a mask, at 1 % of its
work for an image of 512 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F

TILE = 8
"""Largest side of a tile."""


@dataclass(frozen=True)
class Tiles:
    """How a map of one size is cut."""

    rows: torch.Tensor
    """int64 [n, R]: rows of the keys of each row of tiles."""
    columns: torch.Tensor
    """int64 [m, S]."""
    visible: torch.Tensor
    """bool [n·m, 1, queries, keys]."""
    height: int
    """Of a tile."""
    width: int


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kernel: int) -> torch.Tensor:
    """Return float [B, h, w, heads, d], with weights softmax(q · k) over each query's neighbourhood.

    Args:
        q: [B, h, w, heads, d]; h and w are at least ``kernel``.
        k: of the same shape.
        v: of the same shape.
        kernel: side of the neighbourhood.
    """
    batch, height, width, heads, _ = q.shape
    tiles = cut(height, width, kernel, str(q.device))
    down, across = height // tiles.height, width // tiles.width
    queries = q.reshape(batch, down, tiles.height, across, tiles.width, heads, -1)
    keys, values = (x[:, tiles.rows][:, :, :, tiles.columns] for x in (k, v))
    seen = tiles.visible.repeat(batch, 1, 1, 1)
    made = F.scaled_dot_product_attention(_flat(queries), _flat(keys), _flat(values), attn_mask=seen, scale=1.0)
    made = made.transpose(1, 2).reshape(batch, down, across, tiles.height, tiles.width, heads, -1)
    return made.transpose(2, 3).reshape(q.shape)


def _flat(x: torch.Tensor) -> torch.Tensor:
    """Return [B·n·m, heads, a·b, d] of [B, n, a, m, b, heads, d]."""
    batch, down, rows, across, columns, heads, width = x.shape
    ordered = x.permute(0, 1, 3, 5, 2, 4, 6)
    return ordered.reshape(batch * down * across, heads, rows * columns, width)


@lru_cache(maxsize=16)
def cut(height: int, width: int, kernel: int, device: str) -> Tiles:
    """Return the tiles of a map.

    Args:
        height: of the map in tokens.
        width: likewise.
        kernel: side of the neighbourhood.
        device: where the tensors lie.
    """
    rows, row_seen = _along(height, kernel)
    columns, column_seen = _along(width, kernel)
    # [n, queries of a row, keys of a row] and the same of columns
    seen = row_seen[:, None, :, None, :, None] & column_seen[None, :, None, :, None, :]
    flat = seen.flatten(0, 1).flatten(1, 2).flatten(2, 3)
    return Tiles(rows.to(device), columns.to(device), flat[:, None].to(device), row_seen.shape[1], column_seen.shape[1])


def _along(length: int, kernel: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the keys of each tile along one axis, int64 [n, R], and what each query sees of them, bool [n, T, R]."""
    tile = math.gcd(length, TILE)
    reach = min(tile + kernel - 1, length)
    first = torch.arange(0, length, tile)
    keys = (first - kernel // 2).clamp(0, length - reach)[:, None] + torch.arange(reach)
    queries = first[:, None] + torch.arange(tile)
    start = (queries - kernel // 2).clamp(0, length - kernel)[..., None]
    return keys, (keys[:, None] >= start) & (keys[:, None] < start + kernel)
