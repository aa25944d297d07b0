"""What a renderer of references is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RendererInfo:
    """Facts about a renderer that the tables, the data card and the contact sheet state."""

    name: str
    summary: str
    """What its pictures are, in one line that a reader of the data card understands."""
    needs_normals: bool = False
    """A request without ``normals`` cannot be rendered."""
    licence: str = "Apache-2.0"
    """Of code and weights; that of the source pictures stays with them."""
    commercial_use: bool = True
    trained_on: tuple[str, ...] = ()
    paper: str | None = None
    proved_against: str = ""

    @property
    def source(self) -> str:
        """Return the text of the column ``source``, which tells these pictures from real references."""
        return f"synthetic:{self.name}"


@dataclass(frozen=True, eq=False)
class RenderRequest:
    """One picture to make: this person, in the pose and expression of that picture."""

    identity: NDArray[np.uint8]
    """uint8 RGB [512, 512, 3], the target."""
    pose: NDArray[np.uint8]
    """uint8 RGB [512, 512, 3], a picture of somebody else."""
    normals: NDArray[np.uint8] | None
    """uint8 RGB [512, 512, 3]: (n/2 + 0.5)·255 of a face mesh with the target's shape and the other picture's pose and
    expression, black outside; None where the user has rendered none."""
    seed: int
    """Keyed by run, target, bucket and attempt."""


@runtime_checkable
class Renderer(Protocol):
    """Makes pictures of a person.

    Attributes:
        info: what it is.
        signature: everything a picture depends on besides the request: version, options, weights.
        batch_size: requests that are best handed over together.
    """

    info: RendererInfo
    signature: str
    batch_size: int

    def render(self, requests: Sequence[RenderRequest]) -> list[NDArray[np.uint8]]:
        """Return one picture a request, uint8 RGB [512, 512, 3]; each depends on its own request only.

        Networks are loaded on the first call. What cannot be rendered raises; the caller then asks one by one.
        """
        ...
