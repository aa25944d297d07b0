"""Random weights of a small GPEN in the published layout."""

import torch

from ffhqref.zoo.gpen.config import GPENConfig
from ffhqref.zoo.gpen.network import FullGenerator

CONFIG = {"size": 64, "style_dim": 16, "n_mlp": 2, "narrow": 1 / 32}


def options(folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = FullGenerator(GPENConfig(**CONFIG))
        for name, parameter in network.named_parameters():
            if name.endswith("modulation.bias"):
                torch.nn.init.ones_(parameter)
            elif name.endswith("noise.weight"):  # zero would hide the encoder's maps
                torch.nn.init.constant_(parameter, 0.7)
    torch.save(network.state_dict(), folder / "gpen.pth")
    return {"path": folder / "gpen.pth", "config": CONFIG}
