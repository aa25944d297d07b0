"""What an embedder is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from ffhqref.core.errors import WeightsError

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


class Signed(Protocol):
    """A network that says which it is."""

    signature: str


SignedT = TypeVar("SignedT", bound=Signed)


def unchanged(made: SignedT, signature: str) -> SignedT:
    """Return a network that was made once more, in a worker, if it is the one that results are recorded for.

    Raises:
        WeightsError: a file of it was replaced in between.
    """
    check_unchanged(made.signature, signature)
    return made


def check_unchanged(found: str, recorded: str) -> None:
    """Refuse networks of another signature than results are recorded for; see `unchanged`."""
    if found != recorded:
        raise WeightsError(f"a network's file changed since the run began: {found}, before {recorded}; run again")
