"""Random weights of a small FaceMe in the published files, and a stand-in for detector and ArcFace."""

import json

import numpy as np
import torch
from safetensors.torch import save_file

from ffhqref.core.compat import ensure_torchvision
from ffhqref.zoo.faceme.clip import IdentityEncoder
from ffhqref.zoo.faceme.config import FaceMeConfig
from ffhqref.zoo.faceme.faces import ReferenceFace
from ffhqref.zoo.faceme.lora import lora_shapes
from ffhqref.zoo.faceme.mix import Mix, save_mix

CONFIG = {
    "mix": {"embed_dim": 24, "id_dim": 6},
    "id_encoder": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "patch_size": 14,
        "image_size": 28,
        "projection_dim": 8,
        "projection_dim_2": 16,
    },
}
SDXL = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 1],
    "attention_head_dim": [2, 2],
    "cross_attention_dim": 24,
    "use_linear_projection": True,
    "norm_num_groups": 4,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 16,
}
VAE = {
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


class CentreFaces:
    """The middle half of an image as its face, its mean colours as ArcFace."""

    signature = "centre"

    def __call__(self, picture):
        height, width = picture.shape[:2]
        colours = picture.reshape(-1, 3).astype(np.float32) / 255
        embedding = np.concatenate([colours.mean(0), colours.std(0)]) + 0.1
        return ReferenceFace((width / 4, height / 4, width * 3 / 4, height * 3 / 4), embedding)


def tokenizer(folder):
    """Letters, the word 'face', and the two ends of a text; nothing else is needed."""
    letters = "abcdefghijklmnopqrstuvwxyz."
    merges = ["f a", "fa c", "fac e</w>"]
    words = [*letters, *(letter + "</w>" for letter in letters), "fa", "fac", "face</w>"]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = {**ends, "pad_token": "<|endoftext|>", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary)


def write(folder, network, config, stem="diffusion_pytorch_model", prefix=""):
    folder.mkdir(parents=True, exist_ok=True)
    # zero-initialised layers would hide every difference
    state = {name: value if value.any() else torch.randn_like(value) * 0.05 for name, value in state_of(network)}
    save_file({prefix + name: value.contiguous() for name, value in state.items()}, folder / f"{stem}.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def state_of(network):
    return network.state_dict().items()


def options(folder):
    ensure_torchvision()
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    base = folder / "base"
    tokenizer(base / "tokenizer")
    words = tokenizer(base / "tokenizer_2")
    text = {"vocab_size": words, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 77}
    text.update(bos_token_id=words - 2, eos_token_id=2, pad_token_id=words - 1)  # 2: as in SDXL's files
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, kind, width in (
            ("text_encoder", CLIPTextModel, 8),
            ("text_encoder_2", CLIPTextModelWithProjection, 16),
        ):
            config = {**text, "hidden_size": width, "intermediate_size": width, "projection_dim": width}
            network = kind(CLIPTextConfig(**config))
            bare = not any(key.startswith("text_model.") for key, _ in state_of(network))
            write(base / name, network, config, "model", "text_model." if bare else "")
        blocks = {**SDXL, "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}
        unet = UNet2DConditionModel.from_config(blocks)
        write(base / "unet", unet, blocks)
        write(base / "vae", AutoencoderKL.from_config(VAE), VAE)
        control = {**SDXL, "conditioning_embedding_out_channels": [4, 4, 4, 8]}
        write(folder / "controlnet", ControlNetModel.from_config(control), control)
        config = FaceMeConfig.load(CONFIG)
        save_mix(Mix(config.mix), folder / "mix")
        encoder = IdentityEncoder(config.id_encoder).state_dict()
        lora = {name: torch.randn(shape) * 0.2 for name, shape in lora_shapes(unet, rank=2).items()}
    torch.save({"id_encoder": encoder, "lora_weights": lora}, folder / "photomaker-v1.bin")
    (base / "scheduler").mkdir()
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    return {
        "base": base,
        "controlnet": folder / "controlnet",
        "mix": folder / "mix",
        "photomaker": folder / "photomaker-v1.bin",
        "config": CONFIG,
        "steps": 3,
        "faces": CentreFaces(),
        "info": {"input_size": 64},
    }
