"""Layers that the first stage and the U-Net share."""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)

NORM_GROUPS = 32
_CACHED_VALUES = 1 << 19  # float32 values (2 MiB) that stay in a core's cache while they are summed twice


class Norm(nn.GroupNorm):
    """Group norm whose statistics are as exact in the channels_last layout as in the plain one.

    For channels_last on the CPU torch adds up squares in float32 without pairing, which loses two digits on smooth
    images and all of them on constant ones (the null references of guidance are constant). There, and where no
    gradient is wanted, deviations from the first rows' mean are summed in double instead.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normed tensor, [B, C, H, W]."""
        plain = x.device.type != "cpu" or x.dtype != torch.float32 or x.is_contiguous()
        if plain or torch.is_grad_enabled() or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        mean, variance = self._moments(x)
        each = x.shape[1] // self.num_groups
        scale = (variance + self.eps).rsqrt().repeat_interleave(each, dim=1) * self.weight.double()
        shift = self.bias.double() - mean.repeat_interleave(each, dim=1) * scale
        return torch.addcmul(shift.float()[:, :, None, None], x, scale.float()[:, :, None, None])

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each group, float64 [B, groups]."""
        batch, channels, height, width = x.shape
        rows = max(1, _CACHED_VALUES // (channels * width))
        base = x[:, :, :rows].mean(dim=(2, 3), keepdim=True)
        first = torch.zeros(batch, channels, dtype=torch.float64)
        second = torch.zeros_like(first)
        for start in range(0, height, rows):
            deviation = x[:, :, start : start + rows] - base
            first += deviation.sum(dim=(2, 3))
            second += deviation.square_().sum(dim=(2, 3))
        offset = first / (height * width)
        variance = second / (height * width) - offset**2
        means = (base.flatten(1).double() + offset).view(batch, self.num_groups, -1)
        mean = means.mean(dim=2)
        within = variance.view(batch, self.num_groups, -1) + (means - mean.unsqueeze(2)) ** 2
        return mean, within.mean(dim=2).clamp(min=0.0)


def norm(channels: int, eps: float) -> Norm:
    """Return the group norm of both networks; ``eps`` is 1e-6 in the first stage and 1e-5 in the U-Net."""
    return Norm(NORM_GROUPS, channels, eps=eps)


def silu(x: Tensor) -> Tensor:
    """Return SiLU of a tensor that nobody else holds: in place when no gradient is wanted, to spare memory."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def zeroed(layer: nn.Conv1d | nn.Conv2d) -> nn.Conv1d | nn.Conv2d:
    """Set a layer to zero, the start of a residual branch in the U-Net."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def laid_out(module: M, memory_format: torch.memory_format) -> M:
    """Return the module with its convolution weights in a memory layout."""
    return cast("M", module.to(memory_format=memory_format))  # type: ignore[call-overload]


def tokens(x: Tensor) -> Tensor:
    """Return [B, C, H, W] as [B, H·W, C]; free of copies for channels_last tensors."""
    return x.flatten(2).transpose(1, 2)


def picture(x: Tensor, height: int, width: int) -> Tensor:
    """Return tokens [B, H·W, C] as [B, C, H, W], channels_last."""
    made: Tensor = x.transpose(1, 2).unflatten(2, (height, width))
    return made
