"""Modulated deformable convolution (Zhu et al., 2018, arXiv 1811.11168), with and without torchvision's operator.

Used by both versions of VQFR. Offsets, masks and weights are laid out as torchvision's ``deform_conv2d`` takes them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CHUNK = 2**22
"""Sampled values held at once by the plain path; 512x512 with 64 channels would be 604 MB otherwise."""


class DeformConv(nn.Module):
    """3x3 deformable convolution that takes its offsets and masks from a feature of their own.

    Args:
        channels: of the input and the output.
        groups: groups of input channels with an offset and a mask each.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) / (channels * 9) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv_offset = nn.Conv2d(channels, groups * 27, 3, padding=1)

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        """Return [B, C, H, W] from the input and the offset feature of the same shape."""
        maps = self.conv_offset(feature)
        offset, mask = maps.split([maps.shape[1] * 2 // 3, maps.shape[1] // 3], dim=1)
        return deform_conv2d(x, offset, mask.sigmoid(), self.weight, self.bias)


def deform_conv2d(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve at shifted and weighted positions, stride 1, padded to the input's size.

    torchvision's operator is used where it works (`ffhqref.core.compat`), plain torch elsewhere.

    Args:
        x: [B, C, H, W].
        offset: [B, 2·G·k·k, H, W] in pixels: for each of G groups and k·k kernel places, y then x.
        mask: [B, G·k·k, H, W], factors of the sampled values.
        weight: [out, C, k, k], k odd.
        bias: [out].

    Returns:
        [B, out, H, W]. Outside the image values are zero, corner by corner of the bilinear sampling.
    """
    operator = _operator(x.device.type)
    if operator is not None:
        made: Tensor = operator(x, offset, weight, bias, padding=weight.shape[2] // 2, mask=mask)
        return made
    return plain_deform_conv2d(x, offset, mask, weight, bias)


@cache
def _operator(device: str) -> Any:
    """Return torchvision's function, or None where torchvision or its compiled part for the device is missing."""
    from ffhqref.core.compat import ensure_torchvision

    if ensure_torchvision() != "native":
        return None
    from torchvision.ops import deform_conv2d as operator

    try:
        one = torch.zeros(1, 1, 1, 1, device=device)
        operator(one, one.expand(1, 2, 1, 1), one)
    except (RuntimeError, NotImplementedError):
        return None
    return operator


def plain_deform_conv2d(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Do what `deform_conv2d` does in plain torch, on any device, some rows at a time."""
    batch, channels, height, width = x.shape
    size = weight.shape[2]
    taps = size * size
    groups = mask.shape[1] // taps
    place = torch.arange(taps, device=x.device)
    place_y, place_x = place.div(size, rounding_mode="floor") - size // 2, place % size - size // 2
    offset = offset.view(batch, groups, taps, 2, height, width)
    mask = mask.view(batch, groups, 1, taps, height, width)
    step = max(1, _CHUNK // (batch * channels * taps * width))
    made = []
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        row = torch.arange(rows.start, rows.stop, device=x.device)
        column = torch.arange(width, device=x.device)
        at_y = offset[:, :, :, 0, rows] + (place_y[:, None, None] + row[:, None])
        at_x = offset[:, :, :, 1, rows] + (place_x[:, None, None] + column)
        # −1 and 1 are the outer edges of the outer pixels for grid_sample
        grid = torch.stack([(2 * at_x + 1) / width - 1, (2 * at_y + 1) / height - 1], dim=-1)
        sampled = F.grid_sample(
            x.reshape(batch * groups, channels // groups, height, width),
            grid.view(batch * groups, taps * len(row), width, 2),
            mode="bilinear", padding_mode="zeros", align_corners=False,
        )  # fmt: skip
        values = sampled.view(batch, groups, channels // groups, taps, len(row), width) * mask[:, :, :, :, rows]
        product = weight.flatten(1) @ values.reshape(batch, channels * taps, len(row) * width)
        made.append(product.view(batch, -1, len(row), width))
    return torch.cat(made, dim=2) + bias.view(1, -1, 1, 1)
