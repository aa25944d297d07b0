"""FaceMe's identity mixing network: CLIP and ArcFace features of a reference to one token of SDXL's prompt.

Public names: `MixConfig` (widths), `Mix` (the network), `load_mix` and `save_mix` (the published file
``mix.safetensors``, or the folder ``mix/`` that holds it), `MIX_FILE` (that file's name).

Source: FaceMe (arXiv 2501.05177), published code modyu-liu/FaceMe, arch/idencoder.py (commit 8973f65). Of the identity
encoder this is the part that was trained; the CLIP tower is in `ffhqref.zoo.faceme.clip`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ffhqref.weights.tensors import load_into, load_tensors
from ffhqref.zoo.faceme.config import MixConfig

__all__ = ["MIX_FILE", "Mix", "MixConfig", "load_mix", "save_mix"]

MIX_FILE = "mix.safetensors"
"""Name of the weight file in its folder."""


class _Block(nn.Module):
    """Layer norm, linear, exact GELU, linear; plus the input where `residual`."""

    def __init__(self, width_in: int, width_out: int, *, residual: bool) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(width_in)
        self.fc1 = nn.Linear(width_in, width_out)
        self.fc2 = nn.Linear(width_out, width_out)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc2(nn.functional.gelu(self.fc1(self.layernorm(x))))
        return x + y if self.residual else y


class _ProjectIdentity(nn.Module):
    """ArcFace vector of d channels to 4 d channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp1 = _Block(width, 2 * width, residual=False)
        self.mlp2 = _Block(2 * width, 2 * width, residual=True)
        self.mlp3 = _Block(2 * width, 4 * width, residual=False)
        self.mlp4 = _Block(4 * width, 4 * width, residual=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.mlp4(self.mlp3(self.mlp2(self.mlp1(x))))
        return y


class Mix(nn.Module):
    """One token for each reference, from its CLIP and ArcFace features. Names of tensors are the published ones.

    Args:
        config: widths; the released ones when None.
    """

    def __init__(self, config: MixConfig | None = None) -> None:
        super().__init__()
        self.config = config or MixConfig()
        embed, widened = self.config.embed_dim, 4 * self.config.id_dim
        self.pro_id = _ProjectIdentity(self.config.id_dim)
        self.mlp1 = _Block(embed + widened, embed, residual=False)
        self.norm1 = nn.LayerNorm(embed)
        self.mlp2 = _Block(embed, embed, residual=True)

    def forward(self, clip: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Return tokens [..., embed_dim].

        Args:
            clip: [..., embed_dim], both projections of the CLIP tower, joined.
            identity: [..., id_dim], ArcFace vectors **of unit length**.
        """
        joined = torch.cat([clip, self.pro_id(identity)], dim=-1)
        token: torch.Tensor = self.mlp2(self.norm1(self.mlp1(joined)))
        return token


def load_mix(path: str | Path, config: MixConfig | None = None) -> Mix:
    """Return the network with the weights of a file, in float32, ready for inference (`eval`, gradients on).

    Args:
        path: ``mix.safetensors``, or the folder that holds it.
        config: widths; the released ones when None.

    Raises:
        WeightsError: absent, damaged, or of other names or shapes.
    """
    file = Path(path)
    if file.is_dir():
        file = file / MIX_FILE
    tensors = load_tensors(file)
    with torch.device("meta"):
        mix = Mix(config)
    mix.to_empty(device="cpu")
    load_into(mix, tensors, file)
    return mix.eval()


def save_mix(mix: nn.Module, folder: str | Path) -> Path:
    """Write ``folder/mix.safetensors`` in the published layout (bare names, the tensors' own type); return its path.

    The folder is made when absent. What lies there is replaced only by a complete file.
    """
    from safetensors.torch import save

    from ffhqref.core.files import write_atomic

    file = Path(folder) / MIX_FILE
    tensors = {name: value.detach().cpu().contiguous() for name, value in mix.state_dict().items()}
    write_atomic(file, save(tensors, metadata={"format": "pt"}))
    return file
