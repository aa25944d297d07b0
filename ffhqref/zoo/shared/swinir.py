"""SwinIR as DifFace trained it, for DifFace and PMRF: spandrel's network and its architecture."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    import torch


# What spandrel's class does not build otherwise, or what the published class is always given.
FIXED_SWINIR: dict[str, object] = {
    "patch_size": 1, "in_chans": 3, "upsampler": "nearest+conv", "resi_connection": "1conv", "unshuffle": True,
}  # fmt: skip


@dataclass(frozen=True)
class SwinIRConfig:
    """SwinIR as DifFace trained it. Defaults: the released one."""

    img_size: int = 64
    """Nominal side after the entrance, which takes the image down by `unshuffle_scale`."""
    embed_dim: int = 180
    depths: tuple[int, ...] = (6,) * 8
    num_heads: tuple[int, ...] = (6,) * 8
    window_size: int = 8
    mlp_ratio: float = 2.0
    sf: int = 8
    """Enlargement at the end, which undoes the entrance."""
    img_range: float = 1.0
    unshuffle_scale: int = 8

    def __post_init__(self) -> None:
        if self.sf != self.unshuffle_scale:
            raise ConfigError(f"SwinIR config: sf={self.sf} must equal unshuffle_scale={self.unshuffle_scale}")
        if len(self.depths) != len(self.num_heads):
            raise ConfigError(f"SwinIR config: {len(self.depths)} depths and {len(self.num_heads)} num_heads")


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
            f"SwinIR needs the package '{error.name}', which is not installed: pip install 'ffhqref[zoo]'"
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
