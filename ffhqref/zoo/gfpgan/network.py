"""The network of GFPGAN: spandrel's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.gfpgan.config import GFPGANConfig


def build_network(config: GFPGANConfig) -> torch.nn.Module:
    """Return spandrel's ``GFPGANv1Clean`` with random weights; it takes and gives [B, 3, side, side] in −1..1."""
    from ffhqref.core.compat import ensure_torchvision

    ensure_torchvision()
    from spandrel.architectures import GFPGAN as module  # noqa: N811

    network: torch.nn.Module = module.GFPGAN(**dataclasses.asdict(config))
    return network
