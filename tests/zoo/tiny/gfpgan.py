"""Random weights of a narrow GFPGAN of 64 pixels in the published layout."""

from importlib.util import find_spec

import pytest
import torch

from ffhqref.zoo.gfpgan.config import GFPGANConfig
from ffhqref.zoo.gfpgan.network import build_network

CONFIG = {"out_size": 64, "num_style_feat": 16, "narrow": 0.03125}


def options(folder):
    if not find_spec("spandrel"):
        pytest.skip("no spandrel here")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build_network(GFPGANConfig(**CONFIG)).state_dict()
    # biases and noise strengths start at zero, where the noise would have no influence
    state = {name: value if value.any() else torch.full_like(value, 0.1) for name, value in state.items()}
    torch.save({"params_ema": state}, folder / "gfpgan.pth")
    return {"path": folder / "gfpgan.pth", "config": CONFIG}
