"""Random weights of a small PGDiff in the published layout."""

import torch

from ffhqref.zoo.pgdiff.arcface import ArcFace
from ffhqref.zoo.pgdiff.config import PGDiffConfig
from ffhqref.zoo.pgdiff.network import SmoothSemantics
from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

CONFIG = {
    "model_and_diffusion": {
        "image_size": 32,
        "num_channels": 32,
        "channel_mult": "1, 1",
        "num_res_blocks": [1, 1],
        "attention_resolutions": "16",
        "num_head_channels": 16,
    },
    "restorer": {"mid_channels": 8, "num_blocks": 1, "growth_channels": 4},
    "arcface": {"widths": [4, 4, 4, 4], "layers": [1, 1, 1, 1], "features": 8},
    "inference": {"size": 32},
}


def options(folder):
    config = PGDiffConfig.load(CONFIG)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = GuidedUNet(config.unet).state_dict()
        torch.save({f"module.{name}": value for name, value in unet.items()}, folder / "iddpm.pth")
        torch.save({"state_dict": SmoothSemantics(config.rrdb).state_dict(), "iter": 7}, folder / "rrdb.pth")
        torch.save(ArcFace(config.arcface).state_dict(), folder / "arcface.pth")
    paths = {"path": folder / "iddpm.pth", "restorer_path": folder / "rrdb.pth", "arcface_path": folder / "arcface.pth"}
    return {**paths, "config": CONFIG, "respacing": "ddpm4"}
