"""Random weights of a small Arc2Face, in files as the published ones are."""

from __future__ import annotations

import json

import numpy as np
import onnx
import torch

from ffhqref.synthesis.arc2face.config import Arc2FaceConfig
from ffhqref.synthesis.arc2face.networks import build

BLOCKS = {"block_out_channels": [32, 64], "layers_per_block": 1, "norm_num_groups": 16}
CONDITION = {"cross_attention_dim": 520, "attention_head_dim": 4}
TINY = {
    "unet": {
        **BLOCKS, **CONDITION, "sample_size": 16,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    },
    "controlnet": {
        **BLOCKS, **CONDITION, "conditioning_embedding_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    },
    "vae": {
        **BLOCKS, "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
        "latent_channels": 4, "sample_size": 32,
    },
    "encoder": {
        "vocab_size": 40, "hidden_size": 520, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 12, "hidden_act": "quick_gelu", "bos_token_id": 38,
        "eos_token_id": 39, "pad_token_id": 39,
    },
    "prompt": [5, 6, 7, 8, 9],
    "identity_token": 8,
    "size": 32,
}  # fmt: skip


def networks():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = build(Arc2FaceConfig.of(TINY))
        for parameter in made.controlnet.parameters():  # zero convolutions would hide the condition
            if not parameter.any():
                parameter.data.normal_(0, 0.2)
        for name, parameter in made.unet.named_parameters():  # one of twelve tokens would hardly show
            if "attn2.to_v" in name or "attn2.to_k" in name:
                parameter.data *= 20.0
    return made


def old_names(tensors):
    """Names of Stable Diffusion 1.5's VAE file, from before diffusers 0.16."""
    pairs = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for key, value in tensors.items():
        for new, old in pairs.items():
            if ".attentions." in key:
                key = key.replace(f".{new}.", f".{old}.")
        renamed[key] = value
    return renamed


def write_arcface(path):
    """A linear network in the form of an ArcFace file: [n, 3, 112, 112] to [n, 512]."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(0, 0.05, (3 * 7 * 7, 512)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "arcface",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 512])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)


def write_files(folder):
    """Write the files and return the renderer's options that name them."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    made = networks()
    save_file(made.unet.state_dict(), folder / "unet.safetensors")
    save_file(made.controlnet.state_dict(), folder / "controlnet.safetensors")
    save_file(old_names(made.vae.state_dict()), folder / "vae.safetensors")
    encoder = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in made.encoder.state_dict().items()}
    encoder["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    torch.save(encoder, folder / "encoder.bin")
    write_arcface(folder / "arcface.onnx")
    (folder / "config.json").write_text(json.dumps(TINY))
    return files_in(folder)


def files_in(folder):
    paths = {f"{name}_path": folder / f"{name}.safetensors" for name in ("unet", "controlnet", "vae")}
    paths |= {"encoder_path": folder / "encoder.bin", "arcface_path": folder / "arcface.onnx"}
    return {**paths, "config": folder / "config.json"}
