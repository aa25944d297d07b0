"""Random weights of a small InstantRestore in the published files."""

import json

import torch
from safetensors.torch import save_file

from ffhqref.core.compat import ensure_torchvision
from ffhqref.zoo.instantrestore.lora import UNET_LAYERS, VAE_LAYERS, add_lora

from .faceme import SCHEDULER, tokenizer

SMALL = {
    "unet": {
        "block_out_channels": [8, 8, 8, 8],
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "layers_per_block": 1,
        "attention_head_dim": [2, 2, 2, 2],
        "cross_attention_dim": 8,
        "use_linear_projection": True,
        "norm_num_groups": 4,
    },
    "vae": {
        "block_out_channels": [8, 8, 8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
    },
    "text": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    "rank": 2,
}
CONFIG = SMALL


def published(width):
    """Return the published architecture with that many channels in the U-Nets' first level; 320 are published."""
    widths = [width, 2 * width, 4 * width, 4 * width]
    unet = {"block_out_channels": widths, "layers_per_block": 2, "norm_num_groups": 32}
    vae = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32}
    heads = [width // 64, width // 32, width // 16, width // 16]
    return {
        **SMALL,
        "unet": {**SMALL["unet"], **unet, "attention_head_dim": heads},
        "vae": {**SMALL["vae"], **vae},
        "rank": 32,
    }


def options(folder):
    ensure_torchvision()
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    base, vae, rank = folder / "sd-turbo", folder / "sd-vae-ft-mse", CONFIG["rank"]
    words = tokenizer(base / "tokenizer")
    text = {**CONFIG["text"], "vocab_size": words, "bos_token_id": words - 2, "eos_token_id": 2}
    state = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for part, kind, layers, adapter in (
            ("unet", UNet2DConditionModel, UNET_LAYERS, "default"),
            ("vae", AutoencoderKL, VAE_LAYERS, "vae_skip"),
        ):
            network = kind.from_config(CONFIG[part])
            # as published: the original is what the other one was before training
            original = {f"net.original_{part}.{name}": value.clone() for name, value in network.state_dict().items()}
            add_lora(network, layers, rank, adapter)
            state.update(
                {f"net.{part}.{name}": value.clone() for name, value in network.state_dict().items()} | original
            )
        state["net.unet.conv_in.weight"] += 0.1  # trained in full
        encoder = CLIPTextModel(CLIPTextConfig(**text))
        texts = {
            f"text_model.{name.removeprefix('text_model.')}": value for name, value in encoder.state_dict().items()
        }
    state.update({f"net.text_encoder.{name}": value for name, value in texts.items()})
    for place, config in (
        (base / "unet" / "config.json", CONFIG["unet"]),
        (base / "text_encoder" / "config.json", text),
        (base / "scheduler" / "scheduler_config.json", SCHEDULER),
        (vae / "config.json", CONFIG["vae"]),
    ):
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(config))
    save_file(texts, base / "text_encoder" / "model.safetensors")
    model = {"lora_rank_unet": rank, "lora_rank_vae": rank, "use_adain": True, "train_input": False}
    torch.save({"state_dict": state, "cfg": {"model": model}, "optimizer": {}}, folder / "final_model_ckpt.pt")
    return {"path": folder / "final_model_ckpt.pt", "base": base, "vae": vae, "size": 64}
