"""The networks against diffusers' blocks, at the settings of restorers.md 4.5, for several architectures."""

from __future__ import annotations

import pytest
import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.zoo.refldm.config import FirstStageConfig, UNetConfig
from ffhqref.zoo.refldm.first_stage import FirstStage
from ffhqref.zoo.refldm.keys_values import RowGroup, WithReferences
from ffhqref.zoo.refldm.unet import UNet


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """No parameter at its trivial start value, so that every layer shows in the output."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.dim() == 1 else 0.08))
    return module.eval()


class Mover:
    """Copies parameters from our names to diffusers'."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.state = module.state_dict()
        self.moved: dict[str, torch.Tensor] = {}

    def layer(self, ours: str, theirs: str) -> None:
        for kind in ("weight", "bias"):
            if f"{ours}.{kind}" in self.state:
                self.moved[f"{theirs}.{kind}"] = self.state[f"{ours}.{kind}"]

    def linear(self, ours: str, theirs: str) -> None:
        self.layer(ours, theirs)
        self.moved[f"{theirs}.weight"] = self.moved[f"{theirs}.weight"].flatten(1)

    def resnet(self, ours: str, theirs: str, names: dict[str, str]) -> None:
        for a, b in names.items():
            self.layer(f"{ours}.{a}", f"{theirs}.{b}")


UNET_NAMES = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
VQ_NAMES = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}


@pytest.mark.parametrize(
    ("mult", "depth", "attention", "head"),
    [((1, 2), 1, (2,), 16), ((1, 2, 3), 2, (1, 4), 8), ((1, 1, 1, 2), 1, (), 32), ((1,), 2, (1, 2), 32)],
)
def test_unet(mult, depth, attention, head):
    ensure_torchvision()
    from diffusers import UNet2DModel

    config = UNetConfig(
        in_channels=8,
        out_channels=4,
        model_channels=32,
        attention_resolutions=attention,
        num_res_blocks=depth,
        channel_mult=mult,
        num_head_channels=head,
    )
    ours = shaken(UNet(config))
    attends = [2**level in attention for level in range(len(mult))]
    theirs = UNet2DModel(
        in_channels=8,
        out_channels=4,
        block_out_channels=tuple(32 * m for m in mult),
        layers_per_block=depth,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
        attention_head_dim=head,
        norm_eps=1e-5,
        downsample_padding=1,
        downsample_type="conv",
        upsample_type="conv",
        flip_sin_to_cos=True,
        freq_shift=0,
    ).eval()
    move = Mover(ours)

    def attend(ours: str, theirs: str) -> None:
        move.layer(f"{ours}.norm", f"{theirs}.group_norm")
        move.linear(f"{ours}.proj_out", f"{theirs}.to_out.0")
        for kind in ("weight", "bias"):
            whole = move.state[f"{ours}.qkv.{kind}"].squeeze(-1)
            parts = whole.unflatten(0, (-1, 3, head)).transpose(0, 1).flatten(1, 2)
            for name, part in zip(("to_q", "to_k", "to_v"), parts, strict=True):
                move.moved[f"{theirs}.{name}.{kind}"] = part

    for a, b in (
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("input_blocks.0.0", "conv_in"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
    ):
        move.layer(a, b)
    index = 1
    for level, attentive in enumerate(attends):
        for block in range(depth):
            move.resnet(f"input_blocks.{index}.0", f"down_blocks.{level}.resnets.{block}", UNET_NAMES)
            if attentive:
                attend(f"input_blocks.{index}.1", f"down_blocks.{level}.attentions.{block}")
            index += 1
        if level < len(mult) - 1:
            move.layer(f"input_blocks.{index}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
            index += 1
    move.resnet("middle_block.0", "mid_block.resnets.0", UNET_NAMES)
    attend("middle_block.1", "mid_block.attentions.0")
    move.resnet("middle_block.2", "mid_block.resnets.1", UNET_NAMES)
    index = 0
    for up, attentive in enumerate(attends[::-1]):
        for block in range(depth + 1):
            move.resnet(f"output_blocks.{index}.0", f"up_blocks.{up}.resnets.{block}", UNET_NAMES)
            if attentive:
                attend(f"output_blocks.{index}.1", f"up_blocks.{up}.attentions.{block}")
            if block == depth and up < len(mult) - 1:
                move.layer(f"output_blocks.{index}.{1 + attentive}.conv", f"up_blocks.{up}.upsamplers.0.conv")
            index += 1
    theirs.load_state_dict(move.moved)
    x = torch.randn((2, 8, 16, 16), generator=torch.Generator().manual_seed(1))
    t = torch.tensor([3, 700])
    with torch.no_grad():
        expected = theirs(x, t).sample
        torch.testing.assert_close(ours(x, t), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("attention", [(2,), (1, 4), ()])
def test_branches_part_inside_as_they_would_outside(attention):
    """Rows given once and parted at the first attention layer, against rows given twice."""
    config = UNetConfig(
        in_channels=8,
        out_channels=4,
        model_channels=32,
        attention_resolutions=attention,
        num_res_blocks=1,
        channel_mult=(1, 2, 2),
        num_head_channels=16,
    )
    unet = shaken(UNet(config))
    generator = torch.Generator().manual_seed(1)
    x, given = torch.randn((2, 3, 8, 16, 16), generator=generator)
    with torch.no_grad():
        keys_values = unet.keys_values(given)
        groups = [RowGroup(0, 3, unet.keys_values(given[:1]), torch.ones(3)), RowGroup(3, 6, keys_values)]
        t = torch.tensor([400])
        inside = unet(x, t, WithReferences(groups))
        outside = unet(torch.cat([x, x]), t, WithReferences(groups))
        torch.testing.assert_close(inside, outside, rtol=1e-4, atol=1e-4 * float(outside.abs().max()))
        assert not torch.allclose(inside[:3], inside[3:], rtol=1e-2)


@pytest.mark.parametrize(("mult", "depth"), [((1, 1, 2), 1), ((1, 2, 2, 4), 2), ((1, 3), 3)])
def test_first_stage(mult, depth):
    ensure_torchvision()
    from diffusers import VQModel

    config = FirstStageConfig(
        embed_dim=4, n_embed=50, z_channels=6, resolution=64, ch=32, ch_mult=mult, num_res_blocks=depth
    )
    ours = FirstStage(config)
    shaken(ours)
    levels = len(mult)
    theirs = VQModel(
        block_out_channels=tuple(32 * m for m in mult),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=depth,
        latent_channels=6,
        vq_embed_dim=4,
        num_vq_embeddings=50,
        norm_num_groups=32,
    ).eval()
    move = Mover(ours)
    for side in ("encoder", "decoder"):
        for a, b in (("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out")):
            move.layer(f"{side}.{a}", f"{side}.{b}")
        move.resnet(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0", VQ_NAMES)
        move.resnet(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1", VQ_NAMES)
        move.layer(f"{side}.mid.attn_1.norm", f"{side}.mid_block.attentions.0.group_norm")
        for a, b in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            move.linear(f"{side}.mid.attn_1.{a}", f"{side}.mid_block.attentions.0.{b}")
    for level in range(levels):
        for block in range(depth):
            move.resnet(f"encoder.down.{level}.block.{block}", f"encoder.down_blocks.{level}.resnets.{block}", VQ_NAMES)
        move.layer(f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv")
        up = levels - 1 - level
        for block in range(depth + 1):
            move.resnet(f"decoder.up.{level}.block.{block}", f"decoder.up_blocks.{up}.resnets.{block}", VQ_NAMES)
        move.layer(f"decoder.up.{level}.upsample.conv", f"decoder.up_blocks.{up}.upsamplers.0.conv")
    for name in ("quant_conv", "post_quant_conv", "quantize.embedding"):
        move.layer(name, name)
    theirs.load_state_dict(move.moved)
    images = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        latents = theirs.encode(images).latents
        torch.testing.assert_close(ours.encode(images), latents, rtol=1e-4, atol=1e-4 * float(latents.abs().max()))
        expected = theirs.decode(latents).sample
        torch.testing.assert_close(ours.decode(latents), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_first_level_may_be_wider_than_the_first_convolution():
    """The encoder's first convolution has the width `ch`, whatever the first level's is, as in the published code."""
    config = FirstStageConfig(resolution=64, ch=32, ch_mult=(2, 1), num_res_blocks=1)
    first_stage = FirstStage(config)
    assert first_stage.encoder.conv_in.out_channels == 32
    assert first_stage.decoder.conv_out.in_channels == 64
    with torch.no_grad():
        assert first_stage.decode(first_stage.encode(torch.zeros(1, 3, 64, 64))).shape == (1, 3, 64, 64)


def test_attention_of_the_first_stage_sits_where_the_config_says():
    config = FirstStageConfig(resolution=64, ch=32, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(16, 64))
    names = FirstStage(config).state_dict()
    assert {name.split(".attn.")[0] for name in names if ".attn." in name} == {
        "encoder.down.0",
        "encoder.down.2",
        "decoder.up.0",
        "decoder.up.2",
    }
