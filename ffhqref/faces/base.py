"""What an embedder is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@runtime_checkable
class Embedder(Protocol):
    """A face recognition network.

    Attributes:
        dim: length of a vector.
        signature: network, weights hash and preprocessing in one line.
        face_size: side of the face crop it eats (112 for ArcFace and its kin, 150 for dlib's ResNet).
        template: which five-point layout that crop has: ``"arcface"`` or ``"dlib"``; see ffhqref.faces.crops.

    One that holds Python's lock while it works says so with ``threaded = False``; see ffhqref.faces.store.
    """

    dim: int
    signature: str
    face_size: int
    template: str

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 [B, dim], L2-normalised, from uint8 RGB [B, face_size, face_size, 3]."""
        ...
