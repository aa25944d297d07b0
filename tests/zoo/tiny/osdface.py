"""Random weights of a small OSDFace in the published files."""

import json

import torch
from safetensors.torch import save_file

from ffhqref.core.compat import ensure_torchvision
from ffhqref.zoo.osdface.config import PromptConfig
from ffhqref.zoo.osdface.model import EmbeddingChange, PromptEncoder
from ffhqref.zoo.shared.architecture import read_architecture

CONFIG = {
    "n_embed": 64,
    "embed_dim": 8,
    "ch": 32,
    "ch_mult": [1, 1, 1],
    "num_res_blocks": 1,
    "z_channels": 8,
    "resolution": 64,
    "n_min": 12,
}
UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": [2, 2],
    "cross_attention_dim": 16,
    "use_linear_projection": True,
    "norm_num_groups": 4,
}
VAE = {
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
FULL = {
    "unet": {
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "vae": {**VAE, "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32},
}
"""Stable Diffusion 2.1 (base)."""


def write(folder, network, config):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def options(folder):
    ensure_torchvision()
    from diffusers import AutoencoderKL, UNet2DConditionModel

    config, base = read_architecture(PromptConfig, CONFIG), folder / "base"
    full = config == PromptConfig()  # all networks full size, then
    parts = FULL if full else {"unet": UNET, "vae": VAE}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel.from_config(parts["unet"])
        write(base / "unet", unet, parts["unet"])
        write(base / "vae", AutoencoderKL.from_config(parts["vae"]), parts["vae"])
        prompt = PromptEncoder(config)
        torch.nn.init.normal_(prompt.quantize.embedding.weight)  # else a few codes lie nearest to everything
        codes = {f"vqvae_LQ.{name}": value for name, value in prompt.state_dict().items()}
        change = EmbeddingChange(config.embed_dim, parts["unet"]["cross_attention_dim"]).state_dict()
        layer = "unet.mid_block.attentions.0.proj_in"
        width = parts["unet"]["block_out_channels"][-1]
        lora = {
            f"{layer}.lora_A.weight": torch.randn(2, width) * 0.1,
            f"{layer}.lora_B.weight": torch.randn(width, 2) * 0.1,
        }
    (base / "scheduler").mkdir()
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    torch.save({"state_dict": codes}, folder / "associate_2.ckpt")
    torch.save(change, folder / "embedding_change_weights.pth")
    save_file(lora, folder / "pytorch_lora_weights.safetensors")
    return {
        "path": folder / "associate_2.ckpt",
        "embedding_change": folder / "embedding_change_weights.pth",
        "lora": folder / "pytorch_lora_weights.safetensors",
        "base": base,
        "config": CONFIG,
    }
