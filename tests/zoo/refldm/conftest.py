"""A small ReF-LDM with random weights, and the images to try it on."""

from __future__ import annotations

import pytest
import torch

from ffhqref.zoo.refldm.config import FirstStageConfig, RefLDMConfig, UNetConfig
from ffhqref.zoo.refldm.first_stage import FirstStage
from ffhqref.zoo.refldm.model import RefLDM
from ffhqref.zoo.refldm.unet import UNet

SMALL = RefLDMConfig(
    first_stage=FirstStageConfig(
        embed_dim=4, n_embed=64, z_channels=4, resolution=64, ch=32, ch_mult=(1, 1, 2), num_res_blocks=1
    ),
    unet=UNetConfig(
        in_channels=8,
        out_channels=4,
        model_channels=32,
        attention_resolutions=(2,),
        num_res_blocks=1,
        channel_mult=(1, 2),
        num_head_channels=16,
    ),
    image_size=16,
    channels=4,
)


def make_modules(config: RefLDMConfig, seed: int = 0) -> tuple[UNet, FirstStage]:
    """Random networks whose residual branches are not zero, as they are at the start of training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet, first_stage = UNet(config.unet), FirstStage(config.first_stage)
        for parameter in unet.parameters():
            if parameter.dim() > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
            elif not parameter.any():  # a norm without shift would hold constant images at rounding noise
                torch.nn.init.normal_(parameter, std=0.1)
        torch.nn.init.normal_(first_stage.quantize.embedding.weight)
    return unet, first_stage


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small gain nothing from threads, and lose much when test processes compete for the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_config() -> RefLDMConfig:
    return SMALL


@pytest.fixture
def small_modules(small_config):
    return make_modules(small_config)


@pytest.fixture
def small_model(small_config, small_modules) -> RefLDM:
    return RefLDM(small_config, *small_modules)


@pytest.fixture
def faces():
    """Return a function: seed and shape in, values in -1..1 out."""

    def make(seed: int, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    return make


@pytest.fixture
def noise():
    def make(seed: int, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    return make
