"""The face of a reference as RestorerID sees it: five points, and an ArcFace vector.

Source: RestorerID, published code (commit 157e2883): scripts/Inference.py with insightface's pack buffalo_l.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ffhqref.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ffhqref.weights.files import Weights

DETECTION_SIZE = 512
"""Side in pixels of the square that detection fits a reference into."""

FINDERS = ("insightface", "aligned")


@dataclass(frozen=True)
class ReferenceFace:
    """The face of a reference image."""

    points: NDArray[np.float64]
    """[5, 2] (x, y): eye on the left of the image, eye on its right, nose tip, mouth corners left and right."""
    embedding: NDArray[np.float32]
    """[d], of any length: it is divided by its norm before use."""


class FaceFinder(Protocol):
    """Finds the face of a reference.

    Attributes:
        signature: networks and weights in one line.
        dim: channels of the ArcFace vector.
    """

    signature: str
    dim: int

    def __call__(self, picture: NDArray[np.uint8]) -> ReferenceFace | None:
        """Return the face of an image, uint8 RGB [H, W, 3], or None."""
        ...


class InsightFaces:
    """insightface's SCRFD detector and ArcFace. Of several faces the one with the best score is taken, as published.

    Args:
        detector: ``det_10g.onnx`` of the pack buffalo_l.
        arcface: ``w600k_r50.onnx`` of the same pack.
        device: of ArcFace; without onnxruntime's CUDA it works on the CPU.

    Raises:
        DependencyError: insightface or onnxruntime is not installed.
        WeightsError: a file is absent or another network.
    """

    def __init__(self, detector: Weights | str | Path, arcface: Weights | str | Path, *, device: str = "auto") -> None:
        from ffhqref.faces.detect import ScrfdDetector
        from ffhqref.faces.embedders import OnnxEmbedder

        self._detector = ScrfdDetector(detector, longest=DETECTION_SIZE)
        self._embedder = OnnxEmbedder(arcface, device=device, fall_back=True)
        self.dim = self._embedder.dim
        self.signature = f"{self._detector.signature}+{self._embedder.signature}"

    def __call__(self, picture: NDArray[np.uint8]) -> ReferenceFace | None:
        """Return the face of an image, uint8 RGB [H, W, 3], or None where none is found."""
        faces = self._detector(picture)
        if not faces:
            return None
        from ffhqref.faces.crops import arcface_crop

        crop = arcface_crop(picture, faces[0].points, self._embedder.face_size)
        return ReferenceFace(faces[0].points, self._embedder(crop[None])[0])


class AlignedFaces:
    """Faces of images that are aligned the FFHQ way, without a detector, embedded by any registered network.

    For trying the chain without insightface's non-commercial files. The points are those of the FFHQ template.

    Args:
        embedder: name in `ffhqref.faces.EMBEDDERS`.
        options: of `ffhqref.zoo.faceme.faces.AlignedFaces`, the embedder's among them.
    """

    def __init__(self, embedder: str, **options: Any) -> None:
        from ffhqref.zoo.faceme import faces

        self._faces = faces.AlignedFaces(embedder, **options)
        self.dim = self._faces.dim
        self.signature = self._faces.signature

    def __call__(self, picture: NDArray[np.uint8]) -> ReferenceFace | None:
        """Return the face of a square image, uint8 RGB [S, S, 3]."""
        from ffhqref.core.images import SIZE
        from ffhqref.faces.crops import FFHQ_POINTS

        face = self._faces(picture)
        return None if face is None else ReferenceFace(FFHQ_POINTS * (picture.shape[0] / SIZE), face.embedding)


def make_finder(options: Mapping[str, Any]) -> FaceFinder:
    """Return what finds faces, from a mapping of options.

    Args:
        options: ``name`` is ``aligned`` (``embedder``, ``crop`` and the embedder's own options) or ``insightface``
            (``detector`` and ``arcface`` are files). None stands for an option that is not given.

    Raises:
        ConfigError: no such name, or options it does not take.
    """
    given = {key: value for key, value in options.items() if value is not None}
    name = given.pop("name", None)
    if name not in FINDERS:
        raise ConfigError(f"faces.name={name}: expected {' or '.join(FINDERS)}.{did_you_mean(str(name), FINDERS)}")
    try:
        return AlignedFaces(**given) if name == "aligned" else InsightFaces(**given)
    except TypeError as error:
        raise ConfigError(f"faces.name={name}: options that it does not take ({error})") from None
