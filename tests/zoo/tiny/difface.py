"""Random weights of a small DifFace in the published layout and config form."""

import torch

from ffhqref.zoo.difface.config import DifFaceConfig
from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet
from ffhqref.zoo.shared.swinir import build_swinir

CONFIG = {
    "model": {
        "params": {
            "image_size": 64,
            "channel_mult": [1, 1],
            "num_res_blocks": [1, 1],
            "attention_resolutions": [32],
            "num_head_channels": 16,
        }
    },
    "model_ir": {"params": {"img_size": 8, "embed_dim": 12, "depths": [1], "num_heads": [2]}},
}


def options(folder):
    config = DifFaceConfig.load(CONFIG)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet, swinir = GuidedUNet(config.unet).state_dict(), build_swinir(config.swinir).state_dict()
    torch.save({f"module.{name}": value for name, value in unet.items()}, folder / "iddpm.pth")
    swinir = {name.replace("conv_first.", "conv_first.1."): value for name, value in swinir.items()}
    torch.save(swinir, folder / "swinir.pth")
    paths = {"path": folder / "iddpm.pth", "swinir_path": folder / "swinir.pth"}
    return {**paths, "config": CONFIG, "respacing": "ddim10", "start": 3}
