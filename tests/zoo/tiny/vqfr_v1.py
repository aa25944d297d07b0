"""Random weights of a small VQFR version 1 in the published layout."""

import torch

from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.vqfr.config import VQFRv1Config
from ffhqref.zoo.vqfr.network_v1 import VQFRv1

CONFIG = {
    "size": 64,
    "base_channels": 32,
    "proj_patch_size": 4,
    "resolution_scale_rates": [1, 2, 2],
    "channel_multipliers": [1, 1, 2],
    "encoder_num_blocks": 1,
    "decoder_num_blocks": 1,
    "quant_level": ["Level_4"],
    "align_from_patch": 4,
    "inpfeat_extraction_opt": {"in_dim": 3, "out_dim": 8},
    "align_opt": {
        f"Level_{rate}": {"cond_channels": 8, "cond_downscale_rate": rate, "deformable_groups": 4} for rate in (4, 2, 1)
    },
    "quantizer_opt": {"Level_4": {"in_dim": 64, "num_code": 16, "code_dim": 8}},
}


def options(folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = VQFRv1(read_architecture(VQFRv1Config, CONFIG)).state_dict()
    torch.save({"params_ema": state}, folder / "vqfr_v1.pth")
    return {"path": folder / "vqfr_v1.pth", "config": CONFIG}
