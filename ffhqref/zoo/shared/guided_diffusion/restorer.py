"""What DifFace, DR2 and PGDiff share as restorers: draws, sides, and how networks are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.images import SIZE
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.shared.guided_diffusion.draws import Draws, SeededDraws
from ffhqref.zoo.shared.network import NetworkRestorer, ready

if TYPE_CHECKING:
    import torch

    from ffhqref.restorers.base import RestorationBatch
    from ffhqref.weights.files import Weights
    from ffhqref.zoo.shared.guided_diffusion.config import GuidedUNetConfig
    from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet


class DiffusionRestorer(NetworkRestorer):
    """Base of the family. A method says what it makes of a batch at its own side; sizes are put right here.

    Attributes:
        diffusion_side: S of the draws [3, S, S].
    """

    diffusion_side: int

    def restored(self, batch: RestorationBatch, draws: Draws) -> torch.Tensor:
        """Return what the published script would write: float32 [B, 3, S, S] in 0..1, at the method's own side."""
        raise NotImplementedError

    def draws(self, batch: RestorationBatch) -> Draws:
        """Return the draws of a batch, from its cases' seeds."""
        return SeededDraws(batch.seeds, (3, self.diffusion_side, self.diffusion_side), self.device)

    def restore(self, batch: RestorationBatch, draws: Draws | None = None) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB on the CPU; see `base.Restorer`.

        Images of another side than the method's are resized back bicubically with antialiasing.

        Args:
            batch: the cases.
            draws: in place of those from the cases' seeds, for instance stored by the published code.
        """
        import torch

        with torch.no_grad():
            made = self.restored(batch, draws or self.draws(batch))
            return resize_antialiased(made, tuple(batch.lq.shape[-2:])).clamp(0.0, 1.0).cpu()


def resize_antialiased(pictures: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Return images [B, 3, H, W] at another size, bicubic with antialiasing, not clamped; none where it is theirs."""
    from torch.nn import functional as F

    if tuple(pictures.shape[-2:]) == size:
        return pictures
    return F.interpolate(pictures, size=size, mode="bicubic", antialias=True, align_corners=False)


def input_size(side: int) -> int | None:
    """Return what ``RestorerInfo.input_size`` says of a network of this side: narrow ones take any size."""
    return side if side == SIZE else None


def loaded(
    build: Callable[[], torch.nn.Module], tensors: Mapping[str, torch.Tensor], path: Weights | Path, device: str
) -> torch.nn.Module:
    """Return a network with the tensors in it, ready to use; nothing is initialised that the file overwrites.

    Raises:
        WeightsError: the tensors do not fit.
    """
    import torch

    with torch.device("meta"):
        network = build()
    network.to_empty(device="cpu")
    return ready(network, tensors, path, device)


def load_unet(path: Weights | Path, config: GuidedUNetConfig, device: str) -> GuidedUNet:
    """Return the denoiser of a published file, which names its tensors with or without ``module.`` in front.

    Raises:
        WeightsError: damaged, or of another network.
    """
    from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

    network = loaded(lambda: GuidedUNet(config), load_tensors(path, prefix="module."), path, device)
    assert isinstance(network, GuidedUNet)
    return network
