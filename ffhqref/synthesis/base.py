"""Interface of renderers of synthetic references."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RendererInfo:
    """Facts about a renderer for tables, data card and contact sheet."""

    name: str
    summary: str
    """Its images, in one line for readers of the data card."""
    needs_normals: bool = False
    """A request without ``normals`` cannot be rendered."""
    licence: str = "Apache-2.0"
    """Of code and weights; the licence of the source images applies too."""
    commercial_use: bool = True
    trained_on: tuple[str, ...] = ()
    paper: str | None = None
    verified_against: str = ""

    @property
    def source(self) -> str:
        """Return the text of the column ``source``, which tells these images from real references."""
        return f"synthetic:{self.name}"


@dataclass(frozen=True, eq=False)
class RenderRequest:
    """One image to make: this person, in the pose and expression of that image."""

    identity: NDArray[np.uint8]
    """uint8 RGB [512, 512, 3], the target."""
    pose: NDArray[np.uint8]
    """uint8 RGB [512, 512, 3], an image of another person."""
    normals: NDArray[np.uint8] | None
    """uint8 RGB [512, 512, 3]: (n/2 + 0.5)·255 of a face mesh with the target's shape and the other image's pose and
    expression, black outside; None where the user has rendered none."""
    seed: int
    """From the seed of the run, target, bucket and attempt."""


class Renderer(ABC):
    """Makes images of a person.

    Attributes:
        info: facts about it.
        signature: everything an image depends on besides the request: version, options, weights.
        batch_size: requests of one `render` call.
    """

    info: RendererInfo
    signature: str
    batch_size: int = 1

    @abstractmethod
    def render(self, requests: Sequence[RenderRequest]) -> list[NDArray[np.uint8]]:
        """Return one image a request, uint8 RGB [512, 512, 3]; each depends on its own request only.

        Load networks on the first call. Raise for what cannot be rendered; the requests are then tried one by one.
        """


class _Wrapped(Renderer):
    """A renderer that does not derive from `Renderer` but has its members."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer
        self.info, self.signature = renderer.info, str(renderer.signature)
        if hasattr(renderer, "batch_size"):
            self.batch_size = int(renderer.batch_size)

    def render(self, requests: Sequence[RenderRequest]) -> list[NDArray[np.uint8]]:
        made: list[NDArray[np.uint8]] = self._renderer.render(requests)
        return made


def as_renderer(made: object, name: str) -> Renderer:
    """Return a renderer of the base class, from an object of any class that has its members.

    Raises:
        ConfigError: a member is missing.
    """
    if isinstance(made, Renderer):
        return made
    missing = [member for member in ("info", "signature", "render") if not hasattr(made, member)]
    if missing:
        raise ConfigError(f"renderer '{name}': {type(made).__name__} has no '{missing[0]}'; derive it from Renderer")
    return _Wrapped(made)
