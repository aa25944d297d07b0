"""Random weights of a small VQFR version 2 in the published layout."""

import torch

from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.vqfr.config import VQFRConfig
from ffhqref.zoo.vqfr.network import VQFRv2

CONFIG = {
    "base_channels": 32,
    "channel_multipliers": [1, 1, 2],
    "num_enc_blocks": 1,
    "num_dec_blocks": 1,
    "code_dim": 8,
    "inpfeat_dim": 8,
    "align_opt": {"cond_channels": 8, "deformable_groups": 4},
    "quantizer_opt": {"num_code": 16, "code_dim": 8, "spatial_size": [16, 16]},
}


def options(folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = VQFRv2(read_architecture(VQFRConfig, CONFIG)).state_dict()
    torch.save({"params_ema": state}, folder / "vqfr.pth")
    return {"path": folder / "vqfr.pth", "config": CONFIG, "fidelity_ratio": 0.5}
