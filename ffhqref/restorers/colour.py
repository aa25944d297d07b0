"""Taking the colours of one image over to another, as diffusion restorers do with those of their input.

Both ways come with StableSR (Wang et al., 2023, ``scripts/wavelet_color_fix.py``); DiffBIR, FaceMe, MeInTime and
RestorerID use them in the same form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LEVELS = 5
"""Of the wavelet transfer, in all of these methods."""

EPSILON = 1e-5
"""Added to the variances of the AdaIN transfer, on images of −1..1."""


def wavelet_transfer(pictures: torch.Tensor, colours: torch.Tensor, levels: int = LEVELS) -> torch.Tensor:
    """Return images with their own details and the low frequencies of others.

    Each level blurs with the kernel [1 2 1]⊗[1 2 1] / 16, its taps 2^level pixels apart, borders repeated; what the
    levels take away is the detail, what is left after the last the low frequencies.

    Args:
        pictures: float [B, 3, H, W], details come from here.
        colours: the same shape and value range, low frequencies come from here.
        levels: at least 1; 5 blurs over about 64 pixels.

    Returns:
        Float [B, 3, H, W], not clamped.
    """
    return _split(pictures, levels)[0] + _split(colours, levels)[1]


def adain_transfer(pictures: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Return images whose channels have the mean and the standard deviation (unbiased) of others'.

    Args:
        pictures: float [B, 3, H, W] in 0..1.
        colours: the same; mean and deviation come from here.

    Returns:
        Float [B, 3, H, W], not clamped.
    """
    own, others = pictures * 2 - 1, colours * 2 - 1  # the published scripts work on −1..1, and epsilon belongs to it
    mean, spread = _statistics(own)
    wanted_mean, wanted_spread = _statistics(others)
    return ((own - mean) / spread * wanted_spread + wanted_mean + 1) / 2


def _split(pictures: torch.Tensor, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return details and low frequencies, which add up to the images.

    Details are summed level by level as in the published code: its callers cut off to 8 bit, and the last bit counts.
    """
    import torch
    from torch.nn import functional

    taps = torch.tensor([0.25, 0.5, 0.25], dtype=pictures.dtype, device=pictures.device)
    kernel = torch.outer(taps, taps).expand(pictures.shape[1], 1, 3, 3)
    details = torch.zeros_like(pictures)
    for level in range(levels):
        step = 2**level
        padded = functional.pad(pictures, (step, step, step, step), mode="replicate")
        low = functional.conv2d(padded, kernel, groups=pictures.shape[1], dilation=step)
        details = details + (pictures - low)
        pictures = low
    return details, pictures


def _statistics(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    variance = pictures.var(dim=(2, 3), keepdim=True, unbiased=True)
    return pictures.mean(dim=(2, 3), keepdim=True), (variance + EPSILON).sqrt()
