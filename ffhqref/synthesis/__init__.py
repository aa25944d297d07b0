"""Synthetic references: a plan of poses, a renderer, a filter by similarity (FaceMe's FFHQRef).

FaceMe's authors published the pictures and not the code that made them. What is known, what is unconfirmed and what
is a choice of ours is told where it matters: `ffhqref.synthesis.plan`, `ffhqref.synthesis.stage`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ffhqref.core.registry import Registry

if TYPE_CHECKING:
    from ffhqref.synthesis.base import Renderer

RENDERERS: Registry[Callable[..., Renderer]] = Registry(
    "renderer",
    {
        "arc2face": "ffhqref.synthesis.arc2face.renderer:Arc2FaceRenderer",
        "warp": "ffhqref.synthesis.warp:WarpRenderer",
    },
    "ffhqref.renderers",
)
"""Every renderer by name; other packages add theirs through the entry point group ``ffhqref.renderers``."""


def make_renderer(name: str, **options: Any) -> Renderer:
    """Return the renderer of that name.

    Args:
        name: a name of `RENDERERS`.
        options: of its constructor.
    """
    return RENDERERS.make(name, **options)
