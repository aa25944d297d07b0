"""ReF-LDM's tensors by the names of the published files and by those of diffusers' networks, which are equal to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Pair:
    """A layer: published name, diffusers' names, and the dimensions that make a linear layer a 1 × 1 convolution."""

    published: str
    theirs: tuple[str, ...]
    spare: int = 0


UNET_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
VQ_BLOCK = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}


def unet_pairs(depth: int, attends: list[bool]) -> Iterator[Pair]:
    """Yield the layers of a U-Net with ``depth`` blocks a level, and attention at the levels that say so."""

    def block(published: str, theirs: str) -> Iterator[Pair]:
        for ours, name in UNET_BLOCK.items():
            yield Pair(f"{published}.{ours}", (f"{theirs}.{name}",))

    def attention(published: str, theirs: str) -> Iterator[Pair]:
        yield Pair(f"{published}.norm", (f"{theirs}.group_norm",))
        yield Pair(f"{published}.qkv", tuple(f"{theirs}.{name}" for name in ("to_q", "to_k", "to_v")), 1)
        yield Pair(f"{published}.proj_out", (f"{theirs}.to_out.0",), 1)

    yield Pair("time_embed.0", ("time_embedding.linear_1",))
    yield Pair("time_embed.2", ("time_embedding.linear_2",))
    yield Pair("input_blocks.0.0", ("conv_in",))
    last = len(attends) - 1
    index = 1
    for level, attentive in enumerate(attends):
        for number in range(depth):
            yield from block(f"input_blocks.{index}.0", f"down_blocks.{level}.resnets.{number}")
            if attentive:
                yield from attention(f"input_blocks.{index}.1", f"down_blocks.{level}.attentions.{number}")
            index += 1
        if level < last:
            yield Pair(f"input_blocks.{index}.0.op", (f"down_blocks.{level}.downsamplers.0.conv",))
            index += 1
    yield from block("middle_block.0", "mid_block.resnets.0")
    yield from attention("middle_block.1", "mid_block.attentions.0")
    yield from block("middle_block.2", "mid_block.resnets.1")
    index = 0
    for level, attentive in enumerate(attends[::-1]):
        for number in range(depth + 1):
            yield from block(f"output_blocks.{index}.0", f"up_blocks.{level}.resnets.{number}")
            if attentive:
                yield from attention(f"output_blocks.{index}.1", f"up_blocks.{level}.attentions.{number}")
            if number == depth and level < last:
                yield Pair(f"output_blocks.{index}.{1 + attentive}.conv", (f"up_blocks.{level}.upsamplers.0.conv",))
            index += 1
    yield Pair("out.0", ("conv_norm_out",))
    yield Pair("out.2", ("conv_out",))


def first_stage_pairs(levels: int, depth: int) -> Iterator[Pair]:
    """Yield the layers of a first stage with ``depth`` blocks a level."""

    def block(published: str, theirs: str) -> Iterator[Pair]:
        for ours, name in VQ_BLOCK.items():
            yield Pair(f"{published}.{ours}", (f"{theirs}.{name}",))

    for side in ("encoder", "decoder"):
        for ours, name in (("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out")):
            yield Pair(f"{side}.{ours}", (f"{side}.{name}",))
        yield from block(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0")
        yield from block(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1")
        yield Pair(f"{side}.mid.attn_1.norm", (f"{side}.mid_block.attentions.0.group_norm",))
        for ours, name in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            yield Pair(f"{side}.mid.attn_1.{ours}", (f"{side}.mid_block.attentions.0.{name}",), 2)
    for level in range(levels):
        for number in range(depth):
            yield from block(f"encoder.down.{level}.block.{number}", f"encoder.down_blocks.{level}.resnets.{number}")
        yield Pair(f"encoder.down.{level}.downsample.conv", (f"encoder.down_blocks.{level}.downsamplers.0.conv",))
        up = levels - 1 - level
        for number in range(depth + 1):
            yield from block(f"decoder.up.{level}.block.{number}", f"decoder.up_blocks.{up}.resnets.{number}")
        yield Pair(f"decoder.up.{level}.upsample.conv", (f"decoder.up_blocks.{up}.upsamplers.0.conv",))
    for name in ("quant_conv", "post_quant_conv", "quantize.embedding"):
        yield Pair(name, (name,))


def published_shapes(theirs: dict[str, torch.Tensor], pairs: Iterable[Pair]) -> dict[str, list[int]]:
    """Return the published name and shape of every tensor of a network of diffusers'."""
    shapes = {}
    for pair in pairs:
        for kind in ("weight", "bias"):
            parts = [theirs[f"{name}.{kind}"] for name in pair.theirs if f"{name}.{kind}" in theirs]
            if parts:
                spare = [1] * pair.spare if kind == "weight" else []
                shapes[f"{pair.published}.{kind}"] = [len(parts) * len(parts[0]), *parts[0].shape[1:], *spare]
    return shapes


def to_diffusers(published: dict[str, torch.Tensor], pairs: Iterable[Pair], head: int = 1) -> dict[str, torch.Tensor]:
    """Return the state dict of diffusers' network; the published qkv is divided into heads of this width first."""
    state: dict[str, torch.Tensor] = {}
    for pair in pairs:
        for kind in ("weight", "bias"):
            whole = published.get(f"{pair.published}.{kind}")
            if whole is None:
                continue
            if pair.spare and kind == "weight":
                whole = whole.flatten(1)
            parts = [whole]
            if len(pair.theirs) == 3:
                parts = list(whole.unflatten(0, (-1, 3, head)).transpose(0, 1).flatten(1, 2))
            state |= {f"{name}.{kind}": part for name, part in zip(pair.theirs, parts, strict=True)}
    return state
