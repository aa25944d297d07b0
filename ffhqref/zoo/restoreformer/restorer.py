"""RestoreFormer and RestoreFormer++ with their released weights, on spandrel's network.

Wang et al., "RestoreFormer: High-Quality Blind Face Restoration From Undegraded Key-Value Pairs", CVPR 2022, and
"RestoreFormer++", TPAMI 2023. A vector-quantised auto-encoder whose decoder attends to itself with queries from the
degraded face. The second differs from the first in the number of heads (4, not 8) and in attending at 32 pixels as
well as at 16 in the decoder; spandrel knows only the first, whose modules serve both here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.images import SIZE
from ffhqref.restorers.base import RestorerInfo
from ffhqref.weights.files import find
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.restoreformer.config import RestoreFormerConfig, RestoreFormerPPConfig
from ffhqref.zoo.restoreformer.network import build_network, run_network
from ffhqref.zoo.shared.aligned import AlignedRestorer, need_package
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.network import ready, signed, unsigned

if TYPE_CHECKING:
    import torch


class RestoreFormer(AlignedRestorer):
    """RestoreFormer on aligned faces, as the published ``inference.py --aligned`` runs it.

    Args:
        path: ``RestoreFormer.ckpt`` as the authors released it, ``RestoreFormer.pth`` as GFPGAN's authors released
            the same weights again, or a file of either layout; None: the first of the two that the weight registry
            finds.
        config: widths of another file: a `RestoreFormerConfig`, a mapping of its fields, or a JSON or YAML file
            with one.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: an unknown or impossible width.
        DependencyError: spandrel is not installed.
        WeightsError: the file is missing, damaged, or not the published one.
    """

    info = RestorerInfo(
        name="restoreformer",
        summary="Vector-quantised auto-encoder, queries from the degraded face",
        licence="Apache-2.0",
        trained_on=("FFHQ",),
        paper="arXiv:2201.06374",
        weights=("restoreformer", "restoreformer-ckpt"),
        verified_against="outputs of the published code on random weights, small and full size: within 1e-4 relative",
    )
    _architecture: type[RestoreFormerConfig] = RestoreFormerConfig

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: RestoreFormerConfig | Mapping[str, Any] | str | Path | None = None,
        device: str = "auto",
    ) -> None:
        need_package(self.info.name, "spandrel", "zoo")
        self.config = read_architecture(self._architecture, config)
        self.side = self.config.resolution
        names = self.info.weights
        self._file = names[0] if path else next((name for name in names if find(name)), names[0])
        super().__init__({self._file: path}, device)
        if self.side != SIZE:
            self.info = dataclasses.replace(self.info, input_size=None)

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network with its weights, in evaluation mode on the device."""
        file = self.files[self._file]
        found = load_tensors(file, wrappers=("params_ema", "params", "state_dict"), prefix="vqvae.")
        # training checkpoints carry the networks of the losses along
        tensors = {name: tensor for name, tensor in found.items() if not name.startswith("loss.")}
        built: torch.nn.Module = build_network(self.config)
        return ready(built, tensors, file, self.device)

    def _restored(self, face: torch.Tensor, seed: int) -> torch.Tensor:  # noqa: ARG002
        return unsigned(run_network(self.network, signed(face.to(self.device))))


class RestoreFormerPP(RestoreFormer):
    """RestoreFormer++ on aligned faces, as the published ``inference.py --aligned`` runs it by default.

    Args:
        path: ``RestoreFormer++.ckpt`` or a file of the same layout; None: from the weight registry.
        config: widths of another file: a `RestoreFormerPPConfig`, a mapping of its fields, or a JSON or YAML file
            with one.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: an unknown or impossible width.
        DependencyError: spandrel is not installed.
        WeightsError: the file is missing, damaged, or not the published one.
    """

    info = dataclasses.replace(
        RestoreFormer.info,
        name="restoreformer_pp",
        summary="RestoreFormer with attention at two scales",
        paper="arXiv:2308.07228",
        weights=("restoreformer-pp",),
    )
    _architecture = RestoreFormerPPConfig
