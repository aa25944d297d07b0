"""Random weights of a small RestorerID in the published file, and a stand-in for detector and ArcFace."""

import json
import re
from dataclasses import asdict

import numpy as np
import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.zoo.restorerid import names
from ffhqref.zoo.restorerid.config import RestorerIDConfig
from ffhqref.zoo.restorerid.faces import ReferenceFace
from ffhqref.zoo.shared.architecture import read_architecture

from .faceme import tokenizer

CONFIG = {
    "unet": {
        "model_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 1], "attention_resolutions": [1],
        "num_heads": 2, "context_dim": 16, "semb_channels": 32,
    },
    "struct": {
        "model_channels": 32, "out_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 1],
        "attention_resolutions": [1], "num_heads": 2,
    },
    "vae": {"ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1},
    "spade_hidden": 8,
    "adapter": {"context": 16, "id_dim": 6, "depth": 1, "dim_head": 8},
    "text": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "vision": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "projection_dim": 8, "patch_size": 28, "image_size": 56,
    },
}  # fmt: skip

PROJECTION = (
    (r"^proj\.net\.0\.proj\.", "proj.0."),
    (r"^proj\.net\.2\.", "proj.2."),
    (r"\.ln0\.", ".0.norm1."),
    (r"\.ln1\.", ".0.norm2."),
    (r"\.attn\.to_out\.0\.", ".0.to_out."),
    (r"\.attn\.to_", ".0.to_"),
    (r"\.ff\.0\.", ".1.0."),
    (r"\.ff\.1\.net\.0\.proj\.", ".1.1."),
    (r"\.ff\.1\.net\.2\.", ".1.3."),
    (r"^(layers|proj_in|proj_out|norm_out)", r"perceiver_resampler.\1"),
)
VAE = (
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.mid_block\.resnets\.(\d)\.", lambda found: f".mid.block_{int(found[1]) + 1}."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.to_out\.0\.", ".mid.attn_1.proj_out."),
    (r"\.mid_block\.attentions\.0\.to_", ".mid.attn_1."),
    (r"\.(down|up)_blocks\.(\d+)\.resnets\.", r".\1.\2.block."),
    (r"\.(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.", r".\1.\2.\3sample."),
)
RANK = 2


class CentreFaces:
    """A face in the middle of every image, its mean colours as ArcFace."""

    signature = "centre"
    dim = 6

    def __call__(self, picture):
        height, width = picture.shape[:2]
        colours = picture.reshape(-1, 3).astype(np.float32) / 255
        points = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.38, 0.7], [0.62, 0.7]]) * [width, height]
        return ReferenceFace(points, np.concatenate([colours.mean(0), colours.std(0)]) + 0.1)


def renamed(name, rules):
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def published_unet(state, config):
    """Return a `Denoiser`'s tensors under the published names, with LoRA pairs beside the attention weights."""
    places = {new: old for old, new in (names._ENDS | names._blocks(config)).items()}
    made = {}
    for key, value in state.items():
        name = re.sub(r"\.processor\.(to_[kv]_ip)\.0\.", r".\1.", key.removeprefix("unet."))
        start = next(start for start in places if name.startswith(start))
        name = places[start] + name.removeprefix(start)
        for old, new in names._RESIDUAL.items():
            name = name.replace(f".{new}.", f".{old}.")
        made[name] = value
        if names._ATTENTION.fullmatch(name):
            stem = name.removesuffix(".0.weight").removesuffix(".weight")
            made[f"{stem}_lora.down.weight"] = torch.randn(RANK, value.shape[1]) * 0.1
            made[f"{stem}_lora.up.weight"] = torch.randn(value.shape[0], RANK) * 0.1
    return made


def published_structure(state):
    return {
        renamed(key, [(rf"\.{re.escape(new)}\.", f".{old}.") for old, new in names._RESIDUAL.items()]): value
        for key, value in state.items()
    }


def published_vae(state, levels):
    made = {}
    for key, value in state.items():
        name = re.sub(r"up_blocks\.(\d+)", lambda found: f"up_blocks.{levels - 1 - int(found[1])}", key)
        linear = ".attentions." in key and value.ndim == 2
        made[renamed(name, VAE)] = value[:, :, None, None] if linear else value
    return made


def published_projection(state):
    made = {}
    for key, value in state.items():
        if ".to_k." in key:
            value = torch.cat([value, state[key.replace(".to_k.", ".to_v.")]])
            key = key.replace(".to_k.", ".to_kv.")
        if ".to_v." not in key:
            made[renamed(key, PROJECTION)] = value
    return made


def published_text(state):
    """Transformers 5 has dropped a prefix."""
    return {f"text_model.{key.removeprefix('text_model.')}": value for key, value in state.items()}


def networks(config):
    """Return all networks with random weights, by the names of `names.PREFIXES`."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    from ffhqref.zoo.restorerid import unet
    from ffhqref.zoo.restorerid.structure import StructureEncoder

    return {
        "unet": unet.Denoiser(config),
        "structure": StructureEncoder(config.struct),
        "vae": unet.vae(config.vae),
        "text": CLIPTextModel(CLIPTextConfig(**asdict(config.text), hidden_act="quick_gelu")),
        "image": CLIPVisionModelWithProjection(CLIPVisionConfig(**asdict(config.vision), hidden_act="gelu")),
        "projection": unet.identity_projection(config.adapter, config.vision.hidden_size),
    }


def published(config):
    """Return all tensors of small random networks under the published names."""
    state = {name: network.state_dict() for name, network in networks(config).items()}
    state["unet"] = published_unet(state["unet"], config.unet)
    state["structure"] = published_structure(state["structure"])
    state["vae"] = published_vae(state["vae"], len(config.vae.ch_mult))
    state["projection"] = published_projection(state["projection"])
    state["text"] = published_text(state["text"])
    made = {names.PREFIXES[part] + key: value for part, tensors in state.items() for key, value in tensors.items()}
    return {"betas": torch.zeros(1000), **made}


def options(folder):
    ensure_torchvision()
    words = tokenizer(folder / "clip")
    (folder / "clip" / "tokenizer_config.json").unlink()
    widths = {**CONFIG, **({"text": {**CONFIG["text"], "vocab_size": words}} if "text" in CONFIG else {})}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors = published(read_architecture(RestorerIDConfig, widths))
    torch.save({"state_dict": tensors, "global_step": 1}, folder / "RestorerIDFull.ckpt")
    (folder / "widths.json").write_text(json.dumps(widths))
    return {
        "checkpoint": folder / "RestorerIDFull.ckpt",
        "tokenizer": folder / "clip",
        "config": folder / "widths.json",
        "steps": 2,
        "identity_scale": 0.5,
        "faces": CentreFaces(),
        "info": {"input_size": 64},
    }
