"""68 landmarks of an aligned face through facexlib's networks: RetinaFace says whether there is one, AWing where."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.core.registry import load_attribute
from ffhqref.weights.tensors import load_into, load_tensors
from ffhqref.zoo.shared.aligned import need_package

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.weights.files import Weights

ALIGNMENT, DETECTOR = "facexlib-awing", "facexlib-retinaface-r50"
"""Names in the weight registry."""

FACEXLIB = "facexlib"
"""The option that takes `FacexlibLandmarks`."""

LandmarkFunction = Callable[["NDArray[np.uint8]"], "NDArray[np.floating]"]
"""Takes uint8 RGB [H, W, 3], returns points (x, y) in pixels in the 300-W order; raises where there is no face."""

SCORE = 0.8
"""Least score of a face: the default of facexlib's ``detect_faces``."""


class FacexlibLandmarks:
    """Landmarks of images that hold one aligned face.

    The published scripts take the package face-alignment (68 points of another network), which may differ by some
    pixels. AWing places its points in any image, so what shows whether there is a face at all is the detector.

    Args:
        restorer: that needs them, for messages.
        files: paths of `ALIGNMENT` and `DETECTOR`.
        device: where the networks run.

    Raises:
        DependencyError: facexlib is not installed.
        WeightsError: a file is missing.
    """

    def __init__(self, restorer: str, files: Mapping[str, Weights | Path], device: str = "cpu") -> None:
        need_package(restorer, "facexlib", "facexlib")
        from ffhqref.metrics.base import MetricRuntime
        from ffhqref.metrics.faceparts import Landmarks

        self._points = Landmarks(files[ALIGNMENT], MetricRuntime(device=device))
        self._path, self._device = files[DETECTOR], device
        self._detector: Any = None

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return [68, 2] (x, y) in pixels, in the 300-W order, from uint8 RGB [H, W, 3].

        Raises:
            ImageError: no face is found.
            WeightsError: a file is damaged or of another network.
        """
        from ffhqref.core.images import to_tensor

        found = self._network().detect_faces(np.ascontiguousarray(picture[..., ::-1]), conf_threshold=SCORE)
        if not len(found):
            raise ImageError("no face found")
        from facexlib.alignment.convert_98_to_68_landmarks import landmark_98_to_68

        return np.asarray(landmark_98_to_68(self._points(to_tensor([picture])[0])), dtype=np.float64)

    def _network(self) -> Any:
        if self._detector is None:
            import torch

            ensure_torchvision()
            from facexlib.detection.retinaface import RetinaFace

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # it asks torchvision for its backbone in an old way
                network = RetinaFace("resnet50", device=torch.device(self._device))
            load_into(network, load_tensors(self._path, prefix="module."), self._path)
            self._detector = network.eval().requires_grad_(False)
        return self._detector


def landmark_function(
    restorer: str, chosen: str | LandmarkFunction, files: Mapping[str, Weights], device: str
) -> LandmarkFunction:
    """Return what the option ``landmarks`` of a restorer names.

    Args:
        restorer: for messages.
        chosen: ``facexlib``, a function, or where one is, as ``"package.module:function"``.
        files: among them `ALIGNMENT` and `DETECTOR`, for facexlib.
        device: where its networks run.

    Raises:
        ConfigError: neither, or no such function.
        DependencyError: facexlib is not installed.
    """
    if chosen == FACEXLIB:
        return FacexlibLandmarks(restorer, {name: files[name] for name in (ALIGNMENT, DETECTOR)}, device)
    loaded = load_attribute(chosen, f"{restorer}: landmarks") if isinstance(chosen, str) else chosen
    if not callable(loaded):
        raise ConfigError(f"{restorer}: landmarks should be 'facexlib' or a function, not {chosen!r}")
    found: LandmarkFunction = loaded
    return found
