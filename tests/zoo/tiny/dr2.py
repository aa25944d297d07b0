"""Random weights of a small DR2 and SPARNetHD in the published layout."""

import torch

from ffhqref.zoo.dr2.config import DR2Config
from ffhqref.zoo.dr2.network import SPARNetHD
from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

CONFIG = {
    "unet": {
        "image_size": 32,
        "model_channels": 32,
        "channel_mult": [1, 1],
        "num_res_blocks": 1,
        "attention_resolutions": [2],
        "num_head_channels": 16,
    },
    "spar": {"min_ch": 4, "max_ch": 8, "size": 64, "res_depth": 1, "hourglass_mid": 4, "bottleneck_size": 16},
    "inference": {"dr2_size": 32, "sr_size": 64},
}


def with_spectral_norm(tensors):
    """The three entries that each convolution's weight has in the published file; the norm they give is u·Mv."""
    made = {}
    for name, value in tensors.items():
        if value.dim() != 4:
            made[name] = value
            continue
        matrix = value.flatten(1)
        v = torch.nn.functional.normalize(torch.randn(matrix.shape[1]), dim=0)
        u = torch.nn.functional.normalize(matrix @ v, dim=0)
        made.update({f"{name}_orig": value, f"{name}_u": u, f"{name}_v": v})
    return made


def options(folder):
    config = DR2Config.load(CONFIG)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(GuidedUNet(config.unet).state_dict(), folder / "DR2.pkl")
        torch.save(with_spectral_norm(SPARNetHD(config.sparnet).state_dict()), folder / "spar.pth")
    return {"path": folder / "DR2.pkl", "sparnet_path": folder / "spar.pth", "config": CONFIG, "N": 1, "tau": 2}
