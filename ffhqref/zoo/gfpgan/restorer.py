"""GFPGAN 1.2, 1.3 and 1.4 (the "clean" architecture) with their released weights, on spandrel's network.

Wang et al., "Towards Real-World Blind Face Restoration with Generative Facial Prior", CVPR 2021. A U-Net turns the
face into style codes and feature modulations of a StyleGAN2 decoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.images import SIZE
from ffhqref.restorers.base import RestorerInfo
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.gfpgan.config import GFPGANConfig
from ffhqref.zoo.gfpgan.network import build_network
from ffhqref.zoo.shared.aligned import AlignedRestorer, need_package
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.network import ready, signed, unsigned

if TYPE_CHECKING:
    import torch

RELEASES = ("1.2", "1.3", "1.4")
NOISES = ("case", "stored")

INFO = RestorerInfo(
    name="gfpgan",
    summary="U-Net that steers a StyleGAN2 decoder",
    uses_seed=True,
    licence="Apache-2.0",
    trained_on=("FFHQ",),
    recognisers=("arcface-grey-r18-gfpgan",),
    paper="arXiv:2101.04061",
    weights=("gfpgan-1.3",),
    verified_against="outputs of the published code on random weights, small and full size: within 1e-4 relative",
)


class GFPGAN(AlignedRestorer):
    """GFPGAN on aligned faces, as ``inference_gfpgan.py --aligned`` runs it.

    Its decoder adds noise. The published script draws it afresh and unseeded for every face; here the draws of a
    case come from its own seed, in the published order, so that a run can be repeated. The script's ``--weight``
    has no influence on this architecture and is not offered.

    Args:
        path: ``GFPGANv1.3.pth`` or a file of the same layout; None: `release`, from the weight registry.
        config: widths of another file: a `GFPGANConfig`, a mapping of its fields, or a JSON or YAML file with one.
        release: ``1.2``, ``1.3`` (the script's default) or ``1.4``.
        noise: ``case``: drawn on the CPU from the case's seed; ``stored``: the maps in the file, no randomness.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: an unknown release, noise or width.
        DependencyError: spandrel is not installed.
        WeightsError: the file is missing, damaged, or not the published one.
    """

    info = INFO

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: GFPGANConfig | Mapping[str, Any] | str | Path | None = None,
        release: str | float = "1.3",
        noise: str = "case",
        device: str = "auto",
    ) -> None:
        if str(release) not in RELEASES:
            raise ConfigError(f"restorer gfpgan: release={release!r}, expected one of {', '.join(RELEASES)}")
        if noise not in NOISES:
            raise ConfigError(f"restorer gfpgan: noise={noise!r}, expected one of {', '.join(NOISES)}")
        need_package("gfpgan", "spandrel", "zoo")
        self.config = read_architecture(GFPGANConfig, config)
        self.side = self.config.out_size
        self.noise = noise
        self._file = f"gfpgan-{release}"
        super().__init__({self._file: path}, device)
        self.info = dataclasses.replace(
            INFO,
            weights=(self._file,),
            uses_seed=noise == "case",
            input_size=self.side if self.side == SIZE else None,
        )

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network with its weights, in evaluation mode on the device."""
        file = self.files[self._file]
        return ready(
            build_network(self.config), load_tensors(file, wrappers=("params_ema", "params")), file, self.device
        )

    def _restored(self, face: torch.Tensor, seed: int) -> torch.Tensor:
        import torch

        # a draw takes the place of the stored map, so that nothing depends on the global generator
        drawn = {name: noise.to(self.device) for name, noise in self.noise_maps(seed).items()}
        options = {"randomize_noise": False, "return_rgb": False}
        raw, _ = torch.func.functional_call(self.network, drawn, (signed(face.to(self.device)),), options)
        return unsigned(raw)

    def noise_maps(self, seed: int) -> dict[str, torch.Tensor]:
        """Return what is drawn for a case: float32 [1, 1, h, h] by the name of the map it takes the place of.

        Maps are standard normal, one for each style convolution in the order of execution (4, 8, 8, 16, 16, …): what
        ``torch.manual_seed(seed)`` and the published network's own draws on the CPU give.
        """
        if self.noise == "stored":
            return {}
        import torch

        generator = torch.Generator().manual_seed(seed)
        heights = [2 ** ((index + 5) // 2) for index in range(2 * self.side.bit_length() - 5)]
        return {
            f"stylegan_decoder.noises.noise{index}": torch.empty(1, 1, height, height).normal_(generator=generator)
            for index, height in enumerate(heights)
        }
