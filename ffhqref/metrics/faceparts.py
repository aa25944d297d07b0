"""Metrics of face parts: landmark distance, and LPIPS on the face region; networks of facexlib (MIT), optional.

Only facexlib's network classes are used: its landmark decoding uses names that NumPy dropped, and its loaders
download without asking. Weight files are found through ``ffhqref.weights.files``.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import DependencyError
from ffhqref.core.images import to_uint8
from ffhqref.metrics.base import LastTruth, Metric, MetricBatch, MetricRuntime, ground_truth
from ffhqref.metrics.perceptual import LPIPS
from ffhqref.weights.fetch import obtain
from ffhqref.weights.files import Weights
from ffhqref.weights.tensors import load_into, load_tensors

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_HEATMAP = 64
FACE_CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
"""Classes of ParseNet's 19 that are face: skin, nose, glasses, eyes, brows, ears, mouth, lips.

These are the parts that ReF-LDM's script counts as face; hair, hat, earring, necklace, neck and cloth are not.
"""


class Landmarks:
    """98 landmarks (WFLW layout) of an aligned face by the AWing network, four stacked hourglasses.

    Args:
        path: ``alignment_WFLW_4HG.pth``; None: found through ``ffhqref.weights.files``.
        runtime: where weights lie and the network runs.
    """

    def __init__(self, path: Weights | str | Path | None = None, runtime: MetricRuntime | None = None) -> None:
        self._runtime = runtime or MetricRuntime()
        _need_facexlib("lmd")
        file = (
            path
            if isinstance(path, Weights)
            else obtain("facexlib-awing", path=path, folder=self._runtime.weights_dir, download=self._runtime.download)
        )
        self._path = file
        self._network: torch.nn.Module | None = None
        self.signature = f"awing 98 points|{file.signature}"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_network": None}

    def __call__(self, image: torch.Tensor) -> NDArray[np.float64]:
        """Return points [98, 2] (x, y) in pixels from float32 [3, H, W] in 0..1 RGB."""
        import torch

        if self._network is None:
            ensure_torchvision()
            from facexlib.alignment.awing_arch import FAN

            network = FAN(num_modules=4, num_landmarks=98, device=self._runtime.device).eval()
            load_into(network, load_tensors(self._path, wrappers=("state_dict",)), self._path)
            self._network = network.to(self._runtime.device)
        levels = to_uint8(image[None])[0]
        small = cv2.resize(levels, (256, 256), interpolation=cv2.INTER_LINEAR)
        values = torch.from_numpy(small.transpose(2, 0, 1).astype(np.float32) / 255.0)[None]
        with torch.inference_mode():
            heatmaps = self._network(values.to(self._runtime.device))[0][-1][0, :-1].cpu().numpy()
        scale = np.array([levels.shape[1], levels.shape[0]], dtype=np.float64) / _HEATMAP
        return np.asarray(peaks(heatmaps) * scale)


def peaks(heatmaps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the peak (x, y) of heat maps [N, H, W] in their pixels: centre, a quarter pixel towards the larger side.

    A peak on the border is compared with itself beyond it. The published code has a defect there, which is not
    reproduced: it moves every point of the face by the values of a corner, or stops.
    """
    height, width = heatmaps.shape[1:]
    at = heatmaps.reshape(len(heatmaps), -1).argmax(axis=1)
    x, y = at % width, at // width
    rows = np.arange(len(heatmaps))
    across = heatmaps[rows, y, np.minimum(x + 1, width - 1)] - heatmaps[rows, y, np.maximum(x - 1, 0)]
    down = heatmaps[rows, np.minimum(y + 1, height - 1), x] - heatmaps[rows, np.maximum(y - 1, 0), x]
    return np.stack([x + 0.25 * np.sign(across), y + 0.25 * np.sign(down)], axis=1).astype(np.float64) + 0.5


class LMD(Metric):
    """Landmark distance: mean Euclidean distance in pixels of 98 landmarks between output and ground truth.

    As VQFR's ``metric_paper/calculate_landmark_distance.py``. Lower is better.

    Args:
        path: see `Landmarks`.
        runtime: see `Landmarks`.
    """

    higher_is_better = False
    role = "fidelity"

    def __init__(self, path: str | Path | None = None, runtime: MetricRuntime | None = None) -> None:
        self._landmarks = Landmarks(path, runtime)
        self.device = (runtime or MetricRuntime()).device
        self._last: LastTruth[NDArray[np.float64]] = LastTruth()
        self.signature = f"lmd|{self._landmarks.signature}|border peaks one-sided|mean L2 px|vs gt|v1"

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]."""
        gt = ground_truth(batch)
        values = []
        for index in range(len(batch)):
            truth = self._last.of(batch.gt_id(index), partial(self._landmarks, gt[index]))
            difference = self._landmarks(batch.output[index]) - truth
            values.append(float(np.linalg.norm(difference, axis=1).mean()))
        return np.array(values, dtype=np.float64)


class FaceLPIPS(Metric):
    """LPIPS-VGG over the whole frame, with everything but the face set to zero in both images.

    The recipe of ReF-LDM's fLPIPS (the mask of the ground truth for both, no division by its area), but with
    facexlib's ParseNet. The published parser is not named, so the values are not comparable with the paper's.

    Args:
        path: ``parsing_parsenet.pth``; None: found through ``ffhqref.weights.files``.
        backbone_path: of `LPIPS`.
        runtime: where weights lie and the networks run.
    """

    higher_is_better = False
    role = "fidelity"

    def __init__(
        self,
        path: str | Path | None = None,
        backbone_path: str | Path | None = None,
        runtime: MetricRuntime | None = None,
    ) -> None:
        self._runtime = runtime or MetricRuntime()
        self.device = self._runtime.device
        _need_facexlib("flpips_parsenet")
        file = obtain("facexlib-parsenet", path=path, folder=self._runtime.weights_dir, download=self._runtime.download)
        self._path = file
        self._lpips = LPIPS("vgg", backbone_path, self._runtime)
        self._parser: torch.nn.Module | None = None
        self._last: LastTruth[torch.Tensor] = LastTruth()
        self.signature = f"f{self._lpips.signature}|face of gt by parsenet {file.signature}, rest zero|v1"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_parser": None}

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]."""
        gt = ground_truth(batch)
        values = []
        for index in range(len(batch)):
            key = batch.gt_id(index)
            mask = self._last.of(key, partial(self._face, gt[index]))
            masked = MetricBatch(
                batch.output[index : index + 1].cpu() * mask,
                gt[index : index + 1].cpu() * mask,
                gt_ids=[f"{key}|face"] if key else (),
            )
            values.append(float(self._lpips(masked)[0]))
        return np.array(values, dtype=np.float64)

    def _face(self, image: torch.Tensor) -> torch.Tensor:
        """Return 1 where the face is and 0 elsewhere, float32 [H, W], from float32 [3, H, W] in 0..1."""
        import torch

        if self._parser is None:
            ensure_torchvision()
            from facexlib.parsing.parsenet import ParseNet

            parser = ParseNet(in_size=512, out_size=512, parsing_ch=19).eval()
            load_into(parser, load_tensors(self._path), self._path)
            self._parser = parser.to(self._runtime.device)
        with torch.inference_mode():
            scores = self._parser((2.0 * image[None] - 1.0).to(self._runtime.device))[0]
        classes = scores.argmax(dim=1)[0].cpu()
        return torch.isin(classes, torch.tensor(FACE_CLASSES)).to(torch.float32)


def _need_facexlib(metric: str) -> None:
    if importlib.util.find_spec("facexlib") is None:
        raise DependencyError(f"metric '{metric}' needs the package facexlib: pip install 'ffhqref[facexlib]'")
