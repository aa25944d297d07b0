"""A small SDXL folder with random weights, in the released layout: for trying the whole chain without the real one.

Its VAE and U-Net stay random, since FaceMe trains neither, so what it restores is noise. Its files are read by the same
code as the released ones, and a training on it does all that one on the real base does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ffhqref.core.files import write_atomic

if TYPE_CHECKING:
    from ffhqref.zoo.faceme.config import IdentityEncoderConfig

WORDS = ("a", "photo", "of", "face", "person")
"""Words that are one token each; others are spelt."""

SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
"""SDXL's."""

TEXT = ({"hidden_size": 24, "layers": 2, "act": "quick_gelu"}, {"hidden_size": 40, "layers": 2, "act": "gelu"})
"""Both text encoders; together they are as wide as the U-Net's cross-attention."""

CROSS = sum(int(str(part["hidden_size"])) for part in TEXT)


def write_small_base(folder: str | Path, *, side: int = 64, widths: tuple[int, ...] = (32, 48), seed: int = 0) -> Path:
    """Write the folder and return it.

    Args:
        folder: made anew; what is there of the same names is replaced.
        side: of the images in pixels, a multiple of 16; the latents are an eighth.
        widths: channels of the U-Net's levels, multiples of 16.
        seed: of the weights.
    """
    from ffhqref.core.compat import ensure_torchvision

    ensure_torchvision()
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    folder = Path(folder)
    vocabulary = _write_tokenizers(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part, kind, sizes in zip(
            ("text_encoder", "text_encoder_2"), (CLIPTextModel, CLIPTextModelWithProjection), TEXT, strict=True
        ):
            width = int(str(sizes["hidden_size"]))
            config = CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=width,
                intermediate_size=2 * width,
                projection_dim=width,
                num_hidden_layers=int(str(sizes["layers"])),
                num_attention_heads=4,
                hidden_act=str(sizes["act"]),
                bos_token_id=0,
                eos_token_id=2,
                pad_token_id=1,
            )
            _save(kind(config), folder / part, "model", prefix="" if part.endswith("2") else "text_model.")
        levels = len(widths)
        cross = ["CrossAttnDownBlock2D"] * (levels - 1)
        unet = UNet2DConditionModel(
            sample_size=side // 8,
            block_out_channels=widths,
            down_block_types=("DownBlock2D", *cross),
            up_block_types=(*(["CrossAttnUpBlock2D"] * (levels - 1)), "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=1,
            attention_head_dim=tuple(width // 16 for width in widths),
            cross_attention_dim=CROSS,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + int(str(TEXT[1]["hidden_size"])),
            norm_num_groups=16,
        )
        _save(unet, folder / "unet", "diffusion_pytorch_model")
        vae = AutoencoderKL(
            block_out_channels=(16, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=side,
            scaling_factor=0.13025,
            force_upcast=True,
        )
        _save(vae, folder / "vae", "diffusion_pytorch_model")
    _write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    names = {
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_json(folder / "model_index.json", {"_class_name": "StableDiffusionXLPipeline", **names})
    return folder


def write_small_photomaker(path: str | Path, config: IdentityEncoderConfig, seed: int = 0) -> Path:
    """Write a ``photomaker-v1.bin`` with a random CLIP tower of these widths and no LoRA; return its path."""
    from ffhqref.training.files import save_whole
    from ffhqref.zoo.faceme.clip import IdentityEncoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = IdentityEncoder(config)
    save_whole(Path(path), {"id_encoder": tower.state_dict(), "lora_weights": {}})
    return Path(path)


def _write_tokenizers(folder: Path) -> int:
    """Write both tokenizers; return the size of the vocabulary.

    CLIP's form: 256 bytes as visible characters, the same at the end of a word, then what the merges make.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in visible] + [chr(256 + place) for place in range(256 - len(visible))]
    tokens, merges = [*letters, *(f"{letter}</w>" for letter in letters)], []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts[:2] = [parts[0] + parts[1]]
            tokens.append(parts[0])
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = {token: index for index, token in enumerate([*dict.fromkeys(tokens), start, end])}
    for part, padding in (("tokenizer", end), ("tokenizer_2", "!")):
        _write_json(folder / part / "vocab.json", vocabulary)
        write_atomic(folder / part / "merges.txt", "\n".join(["#version: 0.2", *dict.fromkeys(merges), ""]).encode())
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
        special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": padding}
        _write_json(folder / part / "tokenizer_config.json", {**config, **special})
        _write_json(folder / part / "special_tokens_map.json", special)
    return len(vocabulary)


def _save(network: Any, folder: Path, stem: str, prefix: str = "") -> None:
    """Write weights and config of a network as the released folders hold them, without the libraries' own bars."""
    from safetensors.torch import save

    names = network.state_dict()
    if all(name.startswith("text_model.") for name in names if not name.startswith("text_projection")):
        prefix = ""  # older versions of transformers keep the name of the released files
    tensors = {prefix + name: value.detach().contiguous() for name, value in names.items()}
    write_atomic(folder / f"{stem}.safetensors", save(tensors, metadata={"format": "pt"}))
    text = network.to_json_string() if hasattr(network, "to_json_string") else network.config.to_json_string()
    write_atomic(folder / "config.json", text.encode())


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False).encode())
