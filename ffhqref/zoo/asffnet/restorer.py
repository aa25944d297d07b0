"""The restorer `asffnet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.core.images import SIZE, to_uint8
from ffhqref.restorers.base import RestorationBatch, RestorerInfo
from ffhqref.weights.tensors import load_into, load_tensors
from ffhqref.zoo.asffnet.choice import distances, one_face
from ffhqref.zoo.asffnet.config import ASFFNetConfig
from ffhqref.zoo.asffnet.warp import mask_of, sampling_grid
from ffhqref.zoo.shared.aligned import enlarged, resized
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.landmarks import ALIGNMENT, DETECTOR, FACEXLIB, LandmarkFunction, landmark_function
from ffhqref.zoo.shared.network import NetworkRestorer, signed, unsigned

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ffhqref.zoo.asffnet.network import ASFFNet

WEIGHTS = "asffnet-512"
LEAST = 2

INFO = RestorerInfo(
    name="asffnet",
    summary="Features of the reference that is nearest in pose, warped by landmarks and joined to the LQ image's",
    min_references=LEAST,
    max_references=None,
    licence="CC BY-NC-SA 4.0 (weights); the implementation is Apache-2.0",
    commercial_use=False,
    trained_on=("CelebRef-HQ",),
    paper="Li et al., Enhanced Blind Face Restoration with Multi-Exemplar Images, CVPR 2020",
    weights=(WEIGHTS, ALIGNMENT, DETECTOR),
    verified_against="outputs of the published script (October 2022) on random weights and given landmarks, small and "
    "full size, within 1e-4 relative; the landmark network is another than the published script's",
)


class ASFFNetRestorer(NetworkRestorer):
    """ASFFNet512 as the published script runs it, with landmarks found by facexlib.

    A reference without a face is no candidate, as in the script, which has no landmark file of it. A case whose own
    face is not found, or of which fewer than two references are left, fails with that reason; the script ends there,
    or leaves the case out.

    Args:
        path: ``ASFFNet512.pth`` as released; None: from the weight registry.
        config: numbers of another network than the published one, as `ASFFNetConfig`, mapping, or JSON or YAML file.
        landmarks: ``facexlib``; or a function that takes uint8 RGB [H, W, 3] and returns 68 points [68, 2] (x, y)
            in pixels in the 300-W order, or those of several faces [faces, 68, 2], of which the tallest is taken, or
            raises where there is no face, itself or as ``"package.module:function"``.
        decimals: of the references' landmarks: one, as in the script's text files; None: all.
        alignment_path: ``alignment_WFLW_4HG.pth`` of facexlib; None: from the weight registry.
        detector_path: ``detection_Resnet50_Final.pth`` of facexlib; None: from the weight registry.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: an unknown architecture or landmark function, or a negative number of decimals.
        DependencyError: facexlib is not installed.
        WeightsError: a file is missing, damaged, or of another architecture.
    """

    info = INFO
    cache_ignored_options = ("path", "alignment_path", "detector_path")

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: ASFFNetConfig | Mapping[str, Any] | str | Path | None = None,
        landmarks: str | LandmarkFunction = FACEXLIB,
        decimals: int | None = 1,
        alignment_path: str | Path | None = None,
        detector_path: str | Path | None = None,
        device: str = "auto",
    ) -> None:
        if decimals is not None and decimals < 0:
            raise ConfigError(f"asffnet: decimals={decimals}, expected 0 or more, or null")
        files = {WEIGHTS: path}
        if landmarks == FACEXLIB:
            files |= {ALIGNMENT: alignment_path, DETECTOR: detector_path}
        super().__init__(files, device)
        self.config = read_architecture(ASFFNetConfig, config)
        self.decimals = decimals
        self.info = replace(INFO, weights=tuple(files))
        self._landmarks = landmark_function("asffnet", landmarks, self.files, self.device)

    @cached_property
    def network(self) -> ASFFNet:
        """The network with its weights, loaded on first use.

        Raises:
            WeightsError: the file is damaged or does not fit the architecture.
        """
        from ffhqref.zoo.asffnet.network import ASFFNet
        from ffhqref.zoo.shared.spectral import fold

        network = ASFFNet(self.config)
        path = self.files[WEIGHTS]
        load_into(network, load_tensors(path, wrappers=("params",)), path)
        fold(network)
        return network.eval().requires_grad_(False).to(self.device)

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB on the CPU, resized back where the batch is smaller than 512.

        Raises:
            ImageError: a case cannot be done; the message says which of its images, and why.
        """
        return resized(self.restore_faces(batch.lq, batch.references), batch.lq.shape[-2:])

    def restore_faces(self, lq: torch.Tensor, references: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what the published script writes for LQ images of any size that it takes.

        Images with a side under 512, references too, are made 8 bit and resized to 512x512 by area with OpenCV; the
        script ends at those that are larger.

        Args:
            lq: float32 [B, 3, H, W] in 0..1 RGB.
            references: B tensors float32 [N_i, 3, H, W] in 0..1 RGB.

        Returns:
            float32 [B, 3, 512, 512] in 0..1 RGB on the CPU, before the rounding to 8 bit.

        Raises:
            ImageError: see `restore`.
        """
        import torch

        with torch.no_grad():
            return torch.cat(
                [self._case(case, enlarged(given)) for case, given in zip(enlarged(lq), references, strict=True)]
            )

    def _case(self, lq: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        import torch

        if len(references) < LEAST:
            raise ImageError(f"{len(references)} references, at least {LEAST} are needed")
        for which, image in (("the LQ image is", lq), ("the references are", references)):
            height, width = image.shape[-2:]
            if (height, width) != (SIZE, SIZE):
                raise ImageError(f"{which} {width}x{height}: neither {SIZE}x{SIZE} nor smaller on one side")
        try:
            own = one_face(self._landmarks(to_uint8(lq[None])[0])).astype(np.float32)
        except ImageError as error:
            raise ImageError(f"the LQ image: {error}") from None
        number, points = self._chosen(own, references)
        try:
            grid = sampling_grid(own, points)
        except ImageError as error:
            raise ImageError(f"reference {number + 1}: {error}") from None
        mask = torch.from_numpy(mask_of(own))[None, None].to(self.device)
        place = torch.from_numpy(grid)[None].to(self.device)
        return unsigned(self.network(self._moved(lq), mask, self._moved(references[number]), place)).cpu()

    def _chosen(self, own: NDArray[np.float32], references: torch.Tensor) -> tuple[int, NDArray[np.float64]]:
        """Return the number of the reference whose landmarks are nearest, and these."""
        candidates: dict[int, NDArray[np.float64]] = {}
        reason = ""
        for number, image in enumerate(to_uint8(references)):
            try:
                candidates[number] = self._rounded(one_face(self._landmarks(image)))
            except ImageError as error:
                reason = f"reference {number + 1}: {error}"
        if len(candidates) < LEAST:
            raise ImageError(f"{len(candidates)} references with a face, at least {LEAST} are needed ({reason})")
        best = list(candidates)[int(distances(own, list(candidates.values())).argmin())]
        return best, candidates[best]

    def _rounded(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.decimals is None:
            return points
        return np.array([[float(f"{value:.{self.decimals}f}") for value in point] for point in points])

    def _moved(self, image: torch.Tensor) -> torch.Tensor:
        return signed(image[None]).to(self.device)
