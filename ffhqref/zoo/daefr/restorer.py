"""The restorer `daefr`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.images import SIZE
from ffhqref.restorers.base import RestorerInfo
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.daefr.config import DAEFRConfig
from ffhqref.zoo.shared.aligned import AlignedRestorer, need_package
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.network import ready, signed, unsigned

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.daefr.network import DAEFR

WEIGHTS = "daefr"


class DAEFRRestorer(AlignedRestorer):
    """DAEFR on aligned faces, as the published ``scripts/test.py --aligned`` runs it.

    Where the script writes the input in place of a result, after an error of memory, the case fails.

    Args:
        path: ``DAEFR_model.ckpt`` or a file of the same layout; None: from the weight registry.
        config: widths of another file: a `DAEFRConfig`, a mapping of its fields, or a JSON or YAML file with one.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: an unknown or impossible width.
        DependencyError: spandrel or spandrel-extra-arches is not installed.
        WeightsError: the file is missing, damaged, or not the published one.
    """

    info = RestorerInfo(
        name="daefr",
        summary="Codes predicted from two encoders of the LQ image, one of them trained on high quality",
        licence="none stated (weights); the implementation is Apache-2.0",
        commercial_use=False,
        trained_on=("FFHQ",),
        paper="Tsai et al., DAEFR, ICLR 2024, arXiv 2308.07314",
        weights=(WEIGHTS,),
        verified_against="outputs of the published code (October 2024) on random weights, small and full size: "
        "within 1e-4 relative",
    )

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: DAEFRConfig | Mapping[str, Any] | str | Path | None = None,
        device: str = "auto",
    ) -> None:
        need_package("daefr", "spandrel", "zoo")
        need_package("daefr", "spandrel_extra_arches", "zoo-nc")
        self.config = read_architecture(DAEFRConfig, config)
        self.side = self.config.resolution
        super().__init__({WEIGHTS: path}, device)
        if self.side != SIZE:
            self.info = dataclasses.replace(self.info, input_size=None)

    @cached_property
    def network(self) -> DAEFR:
        """The network with its weights, in evaluation mode on the device."""
        from ffhqref.zoo.daefr.network import DAEFR, used

        file = self.files[WEIGHTS]
        return ready(DAEFR(self.config), used(load_tensors(file, wrappers=("state_dict",))), file, self.device)

    def _restored(self, face: torch.Tensor, seed: int) -> torch.Tensor:  # noqa: ARG002
        restored, _ = self.network(signed(face.to(self.device)))
        return unsigned(restored)
