"""The restorer `codeformer`: the network behind the zoo's protocol, with what the published script does around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.core.images import SIZE, to_tensor, to_uint8
from ffhqref.restorers.base import RestorerInfo
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.codeformer.config import CodeFormerConfig
from ffhqref.zoo.shared.aligned import AlignedRestorer, need_package
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.network import ready, signed, unsigned

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ffhqref.zoo.codeformer.network import CodeFormerNetwork

GREY_VARIANCE = 10.0
"""Mean variance of the channels' differences, on the 0..255 scale, up to which the script takes a face for grey."""


class CodeFormer(AlignedRestorer):
    """CodeFormer on aligned faces, as ``inference_codeformer.py --has_aligned`` runs it.

    A near-grey face gives a grey result with the contrast of the input, as in the script.

    Args:
        path: ``codeformer.pth`` or a file of the same layout; None: from the weight registry.
        config: widths of another file: a `CodeFormerConfig`, a mapping of its fields, or a JSON or YAML file with
            one.
        fidelity_weight: w of the paper, 0 (quality: the codes alone) to 1 (fidelity to the input). 0.5 is the
            script's default and the authors' advice for aligned faces; 0.7 is their example for whole photographs.
        adain: whether the codes take on the colours of the encoder's map; the script says so.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: a weight outside 0..1, or an unknown or impossible width.
        DependencyError: spandrel-extra-arches is not installed.
        WeightsError: the file is missing, damaged, or not the published one.
    """

    info = RestorerInfo(
        name="codeformer",
        summary="Transformer that predicts codes of a face auto-encoder",
        licence="S-Lab License 1.0 (non-commercial)",
        commercial_use=False,
        trained_on=("FFHQ",),
        paper="arXiv:2206.11253",
        weights=("codeformer",),
        verified_against="outputs of the published code on random weights: within 1e-4 relative",
    )

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: CodeFormerConfig | Mapping[str, Any] | str | Path | None = None,
        fidelity_weight: float = 0.5,
        adain: bool = True,
        device: str = "auto",
    ) -> None:
        if not 0 <= fidelity_weight <= 1:
            raise ConfigError(f"restorer codeformer: fidelity_weight={fidelity_weight}, expected a number of 0..1")
        need_package("codeformer", "spandrel_extra_arches", "zoo-nc")
        self.config = read_architecture(CodeFormerConfig, config)
        self.side = self.config.img_size
        self.fidelity_weight = float(fidelity_weight)
        self.adain = adain
        super().__init__({"codeformer": path}, device)
        if self.side != SIZE:
            self.info = dataclasses.replace(self.info, input_size=None)

    @cached_property
    def network(self) -> CodeFormerNetwork:
        """The network with its weights, in evaluation mode on the device."""
        from ffhqref.zoo.codeformer.network import CodeFormerNetwork

        file = self.files["codeformer"]
        return ready(CodeFormerNetwork(self.config), load_tensors(file, wrappers=("params_ema",)), file, self.device)

    def _restored(self, face: torch.Tensor, seed: int) -> torch.Tensor:  # noqa: ARG002
        raw, _ = self.network(signed(face.to(self.device)), self.fidelity_weight, self.adain)
        made, given = unsigned(raw), to_uint8(face)[0]
        if not is_grey(given):
            return made
        levels = np.clip(np.rint(grey_like(to_uint8(made)[0], given)), 0, 255)
        return to_tensor([levels.astype(np.uint8)])


def is_grey(face: NDArray[np.uint8]) -> bool:
    """Return whether the script takes a face, uint8 RGB [H, W, 3], for a grey one."""
    red, green, blue = np.moveaxis(face.astype(np.int16), 2, 0)
    differences = (red - green, red - blue, green - blue)
    return sum(float(difference.var()) for difference in differences) / 3 <= GREY_VARIANCE


def grey_like(made: NDArray[np.uint8], face: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the result made grey, and then given the mean and spread of the face in each channel.

    Args:
        made: uint8 RGB [H, W, 3], rounded to 8 bit before, as the script does.
        face: uint8 RGB [H, W, 3], what the network was given.

    Returns:
        [H, W, 3] on the 0..255 scale, not rounded; values may lie outside it.
    """
    grey = made.astype(np.float64) @ np.array([0.2989, 0.5870, 0.1140])
    target = face.astype(np.float64)
    spread = np.sqrt(target.var(axis=(0, 1)) + 1e-5)
    own = (grey - grey.mean()) / np.sqrt(grey.var() + 1e-5)
    result: NDArray[np.float64] = own[..., None] * spread + target.mean(axis=(0, 1))
    return result
