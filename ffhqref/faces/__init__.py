"""Crops, embedders and detectors of faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ffhqref.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ffhqref.faces.base import Embedder

EMBEDDERS: Registry[Callable[..., Embedder]] = Registry(
    "embedder",
    {
        "adaface": "ffhqref.faces.recognisers:adaface_embedder",
        "dlib": "ffhqref.faces.embedders:DlibEmbedder",
        "facenet": "ffhqref.faces.recognisers:FaceNetEmbedder",
        "insightface": "ffhqref.faces.embedders:insightface_embedder",
        "onnx": "ffhqref.faces.embedders:OnnxEmbedder",
    },
    "ffhqref.embedders",
)
"""Every embedder by name; other packages add theirs through the entry point group ``ffhqref.embedders``."""


CROPS: Registry[Callable[[NDArray[np.uint8], Embedder], NDArray[np.uint8]]] = Registry(
    "crop",
    {
        "facenet_box": "ffhqref.faces.crops:facenet_box",
        "ffhq_template": "ffhqref.faces.crops:ffhq_template",
        "refldm_center": "ffhqref.faces.crops:refldm_center",
    },
    "ffhqref.crops",
)
"""Every crop by name: a function from aligned faces uint8 RGB [B, 512, 512, 3] and an embedder to its input uint8 RGB
[B, S, S, 3]; other packages add theirs through the entry point group ``ffhqref.crops``."""


def make_embedder(name: str, **options: Any) -> Embedder:
    """Return the embedder of that name.

    Args:
        name: a name of `EMBEDDERS`.
        options: of its constructor, for instance ``path``.
    """
    return EMBEDDERS.make(name, **options)


def embed(images: NDArray[np.uint8], embedder: Embedder, crop: str = "ffhq_template") -> NDArray[np.float32]:
    """Return float32 [B, dim], L2-normalised, from aligned faces uint8 RGB [B, 512, 512, 3]."""
    from ffhqref.faces.crops import crop_faces

    return embedder(crop_faces(images, crop, embedder))
