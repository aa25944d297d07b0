"""Running averages of parameters, as the published sampler uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ffhqref.training.files import State


class RunningAverage:
    """Averages of a module's parameters whose decay rises from 0.18 to its limit, as latent-diffusion's does.

    Args:
        module: whose parameters are averaged.
        decay: the limit; at the n-th update it is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters()
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the module's parameters into the averages."""
        self.updates += 1
        share = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in module.named_parameters():
            self.values[name].lerp_(parameter.detach(), share)

    def state_dict(self) -> State:
        """Return what `load_state_dict` takes."""
        return {"updates": self.updates, "values": self.values}

    def load_state_dict(self, state: State) -> None:
        """Take up saved averages."""
        self.updates = int(state["updates"])
        for name, value in self.values.items():
            value.copy_(state["values"][name])
