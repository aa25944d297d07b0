"""The restorer `dmdnet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.core.images import to_uint8
from ffhqref.restorers.base import RestorationBatch, RestorerInfo
from ffhqref.weights.tensors import load_into, load_tensors
from ffhqref.zoo.dmdnet.boxes import part_boxes
from ffhqref.zoo.dmdnet.config import DMDNetConfig
from ffhqref.zoo.shared.aligned import enlarged, resized
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.landmarks import ALIGNMENT, DETECTOR, FACEXLIB, LandmarkFunction, landmark_function
from ffhqref.zoo.shared.network import NetworkRestorer, signed, unsigned

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.dmdnet.network import DMDNet

WEIGHTS = "dmdnet"

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
    verified_against="outputs of the published code on random weights and given landmarks, full size, within 1e-4 "
    "relative; the landmark network is another than the published script's",
)


class DMDNetRestorer(NetworkRestorer):
    """DMDNet as the published script runs it, with landmarks found by facexlib.

    A case whose face is not found, in the LQ image or in one of its references, or whose landmarks cannot be
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

    info = INFO
    cache_ignored_options = ("path", "alignment_path", "detector_path")

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: DMDNetConfig | Mapping[str, Any] | str | Path | None = None,
        mode: str = "specific",
        landmarks: str | LandmarkFunction = FACEXLIB,
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
        self.config = read_architecture(DMDNetConfig, config)
        self.mode = mode
        self.info = replace(INFO, weights=tuple(files))
        if mode == "generic":
            self.info = replace(self.info, min_references=0, max_references=0)
        self._landmarks = landmark_function("dmdnet", landmarks, self.files, self.device)

    @cached_property
    def network(self) -> DMDNet:
        """The network with its weights, loaded on first use.

        Raises:
            WeightsError: the file is damaged or does not fit the architecture.
        """
        from ffhqref.zoo.dmdnet.network import DMDNet
        from ffhqref.zoo.shared.spectral import fold

        network = DMDNet(self.config)
        path = self.files[WEIGHTS]
        load_into(network, load_tensors(path), path)
        fold(network)
        return network.eval().requires_grad_(False).to(self.device)

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB on the CPU, resized back where the batch is smaller than 512.

        Raises:
            ImageError: a case cannot be done; the message says which of its images, and why.
        """
        return resized(self.restore_faces(batch.lq, batch.references), batch.lq.shape[-2:])

    def restore_faces(self, lq: torch.Tensor, references: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what the published script writes for LQ images of any size.

        Images with a side under 512, references too, are made 8 bit and resized to 512x512 by area with OpenCV;
        larger ones stay as they are.

        Args:
            lq: float32 [B, 3, H, W] in 0..1 RGB.
            references: B tensors float32 [N_i, 3, H, W] in 0..1 RGB.

        Returns:
            float32 [B, 3, 512, 512], or [B, 3, H, W] where that is larger, in 0..1 RGB on the CPU, before the
            rounding to 8 bit.

        Raises:
            ImageError: see `restore`.
        """
        import torch

        with torch.no_grad():
            return torch.cat(
                [self._case(case, enlarged(given)) for case, given in zip(enlarged(lq), references, strict=True)]
            )

    def _case(self, lq: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        height, width = lq.shape[1:]
        if height % 8 or width % 8:
            raise ImageError(f"the LQ image is {width}x{height}, its sides should be divisible by 8")
        given = references if self.mode == "specific" else references[:0]
        if self.mode == "specific" and len(given) < 2:
            raise ImageError(f"{len(given)} references, at least 2 are needed")
        boxes = self._boxes(lq, "the LQ image")
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
