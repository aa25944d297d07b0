"""What an embedder is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@runtime_checkable
class Embedder(Protocol):
    """A face-recognition network.

    Attributes:
        dim: length of a vector.
        signature: network, weights hash and preprocessing in one line.
        face_size: height and width of its input crop (112 for ArcFace and the like, 150 for dlib's ResNet).
        template: five-point layout of that crop: ``"arcface"`` or ``"dlib"``; see `ffhqref.faces.crops`.

    One that holds Python's lock while it works says so with ``threaded = False``; see `ffhqref.faces.store`. The class
    of a plug-in can tell the thresholds that belong to it as ``max_distance`` and ``min_distance``, and its ``crop``.
    """

    dim: int
    signature: str
    face_size: int
    template: str

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 [B, dim], L2-normalised, from uint8 RGB [B, face_size, face_size, 3]."""
        ...
