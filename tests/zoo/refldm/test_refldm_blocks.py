"""The networks against diffusers' blocks, at settings that make both equal, for several architectures."""

from __future__ import annotations

import pytest
import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.zoo.refldm.config import FirstStageConfig, UNetConfig
from ffhqref.zoo.refldm.first_stage import FirstStage
from ffhqref.zoo.refldm.keys_values import RowGroup, WithReferences
from ffhqref.zoo.refldm.unet import UNet

from .diffusers_names import first_stage_pairs, to_diffusers, unet_pairs


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """No parameter at its trivial start value, so that every layer shows in the output."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.dim() == 1 else 0.08))
    return module.eval()


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
    theirs.load_state_dict(to_diffusers(ours.state_dict(), unet_pairs(depth, attends), head))
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
    theirs.load_state_dict(to_diffusers(ours.state_dict(), first_stage_pairs(levels, depth)))
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
