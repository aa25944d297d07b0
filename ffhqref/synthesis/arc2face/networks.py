"""The networks of Arc2Face, from their published files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import DependencyError
from ffhqref.weights.tensors import load_into, load_tensors

if TYPE_CHECKING:
    import torch

    from ffhqref.synthesis.arc2face.config import Arc2FaceConfig
    from ffhqref.weights.files import Weights

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the VAE's attention layers in files from before diffusers 0.16, such as Stable Diffusion 1.5's."""


@dataclass(frozen=True, eq=False)
class Arc2FaceNetworks:
    """Networks in evaluation mode, without gradients."""

    unet: Any
    controlnet: Any
    vae: Any
    encoder: Any
    config: Arc2FaceConfig


def build(config: Arc2FaceConfig) -> Arc2FaceNetworks:
    """Return the networks with random weights.

    Raises:
        DependencyError: diffusers or transformers is not installed.
    """
    ensure_torchvision()
    try:
        from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel
    except ImportError as error:
        raise DependencyError(
            f"renderer 'arc2face' needs the package '{error.name}': pip install 'ffhqref[diffusion]'"
        ) from None
    made = Arc2FaceNetworks(
        unet=UNet2DConditionModel(**config.unet),
        controlnet=ControlNetModel(**config.controlnet),
        vae=AutoencoderKL(**config.vae),
        encoder=CLIPTextModel(CLIPTextConfig(**config.encoder)),
        config=config,
    )
    for network in (made.unet, made.controlnet, made.vae, made.encoder):
        network.eval().requires_grad_(False)
    return made


def load(
    config: Arc2FaceConfig, files: Mapping[str, Weights | Path], device: str, dtype: torch.dtype
) -> Arc2FaceNetworks:
    """Return the networks with published weights.

    Args:
        config: their architecture.
        files: ``unet``, ``controlnet``, ``vae`` and ``encoder`` to a file each.
        device: where they run.
        dtype: of all four.

    Raises:
        WeightsError: a file is damaged or holds other tensors.
    """
    import torch

    with torch.device("meta"):
        made = build(config)
    for name in ("unet", "controlnet", "vae", "encoder"):
        network, tensors = getattr(made, name), load_tensors(files[name])
        if name == "vae":
            tensors = {_new_name(key): value for key, value in tensors.items()}
        if name == "encoder":
            tensors = encoder_tensors(tensors, network)
        network.to_empty(device=device)
        load_into(network, tensors, files[name])
        _fill_buffers(network)
        torch.nn.Module.to(
            network, dtype=dtype
        )  # diffusers' own warns of modules to keep in float32, of which none are
    return made


def encoder_tensors(tensors: Mapping[str, torch.Tensor], network: Any) -> dict[str, torch.Tensor]:
    """Rename the text encoder's tensors to the installed transformers' names, which lost a prefix in version 5."""
    own = {key.removeprefix("text_model."): key for key in network.state_dict()}
    short = {key.removeprefix("text_model."): value for key, value in tensors.items()}
    short.pop("embeddings.position_ids", None)  # 0 to 76, a tensor in old files only
    return {own.get(key, key): value for key, value in short.items()}


def _new_name(key: str) -> str:
    stem, _, last = key.rpartition(".")
    parent, _, layer = stem.rpartition(".")
    if ".attentions." in key and layer in _OLD_ATTENTION:
        return f"{parent}.{_OLD_ATTENTION[layer]}.{last}"
    return key


def _fill_buffers(network: Any) -> None:
    """Give values to what no file holds: the position numbers of the text encoder."""
    import torch

    for name, buffer in network.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
