"""Synthetic references: a plan of poses, a renderer, a filter by similarity (FaceMe's FFHQRef).

FaceMe's authors published the images but not the code that made them. `ffhqref.synthesis.plan` and
`ffhqref.synthesis.stage` say what is known, what is unconfirmed and what is this project's choice.
"""

from __future__ import annotations

from collections.abc import Callable

from ffhqref.core.registry import Registry
from ffhqref.synthesis.base import Renderer, as_renderer

RENDERERS: Registry[Callable[..., object]] = Registry(
    "renderer",
    {
        "arc2face": "ffhqref.synthesis.arc2face.renderer:Arc2FaceRenderer",
        "warp": "ffhqref.synthesis.warp:WarpRenderer",
    },
    "ffhqref.renderers",
)
"""Renderers by name. Other packages add theirs through the entry point group ``ffhqref.renderers``."""


def make_renderer(name: str, **options: object) -> Renderer:
    """Return the renderer of that name.

    Args:
        name: a name of `RENDERERS`.
        options: of its constructor.
    """
    return as_renderer(RENDERERS.make(name, **options), name)
