"""OSDFace's LoRA in the U-Net of Stable Diffusion: W + scale · B · A, for matrices and for convolutions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ffhqref.core.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from ffhqref.weights.files import Weights

log = logging.getLogger(__name__)

_PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora.down.weight", ".lora.up.weight"))
"""Endings of the names: first factor, second factor."""


def merge_lora(unet: nn.Module, tensors: Mapping[str, torch.Tensor], path: Weights | Path, scale: float) -> None:
    """Add a LoRA to the layers of a U-Net for good. The file decides which layers it changes.

    As published, a convolution under the older names (``.lora.down.weight``) is passed over, with a warning.

    Args:
        unet: its weights are replaced, in their own type.
        tensors: ``unet.<layer>.lora_A.weight``, ``unet.<layer>.lora_B.weight``, or the older names.
        path: where they came from, for messages.
        scale: alpha over rank.

    Raises:
        WeightsError: tensors without their pair, of an unknown layer, or of a shape that does not fit.
    """
    weights = dict(unet.named_parameters())
    used: set[str] = set()
    for first, second in _PAIRS:
        for name in [name for name in tensors if name.endswith(first)]:
            layer = name.removesuffix(first)
            other, target = layer + second, weights.get(layer.removeprefix("unet.") + ".weight")
            if not layer.startswith("unet.") or target is None or other not in tensors:
                raise WeightsError(f"{path}: LoRA does not fit the U-Net: {name} has no layer or no {second[1:]}")
            used |= {name, other}
            if target.dim() == 4 and first == ".lora.down.weight":
                log.warning("%s: LoRA of the convolution %s is passed over, as published", path, layer)
                continue
            change = _product(tensors[name].float(), tensors[other].float(), target.shape)
            if change is None:
                shapes = [list(tensors[key].shape) for key in (name, other)]
                raise WeightsError(
                    f"{path}: LoRA does not fit the U-Net: {layer} of shapes {shapes}, for {list(target.shape)}"
                )
            target.data = (target.data.float() + scale * change).to(target.dtype)
    if not used or len(used) < len(tensors):
        foreign = next((name for name in tensors if name not in used), "none at all")
        raise WeightsError(f"{path}: LoRA does not fit the U-Net: unknown tensors (first: {foreign})")


def _product(first: torch.Tensor, second: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
    """Return B · A of that shape, of matrices [r, in] and [out, r] or kernels [r, in, k, k] and [out, r, 1, 1].

    None where they do not make it.
    """
    if (second.shape[0], *first.shape[1:]) != tuple(shape) or second.shape[1:].numel() != first.shape[0]:
        return None
    return (second.flatten(1) @ first.flatten(1)).reshape(shape)
