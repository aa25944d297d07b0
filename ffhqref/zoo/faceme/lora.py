"""PhotoMaker's LoRA in SDXL's U-Net, which FaceMe's published code loads and never applies.

infer.py (commit 8973f65) renames the tensors correctly and assigns them to a loop variable; train.py and demo.py copy
without the renaming, so that no name matches. The released weights were thus trained, and their results made, without
it. Merged here is what the repaired assignment would merge: W + up · down, of rank 64 and scale 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.errors import WeightsError

if TYPE_CHECKING:
    import torch
    from torch import nn

_LAYERS = {"to_q": "to_q_lora", "to_k": "to_k_lora", "to_v": "to_v_lora", "to_out.0": "to_out_lora"}


def lora_shapes(unet: nn.Module, rank: int = 64) -> dict[str, list[int]]:
    """Return name and shape of every tensor that a PhotoMaker LoRA of this U-Net has."""
    return {
        f"{name}.{side}.weight": shape
        for name, weight in _targets(unet).items()
        for side, shape in (("down", [rank, weight.shape[1]]), ("up", [weight.shape[0], rank]))
    }


def merge_lora(unet: nn.Module, tensors: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Add a LoRA to every attention layer of a U-Net, for good.

    Args:
        unet: diffusers' U-Net; its weights are replaced, in their own type.
        tensors: ``lora_weights`` of ``photomaker-v1.bin``.
        path: where they came from, for messages.

    Raises:
        WeightsError: tensors are missing, left over, or of another shape.
    """
    first = next((value for name, value in tensors.items() if name.endswith(".down.weight")), None)
    expected = lora_shapes(unet, 0 if first is None else int(first.shape[0]))
    missing = [name for name in expected if name not in tensors]
    foreign = [name for name in tensors if name not in expected]
    shapes = [name for name in expected if name in tensors and list(tensors[name].shape) != expected[name]]
    for names, what in ((missing, "missing"), (foreign, "unknown"), (shapes, "of another shape")):
        if names:
            raise WeightsError(f"{path}: LoRA does not fit the U-Net: {len(names)} tensors {what} (first: {names[0]})")
    for name, weight in _targets(unet).items():
        up, down = (tensors[f"{name}.{side}.weight"].float() for side in ("up", "down"))
        weight.data = (weight.float() + up @ down).to(weight.dtype)


def _targets(unet: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that a LoRA changes, by the stem of its names."""
    weights = dict(unet.named_parameters())
    found = {}
    for name in weights:
        if name.endswith(".to_q.weight"):
            attention = name.removesuffix(".to_q.weight")
            for layer, stem in _LAYERS.items():
                found[f"unet.{attention}.processor.{stem}"] = weights[f"{attention}.{layer}.weight"]
    return found
