"""Layers that the first stage and the U-Net share."""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)

NORM_GROUPS = 32


def norm(channels: int, eps: float) -> nn.GroupNorm:
    """Return the group norm of both networks; ``eps`` is 1e-6 in the first stage and 1e-5 in the U-Net."""
    return nn.GroupNorm(NORM_GROUPS, channels, eps=eps)


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
    return x.transpose(1, 2).unflatten(2, (height, width))
