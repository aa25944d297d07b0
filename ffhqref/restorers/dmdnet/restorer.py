"""The restorer `dmdnet`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.errors import ConfigError, ImageError
from ffhqref.images import SIZE, to_uint8
from ffhqref.registry import load_attribute
from ffhqref.restorers.architecture import read_architecture
from ffhqref.restorers.arrays import resized_8bit
from ffhqref.restorers.base import RestorationBatch, RestorerInfo
from ffhqref.restorers.dmdnet.boxes import part_boxes
from ffhqref.restorers.dmdnet.config import DMDNetConfig
from ffhqref.restorers.dmdnet.landmarks import ALIGNMENT, DETECTOR, FacexlibLandmarks
from ffhqref.restorers.network import NetworkRestorer, signed, unsigned
from ffhqref.weights import load_into, load_tensors

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ffhqref.restorers.dmdnet.network import DMDNet

WEIGHTS = "dmdnet"
FACEXLIB = "facexlib"

INFO = RestorerInfo(
    name="dmdnet",
    summary="Eyes and mouth re-written from a learned memory and from the person's references; needs landmarks",
    min_references=2,
    max_references=None,
    licence="CC BY-NC-SA 4.0 (badge; weights); the implementation is Apache-2.0",
    commercial_use=False,
    trained_on=("CelebRef-HQ", "FFHQ"),
    paper="Li et al., DMDNet, TPAMI 2022, arXiv 2210.08160",
    weights=(WEIGHTS, ALIGNMENT, DETECTOR),
    proved_against="outputs of the published code on random weights and given landmarks, full size, within 1e-4 "
    "relative; the landmark network is another than the published script's",
)


class DMDNetRestorer(NetworkRestorer):
    """DMDNet as the published script runs it, with landmarks found by facexlib.

    Pictures with a side under 512 are made 8 bit and resized to 512x512 by area with OpenCV, as the script does;
    larger ones stay as they are. The result has the network input's size.

    A case whose face is not found, in the LQ picture or in one of its references, or whose landmarks cannot be
    right, fails with that reason. The published script prints such cases and leaves them out (a quarter of
    ReF-LDM's severe benchmark), which flatters its figures.

    Args:
        path: ``DMDNet.pth`` as released; None: from the weight registry.
        config: numbers of another network than the published one, as `DMDNetConfig`, mapping, or JSON or YAML file.
        mode: ``specific``: with the references, two at least as the script demands; ``generic``: without.
        landmarks: ``facexlib``; or a function that takes uint8 RGB [H, W, 3] and returns 68 points [68, 2] (x, y)
            in pixels in the 300-W order, or raises where there is no face, itself or as ``"package.module:function"``.
        alignment_path: ``alignment_WFLW_4HG.pth`` of facexlib; None: from the weight registry.
        detector_path: ``detection_Resnet50_Final.pth`` of facexlib; None: from the weight registry.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: an unknown mode, architecture or landmark function.
        DependencyError: facexlib is not installed.
        WeightsError: a file is missing, damaged, or of another architecture.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: DMDNetConfig | Mapping[str, Any] | str | Path | None = None,
        mode: str = "specific",
        landmarks: str | Callable[[NDArray[np.uint8]], NDArray[np.floating]] = FACEXLIB,
        alignment_path: str | Path | None = None,
        detector_path: str | Path | None = None,
        device: str = "auto",
    ) -> None:
        if mode not in ("specific", "generic"):
            raise ConfigError(f"dmdnet: mode must be 'specific' or 'generic', not '{mode}'")
        files = {WEIGHTS: path}
        if landmarks == FACEXLIB:
            files |= {ALIGNMENT: alignment_path, DETECTOR: detector_path}
        super().__init__(files, device)
        self.config = read_architecture(DMDNetConfig, config, "dmdnet")
        self.mode = mode
        self.info = replace(INFO, weights=tuple(files))
        if mode == "generic":
            self.info = replace(self.info, min_references=0, max_references=0)
        self._landmarks: Callable[[NDArray[np.uint8]], NDArray[np.floating]]
        if landmarks == FACEXLIB:
            found = {name: self.files[name].path for name in (ALIGNMENT, DETECTOR)}
            self._landmarks = FacexlibLandmarks(found, self.device)
        else:
            loaded = load_attribute(landmarks, "dmdnet: landmarks") if isinstance(landmarks, str) else landmarks
            if not callable(loaded):
                raise ConfigError(f"dmdnet: landmarks should be 'facexlib' or a function, not {landmarks!r}")
            self._landmarks = loaded

    @cached_property
    def network(self) -> DMDNet:
        """The network with its weights, loaded on first use.

        Raises:
            WeightsError: the file is damaged or does not fit the architecture.
        """
        from ffhqref.restorers.dmdnet.blocks import fold
        from ffhqref.restorers.dmdnet.network import DMDNet

        network = DMDNet(self.config)
        path = self.files[WEIGHTS].path
        load_into(network, load_tensors(path), path)
        fold(network)
        return network.eval().requires_grad_(False).to(self.device)

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB, 512x512 for smaller pictures; see `base.Restorer`.

        Raises:
            ImageError: a case cannot be done; the message says which of its pictures, and why.
        """
        import torch

        lq = _fitted(batch.lq)
        references = [_fitted(given) if len(given) else given for given in batch.references]
        return torch.cat([self._case(lq[index], references[index]) for index in range(len(lq))])

    def _case(self, lq: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        height, width = lq.shape[1:]
        if height % 8 or width % 8:
            raise ImageError(f"the LQ picture is {width}x{height}, its sides should be divisible by 8")
        given = references if self.mode == "specific" else references[:0]
        if self.mode == "specific" and len(given) < 2:
            raise ImageError(f"{len(given)} references, at least 2 are needed")
        boxes = self._boxes(lq, "the LQ picture")
        known = [
            (self._moved(picture), self._boxes(picture, f"reference {number}"))
            for number, picture in enumerate(given, start=1)
        ]
        return unsigned(self.network(self._moved(lq), boxes, known)).cpu()

    def _moved(self, picture: torch.Tensor) -> torch.Tensor:
        return signed(picture[None]).to(self.device)

    def _boxes(self, picture: torch.Tensor, which: str) -> dict[str, tuple[int, ...]]:
        try:
            points = self._landmarks(to_uint8(picture[None])[0])
            return part_boxes(points, *picture.shape[1:])
        except ImageError as error:
            raise ImageError(f"{which}: {error}") from None


def _fitted(pictures: torch.Tensor) -> torch.Tensor:
    """Return pictures [N, 3, H, W] as the published reader does: 512x512 where a side is shorter."""
    return resized_8bit(pictures, SIZE, area=True) if min(pictures.shape[2:]) < SIZE else pictures
