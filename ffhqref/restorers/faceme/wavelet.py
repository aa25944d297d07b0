"""Wavelet colour transfer: fine detail of one picture on the coarse colours of another.

As in StableSR's and FaceMe's published code (utils/wavelet_color_fix.py): five levels of an undecimated pyramid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LEVELS = 5


def transfer_colours(detail: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Return the high frequencies of ``detail`` on the low ones of ``colours``, not clamped.

    Args:
        detail: float [B, 3, H, W] in any range.
        colours: of the same shape and range.
    """
    return _split(detail)[0] + _split(colours)[1]


def _split(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return high and low frequencies; they add up to the picture."""
    import torch

    high = torch.zeros_like(picture)
    for level in range(LEVELS):
        low = _blur(picture, 2**level)
        high = high + (picture - low)
        picture = low
    return high, picture


def _blur(picture: torch.Tensor, radius: int) -> torch.Tensor:
    import torch
    from torch.nn import functional as F

    line = torch.tensor([0.25, 0.5, 0.25], dtype=picture.dtype, device=picture.device)
    channels = picture.shape[1]
    kernel = torch.outer(line, line).expand(channels, 1, 3, 3)
    padded = F.pad(picture, (radius,) * 4, mode="replicate")
    return F.conv2d(padded, kernel, groups=channels, dilation=radius)
