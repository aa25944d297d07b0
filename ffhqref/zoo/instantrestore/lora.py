"""LoRA layers beside their base layers, so that the base weights can be those of another network too.

Names of tensors are peft's. The adapter is added at run time, as in the published run; merging it for good would
double the memory of every base weight that two networks share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

UNET_LAYERS = (
    "to_q", "to_k", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_out", "proj_in", "proj_out",
    "ff.net.0.proj", "ff.net.2",
)  # fmt: skip
VAE_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_in", "conv_out")
"""Last parts of the names of the layers that have an adapter."""


class LoRALayer(nn.Module):
    """A linear or convolutional layer plus ``rank // 2 / rank`` times its adapter.

    Args:
        base: the layer.
        rank: of the adapter.
        adapter: its name in the tensors' names.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, adapter: str) -> None:
        super().__init__()
        down: nn.Module
        up: nn.Module
        if isinstance(base, nn.Conv2d):
            shape = {"kernel_size": base.kernel_size, "stride": base.stride, "padding": base.padding}
            down = nn.Conv2d(base.in_channels, rank, bias=False, **shape)  # type: ignore[arg-type]
            up = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        else:
            down = nn.Linear(base.in_features, rank, bias=False)
            up = nn.Linear(rank, base.out_features, bias=False)
        self.base_layer = base
        self.lora_A = nn.ModuleDict({adapter: down})
        self.lora_B = nn.ModuleDict({adapter: up})
        self._adapter = adapter
        self._scale = (rank // 2) / rank

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, by the cheaper of two ways: the weight is changed for this call, or the output."""
        base = self.base_layer
        down: Any = self.lora_A[self._adapter]
        up: Any = self.lora_B[self._adapter]
        if x.numel() // down.weight.shape[1] < len(up.weight):  # fewer positions than output channels
            return torch.add(base(x), up(down(x)), alpha=self._scale)
        change = (up.weight.flatten(1) @ down.weight.flatten(1)).view_as(base.weight)
        weight = torch.add(base.weight, change, alpha=self._scale)
        if isinstance(base, nn.Conv2d):
            return F.conv2d(x, weight, base.bias, base.stride, base.padding)
        return F.linear(x, weight, base.bias)


def add_lora(network: nn.Module, layers: Sequence[str], rank: int, adapter: str) -> None:
    """Put adapters beside all layers of a network whose names end as given."""
    found = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and any(f".{name}".endswith(f".{end}") for end in layers)
    ]
    for name, layer in found:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, LoRALayer(layer, rank, adapter))
