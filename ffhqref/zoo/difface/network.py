"""The network of DifFace's first estimate: spandrel's SwinIR."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import DependencyError

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.difface.config import SwinIRConfig


def build_swinir(config: SwinIRConfig) -> torch.nn.Module:
    """Return spandrel's SwinIR of that architecture, with random weights.

    Raises:
        DependencyError: spandrel is not installed.
    """
    ensure_torchvision()
    try:
        from spandrel.architectures.SwinIR import SwinIR
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"restorer 'difface' needs the package '{error.name}', which is not installed: pip install 'ffhqref[zoo]'"
        ) from None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid")  # its call is the older form, which still holds
        network: torch.nn.Module = SwinIR(
            img_size=config.img_size,
            embed_dim=config.embed_dim,
            depths=list(config.depths),
            num_heads=list(config.num_heads),
            window_size=config.window_size,
            mlp_ratio=config.mlp_ratio,
            upscale=config.sf,
            img_range=config.img_range,
            upsampler="nearest+conv",
            start_unshuffle=config.unshuffle_scale,
        )
    return network


def spandrel_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the published tensors under spandrel's names, where the unshuffling is no layer of its own."""
    return {name.replace("conv_first.1.", "conv_first."): value for name, value in tensors.items()}
