"""What a training starts from: fresh networks, or those of an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ffhqref.zoo.refldm.checkpoint import (
    UNET,
    check_shapes,
    load_published,
    read_tensors,
    refuse,
    shapes,
    unknown,
)
from ffhqref.zoo.refldm.first_stage import FirstStage
from ffhqref.zoo.refldm.unet import UNet

if TYPE_CHECKING:
    from ffhqref.zoo.refldm.config import RefLDMConfig


def fresh_unet(config: RefLDMConfig, seed: int) -> UNet:
    """Return a U-Net with the published initialisation, the same for one seed, leaving torch's own seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(config.unet)


def fresh_first_stage(config: RefLDMConfig, seed: int) -> FirstStage:
    """Return a first stage with the published initialisation, the same for one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FirstStage(config.first_stage)


def trained_first_stage(config: RefLDMConfig, vqgan_ckpt: str | Path) -> FirstStage:
    """Return the first stage of a ``vqgan.ckpt``.

    Raises:
        WeightsError: the file cannot be read, or is of another model.
    """
    expected = shapes(config)[1]
    state = {key: value for key, value in read_tensors(vqgan_ckpt).items() if not key.startswith("loss.")}
    refuse(vqgan_ckpt, unknown(expected, state), unknown(state, expected))
    check_shapes(vqgan_ckpt, state, expected)
    first_stage = fresh_first_stage(config, 0)
    first_stage.load_state_dict(state)
    return first_stage


def unet_of_ldm(config: RefLDMConfig, ldm_ckpt: str | Path, vqgan_ckpt: str | Path | None = None) -> UNet:
    """Return the U-Net that the ReF-LDM fine-tune starts from: the LDM's raw weights, not its averages.

    The published config ignores the averages of the file it starts from, so that they start anew.

    Raises:
        WeightsError: the file cannot be read, or is of another model.
    """
    load_published(ldm_ckpt, vqgan_ckpt, config)  # refuses what is not whole
    state = {key[len(UNET) :]: value for key, value in read_tensors(ldm_ckpt).items() if key.startswith(UNET)}
    unet = fresh_unet(config, 0)
    unet.load_state_dict(state)
    return unet


@torch.no_grad()
def unit_latents(first_stage: FirstStage, images: torch.Tensor) -> float:
    """Scale latents and codes so that the latents of these images have unit deviation; return the factor.

    The layers before and behind take the factor in, so every image is coded and decoded as before. The noise
    schedule expects latents of about this size (the published model has no other scale factor than 1), and those of
    a first stage that was trained for a short while can be several times smaller.

    Args:
        first_stage: changed in place.
        images: [B, 3, H, W] in −1..1.
    """
    factor = 1.0 / float(first_stage.encode(images).std())
    for weight in (first_stage.quant_conv.weight, first_stage.quant_conv.bias, first_stage.quantize.embedding.weight):
        assert weight is not None
        weight.mul_(factor)
    first_stage.post_quant_conv.weight.div_(factor)
    return factor
