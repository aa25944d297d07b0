"""Faces of reference images as FaceMe sees them: a box for CLIP and an ArcFace vector.

Source: FaceMe, published code (commit 8973f65): infer.py with insightface's pack antelopev2; utils/preprocess.py for
training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ffhqref.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.faces.detect import ScrfdDetector
    from ffhqref.faces.embedders import OnnxEmbedder
    from ffhqref.weights.files import Weights

SIZES = (512, 640, 576, 448, 384, 320, 256)
"""Detection sizes in pixels, tried in this order until a face is found."""


@dataclass(frozen=True)
class ReferenceFace:
    """The face of a reference image."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels; may reach beyond the image."""
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
    """insightface's SCRFD detector and ArcFace, used as FaceMe uses them.

    Two habits of the published code are kept, since the released weights were trained with them: insightface is
    given RGB where it expects BGR, in training as at inference, so detector and ArcFace see red and blue swapped;
    and of several faces inference takes the one with the best score, training the largest. One is not: there, a
    image whose face was found at a smaller size lowers the size that the *next* image is tried at first.

    Args:
        detector: ``scrfd_10g_bnkps.onnx`` of the pack antelopev2.
        arcface: ``glintr100.onnx`` of the same pack.
        largest: take the largest face (training) instead of the one with the best score (inference).
        device: of ArcFace; without onnxruntime's CUDA it works on the CPU.

    Raises:
        DependencyError: insightface or onnxruntime is not installed.
        WeightsError: a file is absent or another network.
    """

    def __init__(
        self,
        detector: Weights | str | Path,
        arcface: Weights | str | Path,
        *,
        largest: bool = False,
        device: str = "auto",
    ) -> None:
        from ffhqref.faces.embedders import OnnxEmbedder

        self._detector_file = detector
        self._detectors: dict[int, ScrfdDetector] = {}
        self._embedder: OnnxEmbedder = OnnxEmbedder(arcface, device=device, fall_back=True)
        self._largest = largest
        self.dim = self._embedder.dim
        self.signature = f"{self._detector(SIZES[0]).signature}+{self._embedder.signature}"

    def __call__(self, picture: NDArray[np.uint8]) -> ReferenceFace | None:
        """Return the face of an image, uint8 RGB [H, W, 3], or None where none is found at any size."""
        from ffhqref.faces.crops import arcface_crop

        swapped = np.ascontiguousarray(picture[..., ::-1])
        for size in SIZES:
            faces = self._detector(size)(swapped)
            if faces:
                face = max(faces, key=lambda item: item.area) if self._largest else faces[0]
                return ReferenceFace(face.box, self._embedder(arcface_crop(swapped, face.points)[None])[0])
        return None

    def _detector(self, size: int) -> ScrfdDetector:
        if size not in self._detectors:
            from ffhqref.faces.detect import ScrfdDetector

            self._detectors[size] = ScrfdDetector(self._detector_file, longest=size)
        return self._detectors[size]


FINDERS = ("insightface", "aligned")

ALIGNED_BOX = (0.19, 0.24, 0.81, 0.95)
"""Where a detector's box of an FFHQ-aligned face lies on average, in parts of the side (left, top, right, bottom)."""


class AlignedFaces:
    """Faces of images that are aligned the FFHQ way, without a detector, embedded by any registered network.

    For trying the chain without insightface's non-commercial files, and for training a FaceMe of one's own on another
    embedder. Every image has a face; the box is a fixed one.

    Args:
        embedder: name in `ffhqref.faces.EMBEDDERS`.
        crop: see `ffhqref.faces.crops.crop_faces`.
        options: of the embedder.
    """

    def __init__(self, embedder: str, crop: str = "ffhq_template", **options: Any) -> None:
        from ffhqref.faces import make_embedder
        from ffhqref.faces.crops import check_crop

        check_crop(crop)
        self._embedder = make_embedder(embedder, **options)
        self._crop = crop
        self.dim: int = self._embedder.dim
        self.signature = f"aligned:{self._embedder.signature}|{crop}"

    def __call__(self, picture: NDArray[np.uint8]) -> ReferenceFace | None:
        """Return the face of a square image, uint8 RGB [S, S, 3]."""
        from ffhqref.core.images import SIZE as IMAGE_SIZE
        from ffhqref.core.images import resize
        from ffhqref.faces.crops import crop_faces

        side = picture.shape[0]
        vector = self._embedder(crop_faces(resize(picture, IMAGE_SIZE)[None], self._crop, self._embedder))[0]
        left, top, right, bottom = (part * side for part in ALIGNED_BOX)
        return ReferenceFace((left, top, right, bottom), np.asarray(vector, np.float32))


def make_finder(options: Mapping[str, Any], *, largest: bool = False) -> FaceFinder:
    """Return what finds faces, from a mapping of options.

    Args:
        options: ``name`` is ``insightface`` (as published; ``detector`` and ``arcface`` are the files) or ``aligned``
            (``embedder``, ``crop`` and the embedder's own options). None stands for an option that is not given.
        largest: see `InsightFaces`.

    Raises:
        ConfigError: no such name, or options it does not take.
    """
    given = {key: value for key, value in options.items() if value is not None}
    name = given.pop("name", None)
    if name not in FINDERS:
        hint = did_you_mean(str(name), FINDERS)
        raise ConfigError(f"faces.name={name}: expected insightface or aligned.{hint}")
    try:
        return AlignedFaces(**given) if name == "aligned" else _insightfaces(**given, largest=largest)
    except TypeError as error:
        raise ConfigError(f"faces.name={name}: options that it does not take ({error})") from None


def _insightfaces(detector: str | None = None, arcface: str | None = None, *, largest: bool) -> InsightFaces:
    from ffhqref.weights.files import require

    files = (require("antelopev2-scrfd", path=detector), require("antelopev2-glintr100", path=arcface))
    return InsightFaces(*files, largest=largest)
