"""The restorer `gpen`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.images import SIZE
from ffhqref.restorers.base import RestorerInfo
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.gpen.config import GPENConfig
from ffhqref.zoo.shared.aligned import AlignedRestorer
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.network import ready, signed, unsigned

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.gpen.network import FullGenerator

WEIGHTS = "gpen-bfr-512"

INFO = RestorerInfo(
    name="gpen",
    summary="StyleGAN2 generator whose noise inputs are the maps of an encoder of the LQ image",
    licence="none stated (weights); the implementation is Apache-2.0",
    commercial_use=False,
    trained_on=("FFHQ",),
    paper="Yang et al., GPEN, CVPR 2021, arXiv 2105.06070",
    weights=(WEIGHTS,),
    verified_against="outputs of the published code on random weights, reduced and full size, within 1e-5 relative",
)


class GPEN(AlignedRestorer):
    """GPEN-BFR-512 as the published script runs it on aligned faces: no super-resolution stage, result as it comes.

    Args:
        path: ``GPEN-BFR-512.pth`` as released; None: from the weight registry.
        config: arguments of another architecture than the released one, as `GPENConfig`, mapping, or JSON or YAML
            file (GPEN-BFR-256: ``{"size": 256, "channel_multiplier": 1, "narrow": 0.5}``).
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the architecture is not one.
        WeightsError: the file is missing, damaged, or of another architecture.
    """

    info = INFO
    quantization = "truncate"
    """The published script cuts off (restorers.md section 2, hazard 7)."""

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: GPENConfig | Mapping[str, Any] | str | Path | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__({WEIGHTS: path}, device)
        self.config = read_architecture(GPENConfig, config)
        self.side = self.config.size
        self.info = replace(INFO, input_size=self.side if self.side == SIZE else None)

    @cached_property
    def network(self) -> FullGenerator:
        """The network with its weights, loaded on first use.

        Raises:
            WeightsError: the file is damaged or does not fit the architecture.
        """
        from ffhqref.zoo.gpen.network import FullGenerator

        path = self.files[WEIGHTS]
        return ready(FullGenerator(self.config), load_tensors(path), path, self.device)

    def _restored(self, face: torch.Tensor, seed: int) -> torch.Tensor:  # noqa: ARG002 - it draws nothing
        return unsigned(self.network(signed(face.to(self.device))))
