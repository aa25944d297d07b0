"""Random weights of a small ReF-LDM in the published layout."""

import torch
import yaml

from ffhqref.zoo.refldm.checkpoint import published_state
from ffhqref.zoo.refldm.config import RefLDMConfig
from ffhqref.zoo.refldm.first_stage import FirstStage
from ffhqref.zoo.refldm.unet import UNet

CONFIG = {
    "model": {
        "params": {
            "image_size": 8,
            "channels": 4,
            "first_stage_config": {
                "params": {
                    "embed_dim": 4,
                    "n_embed": 64,
                    "ddconfig": {
                        "z_channels": 4,
                        "resolution": 32,
                        "ch": 32,
                        "ch_mult": [1, 1, 2],
                        "num_res_blocks": 1,
                    },
                }
            },
            "unet_config": {
                "params": {
                    "in_channels": 8,
                    "out_channels": 4,
                    "model_channels": 32,
                    "attention_resolutions": [2],
                    "num_res_blocks": 1,
                    "channel_mult": [1, 2],
                    "num_head_channels": 16,
                }
            },
        }
    }
}


def options(folder):
    path = folder / "refldm.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    config = RefLDMConfig.load(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet, first_stage = UNet(config.unet).state_dict(), FirstStage(config.first_stage).state_dict()
    # zero-initialised output layers would hide every difference
    unet = {name: value if value.any() else torch.randn_like(value) * 0.05 for name, value in unet.items()}
    state = published_state(config, unet, unet, first_stage, decay=0.99, updates=1)
    torch.save({"state_dict": state}, folder / "refldm.ckpt")
    return {"refldm_ckpt": folder / "refldm.ckpt", "config": path, "steps": 4}
