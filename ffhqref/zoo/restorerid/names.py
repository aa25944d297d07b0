"""From the names of tensors in RestorerID's checkpoint to those of diffusers' networks, and the LoRA merged.

The checkpoint has the names of latent-diffusion: U-Net and VAE as in every Stable Diffusion 1 checkpoint, and in the
attention layers LoRA pairs, which are merged here: W + up · down, of scale 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ffhqref.core.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ffhqref.zoo.restorerid.config import UNetConfig

Tensors = Mapping[str, "torch.Tensor"]

PREFIXES = {
    "unet": "model.diffusion_model.",
    "structure": "structcond_stage_model.",
    "vae": "first_stage_model.",
    "text": "cond_stage_model.transformer.",
    "image": "Adapter.image_encoder.",
    "projection": "Adapter.image_proj_model.",
}
"""Networks to the prefix of their tensors."""

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "input_blocks.0.0.": "conv_in.",
    "out.0.": "conv_norm_out.",
    "out.2.": "conv_out.",
    "middle_block.0.": "mid_block.resnets.0.",
    "middle_block.1.": "mid_block.attentions.0.",
    "middle_block.2.": "mid_block.resnets.1.",
}
_LORA = re.compile(r"(.+)\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")
_ATTENTION = re.compile(r".+\.attn[12]\.to_(q|k|v|out\.0)\.weight")

_VAE = (
    (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.mid\.block_(\d)\.", lambda found: f".mid_block.resnets.{int(found[1]) - 1}."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.(q|k|v)\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.(down|up)\.(\d+)\.block\.", r".\1_blocks.\2.resnets."),
    (r"\.(down|up)\.(\d+)\.(down|up)sample\.", r".\1_blocks.\2.\3samplers.0."),
)  # type: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

_PROJECTION = (
    (r"^perceiver_resampler\.", ""),
    (r"^proj\.0\.", "proj.net.0.proj."),
    (r"^proj\.2\.", "proj.net.2."),
    (r"^(layers\.\d+)\.0\.norm1\.", r"\1.ln0."),
    (r"^(layers\.\d+)\.0\.norm2\.", r"\1.ln1."),
    (r"^(layers\.\d+)\.0\.to_out\.", r"\1.attn.to_out.0."),
    (r"^(layers\.\d+)\.0\.to_", r"\1.attn.to_"),
    (r"^(layers\.\d+)\.1\.0\.", r"\1.ff.0."),
    (r"^(layers\.\d+)\.1\.1\.", r"\1.ff.1.net.0.proj."),
    (r"^(layers\.\d+)\.1\.3\.", r"\1.ff.1.net.2."),
)


def part(tensors: Tensors, network: str) -> dict[str, torch.Tensor]:
    """Return a network's tensors without their prefix, in float32. Old files' position numbers are left out."""
    prefix = PREFIXES[network]
    return {
        name.removeprefix(prefix): value.float()
        for name, value in tensors.items()
        if name.startswith(prefix) and not name.endswith(".position_ids")
    }


def structure_tensors(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Return the structure encoder's tensors under the names of `ffhqref.zoo.restorerid.structure`."""
    return {_residual(name): value for name, value in tensors.items()}


def unet_tensors(tensors: Tensors, config: UNetConfig, path: str | Path) -> dict[str, torch.Tensor]:
    """Return the U-Net's tensors under the names of diffusers, with the LoRA merged.

    Args:
        tensors: without prefix.
        config: widths.
        path: where they came from, for messages.

    Raises:
        WeightsError: an attention layer has no LoRA, or one of another shape.
    """
    places = _ENDS | _blocks(config)
    named = {}
    for name, value in _merged(tensors, path).items():
        start = next((start for start in places if name.startswith(start)), "")
        named[_residual(places.get(start, "") + name.removeprefix(start))] = value
    return named


def vae_tensors(tensors: Tensors, levels: int) -> dict[str, torch.Tensor]:
    """Return the VAE's tensors under the names of diffusers, which counts the decoder's levels from the other end.

    Args:
        tensors: without prefix.
        levels: number of levels.
    """
    named = {}
    for old, value in tensors.items():
        name = _renamed(old, _VAE)
        name = re.sub(r"up_blocks\.(\d+)", lambda found: f"up_blocks.{levels - 1 - int(found[1])}", name)
        squeeze = ".attentions." in name and value.ndim == 4  # 1x1 convolutions there, linear layers here
        named[name] = value[:, :, 0, 0] if squeeze else value
    return named


def projection_tensors(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Return the identity projection's tensors under the names of diffusers; keys and values are one tensor there."""
    named = {}
    for old, value in tensors.items():
        name = _renamed(old, _PROJECTION)
        if ".to_kv." in name:
            named[name.replace(".to_kv.", ".to_k.")], named[name.replace(".to_kv.", ".to_v.")] = value.chunk(2)
        else:
            named[name] = value
    return named


def _residual(name: str) -> str:
    for old, new in _RESIDUAL.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name


def _renamed(name: str, rules: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def _blocks(config: UNetConfig) -> dict[str, str]:
    """Return where each block's layers stand in diffusers, by the start of their names."""
    each, levels = config.num_res_blocks, len(config.channel_mult)
    places = {}
    for level in range(levels):
        for row in range(each + 1):
            old = f"input_blocks.{1 + level * (each + 1) + row}."
            if row == each:
                places[f"{old}0.op."] = f"down_blocks.{level}.downsamplers.0.conv."
            else:
                places[f"{old}0."] = f"down_blocks.{level}.resnets.{row}."
                places[f"{old}1."] = f"down_blocks.{level}.attentions.{row}."
            old, attends = f"output_blocks.{level * (each + 1) + row}.", 2 ** (levels - 1 - level)
            places[f"{old}0."] = f"up_blocks.{level}.resnets.{row}."
            has_attention = attends in config.attention_resolutions
            if has_attention:
                places[f"{old}1."] = f"up_blocks.{level}.attentions.{row}."
            places[f"{old}{2 if has_attention else 1}.conv."] = f"up_blocks.{level}.upsamplers.0.conv."
    return places


def _merged(tensors: Tensors, path: str | Path) -> dict[str, torch.Tensor]:
    """Return the tensors with every LoRA pair added to its weight."""
    made = {name: value for name, value in tensors.items() if not _LORA.fullmatch(name)}
    known = set()
    for name in [name for name in made if _ATTENTION.fullmatch(name)]:
        stem = name.removesuffix(".0.weight").removesuffix(".weight") + "_lora"
        pair = [f"{stem}.down.weight", f"{stem}.up.weight"]
        if missing := [each for each in pair if each not in tensors]:
            raise WeightsError(f"{path} does not fit RestorerID: no tensor {PREFIXES['unet']}{missing[0]}")
        down, up = (tensors[each] for each in pair)
        if (up.shape[0], down.shape[1], up.shape[1]) != (*made[name].shape, down.shape[0]):
            raise WeightsError(f"{path} does not fit RestorerID: {PREFIXES['unet']}{pair[0]} is of another shape")
        made[name] = made[name] + up @ down
        known.update(pair)
    # pairs of no layer stay, so that the strict load names them
    return made | {name: value for name, value in tensors.items() if _LORA.fullmatch(name) and name not in known}
