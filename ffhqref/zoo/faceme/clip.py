"""FaceMe's CLIP identity encoder, which is PhotoMaker v1's: a vision tower with two projections.

Public names: `IdentityEncoder` (the network), `load_identity_encoder` (from ``photomaker-v1.bin``), `cut_face` and
`clip_pixels` (from an image and a face's box to what the network eats), `unit_length` (for ArcFace vectors).

Source: FaceMe, published code (commit 8973f65): arch/idencoder.py, infer.py; PhotoMaker v1. Nothing here was trained
by FaceMe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn

from ffhqref.core.errors import DependencyError, ImageError
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.faceme.config import IdentityEncoderConfig
from ffhqref.zoo.shared.model_folder import assemble

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "IdentityEncoder",
    "IdentityEncoderConfig",
    "clip_pixels",
    "cut_face",
    "load_identity_encoder",
    "unit_length",
]

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
"""Statistics of CLIP's training images, RGB."""


class IdentityEncoder(nn.Module):
    """CLIP features of face crops. Names of tensors are the published ones.

    Args:
        config: widths; the released ones when None.

    Raises:
        DependencyError: transformers is not installed.
    """

    def __init__(self, config: IdentityEncoderConfig | None = None) -> None:
        super().__init__()
        from ffhqref.core.compat import ensure_torchvision

        ensure_torchvision()
        try:
            from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
        except ImportError:
            raise DependencyError(
                "FaceMe's CLIP encoder needs transformers: pip install 'ffhqref[diffusion]'"
            ) from None
        self.config = config or IdentityEncoderConfig()
        sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")
        widths = {name: getattr(self.config, name) for name in (*sizes, "image_size", "projection_dim")}
        tower = CLIPVisionModelWithProjection(
            CLIPVisionConfig(hidden_act="quick_gelu", layer_norm_eps=1e-5, **widths)  # as in CLIP ViT-L/14
        )
        self.vision_model = tower.vision_model
        self.visual_projection = tower.visual_projection
        self.visual_projection_2 = nn.Linear(self.config.hidden_size, self.config.projection_dim_2, bias=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float [N, projection_dim + projection_dim_2] from normalised crops [N, 3, S, S] of `clip_pixels`."""
        pooled = self.vision_model(pixels).pooler_output
        return torch.cat([self.visual_projection(pooled), self.visual_projection_2(pooled)], dim=-1)


def load_identity_encoder(path: str | Path, config: IdentityEncoderConfig | None = None) -> IdentityEncoder:
    """Return the encoder with the weights of ``photomaker-v1.bin``, in float32, ready for inference.

    PhotoMaker's own fusion network (``fuse_module``), which lies in the same file, is left out.

    Args:
        path: the file.
        config: widths; the released ones when None.

    Raises:
        WeightsError: absent, damaged, or of other names or shapes.
    """
    ignored = ("fuse_module.", "vision_model.embeddings.position_ids")
    tensors = {
        name: value
        for name, value in load_tensors(path, wrappers=("id_encoder",)).items()
        if not name.startswith(ignored)
    }
    return cast("IdentityEncoder", assemble(lambda: IdentityEncoder(config), tensors, Path(path)).float())


def cut_face(picture: NDArray[np.uint8], box: Sequence[float]) -> NDArray[np.uint8]:
    """Return the pixels in a face's box, uint8 RGB; black where it reaches beyond the image.

    Args:
        picture: uint8 RGB [H, W, 3].
        box: left, top, right, bottom in pixels; rounded to whole ones, halves to even.

    Raises:
        ImageError: the box holds no pixel.
    """
    left, top, right, bottom = (round(float(edge)) for edge in box)
    if right <= left or bottom <= top:
        raise ImageError(f"a face's box without pixels: {left}, {top}, {right}, {bottom}")
    from PIL import Image

    return np.asarray(Image.fromarray(picture).crop((left, top, right, bottom)))


def clip_pixels(face: NDArray[np.uint8], size: int = 224) -> torch.Tensor:
    """Return float32 [3, size, size], CLIP's normalised input.

    The shortest side goes to ``size`` by PIL's bicubic on 8 bit, then the centre is cut out. Newer transformers
    resize with torch by default, which gives other pixels than the published results have.

    Args:
        face: uint8 RGB [h, w, 3].
        size: side of the network's input in pixels.
    """
    from PIL import Image

    height, width = face.shape[:2]
    short = min(height, width)
    new = (size, int(size * height / width)) if width == short else (int(size * width / height), size)
    resized = np.asarray(Image.fromarray(face).resize(new, Image.Resampling.BICUBIC))
    top, left = (resized.shape[0] - size) // 2, (resized.shape[1] - size) // 2
    values = (resized[top : top + size, left : left + size].astype(np.float64) * (1 / 255)).astype(np.float32)
    values = np.divide(values - np.array(_MEAN, np.float32), np.array(_STD, np.float32))
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def unit_length(embeddings: torch.Tensor) -> torch.Tensor:
    """Return ArcFace vectors [..., d] divided by their Euclidean norm, which `mix.Mix` expects."""
    made: torch.Tensor = embeddings / torch.linalg.vector_norm(embeddings, dim=-1, keepdim=True)
    return made
