"""Random weights of a small PMRF in the form of a training checkpoint."""

import torch

from ffhqref.zoo.pmrf.config import PMRFConfig
from ffhqref.zoo.pmrf.network import HDiT
from ffhqref.zoo.shared.swinir import build_swinir

CONFIG = {
    "hdit": {
        "widths": [16, 32, 32],
        "depths": [1, 1, 1],
        "self_attns": [
            {"type": "neighborhood", "d_head": 8, "kernel_size": 7},
            {"type": "neighborhood", "d_head": 8, "kernel_size": 7},
            {"type": "global", "d_head": 8},
        ],
        "mapping_depth": 1,
        "mapping_width": 16,
    },
    "swinir": {"img_size": 8, "embed_dim": 12, "depths": [1], "num_heads": [2]},
}


def options(folder):
    config = PMRFConfig.load(CONFIG)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow, mean = HDiT(config.hdit), build_swinir(config.swinir).state_dict()
    mean = {name.replace("conv_first.", "conv_first.1."): value for name, value in mean.items()}
    state = {f"model.{name}": value for name, value in flow.state_dict().items()}
    state.update({f"mmse_model.{name}": value for name, value in mean.items()})
    content = {
        "state_dict": state,
        "hyper_parameters": {"stage": "flow", "conditional": False, "mmse_noise_std": 0.1, "eps": 0.0},
        "ema": {"decay": 0.9999, "shadow_params": [value.detach() for value in flow.parameters()]},
    }
    torch.save(content, folder / "pmrf.ckpt")
    return {"path": folder / "pmrf.ckpt", "config": CONFIG, "steps": 2}
