"""Make the golden set that travels with the repository, with other people's packages.

    python -m tests.golden.make [--published FOLDER] [SET ...]

Networks come from spandrel, spandrel-extra-arches and diffusers, their weights from seeded rules that the tests follow
too, so that no weight file is stored. Metrics come from pyiqa. The degradation is written out with OpenCV and NumPy.
Nothing of ffhqref computes anything here. Two sets are cut from a folder of outputs of the published code, which few
have: they are made only where that folder is named.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from ffhqref.core.compat import ensure_torchvision  # only lets torchvision be imported

from ..zoo.refldm.diffusers_names import first_stage_pairs, published_shapes, to_diffusers, unet_pairs

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
SAMPLE = "ffhqref/datasets/sample"

Rules = list[list[Any]]


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


# weights from a rule


def weights(rules: Rules, seed: int, shapes: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Return uniform numbers for every tensor: the first entry [regex, kind, numbers] whose regex matches decides.

    ``range`` gives the limits, ``fan`` the gain over the square root of a third of the fan-in.
    """
    state = {}
    for name, shape in shapes.items():
        _, kind, *numbers = next(entry for entry in rules if re.search(entry[0], name))
        if kind == "range":
            low, high = numbers
        else:
            dims = shape[1:] if len(shape) == 5 and shape[0] == 1 else shape
            high = numbers[0] * math.sqrt(3 / math.prod(dims[1:]))
            low = -high
        generator = torch.Generator().manual_seed(seed * 1000003 + zlib.crc32(name.encode()))
        state[name] = torch.rand(shape, generator=generator).mul_(high - low).add_(low)
    return state


def digest(state: Mapping[str, Tensor]) -> str:
    made = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        made.update(name.encode() + str(value.dtype).encode() + str(tuple(value.shape)).encode())
        made.update(value.contiguous().numpy().tobytes())
    return made.hexdigest()


def shapes_of(network: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def loaded(network: torch.nn.Module, state: Mapping[str, Tensor]) -> torch.nn.Module:
    network.load_state_dict(dict(state))
    return network.eval().requires_grad_(False)


# what restorers of aligned faces do around their network


def face(seed: int, height: int, width: int) -> np.ndarray:
    """Return an image, uint8 RGB: a smooth one with noise."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(20, 235, (6, 5, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return (coarse + rng.normal(0, 6, coarse.shape)).round().clip(0, 255).astype(np.uint8)


def fed(image: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
    """Return what the published scripts give a network, [1, 3, side, side] in −1..1, and the resized image."""
    sized = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
    unit = torch.from_numpy(sized.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return (unit - 0.5) / 0.5, torch.from_numpy(sized)


def written(raw: Tensor) -> Tensor:
    """Return the 8-bit image of a network's output."""
    image = ((raw[0].clamp(-1, 1) + 1) / 2 * 255).round().to(torch.uint8)
    return image.permute(1, 2, 0)


def rule_entry(rules: Rules, seeds: Mapping[str, int], shapes: Mapping[str, Mapping[str, list[int]]]) -> dict[str, Any]:
    states = {name: weights(rules, seed, dict(shapes[name])) for name, seed in seeds.items()}
    hashes = {name: {"seed": seeds[name], "sha256": digest(state)} for name, state in states.items()}
    return {"rules": rules, **hashes}


def own_error(network: torch.nn.Module, run: Callable[[torch.nn.Module, torch.dtype], Tensor]) -> float:
    """Return how far the network's own float32 result lies from its float64 result."""
    single = run(network, torch.float32)
    double = run(network.double(), torch.float64)
    network.float()
    return float((single - double).abs().max())


GFPGAN_RULES: Rules = [
    [r"noises\.noise\d+$", "range", -1.7, 1.7],
    [r"modulation\.bias$", "range", 0.8, 1.2],
    [r"(modulation|to_rgb.*modulated_conv)\.weight$", "fan", 0.3],
    [r"style_conv(1|s\.\d+)\.weight$", "range", 0.1, 0.3],
    [r"constant_input\.weight$", "range", -1.7, 1.7],
    [r"condition_scale\.\d+\.2\.bias$", "range", 0.8, 1.2],
    [r"final_linear\.weight$", "fan", 3.0],
    [r"bias$", "range", -0.1, 0.1],
    [r"weight$", "fan", 1.0],
]


def gfpgan(folder: Path) -> None:
    from spandrel.architectures.GFPGAN import GFPGAN

    full = {
        "out_size": 512, "num_style_feat": 512, "channel_multiplier": 2, "decoder_load_path": None,
        "fix_decoder": False, "num_mlp": 8, "input_is_latent": True, "different_w": True, "narrow": 1,
        "sft_half": True,
    }  # fmt: skip
    small = {**full, "out_size": 64, "num_style_feat": 24, "narrow": 0.0625}
    network: torch.nn.Module = GFPGAN(**small)
    with torch.device("meta"):
        keys = {"small": shapes_of(network), "full": shapes_of(GFPGAN(**full))}
    rule = rule_entry(GFPGAN_RULES, {"small": 11}, keys)
    loaded(network, weights(GFPGAN_RULES, 11, keys["small"]))
    cases: list[dict[str, Any]] = []
    for number, fresh in enumerate((False, True)):
        image = face(100 + number, 96 - 16 * number, 80)
        given, sized = fed(image, 64)
        case: dict[str, Any] = {
            "file": f"case{number}.safetensors", "checkpoint": "gfpgan_small.pth", "config": "small",
            "randomize_noise": fresh, "noise_sha256": None,
        }  # fmt: skip
        stored = {"input_rgb_u8": torch.from_numpy(image), "resized_rgb_u8": sized}
        if fresh:
            torch.manual_seed(2024)
            sides = [2 ** ((index + 5) // 2) for index in range(9)]
            drawn = [torch.randn(1, 1, side, side) for side in sides]
            stored |= {f"noise{index:02d}": noise for index, noise in enumerate(drawn)}
            made = hashlib.sha256(b"".join(noise.numpy().tobytes() for noise in drawn))
            case |= {"torch_seed": 2024, "noise_sha256": made.hexdigest()}
            torch.manual_seed(2024)
        raw, _ = network(given, return_rgb=False, randomize_noise=fresh)
        write_tensors(folder / case["file"], {**stored, "raw_output": raw, "output_rgb_u8": written(raw)})
        cases.append(case)
    write_sets(folder, {"small": small, "full": full, "weights_rule": rule}, keys, cases)


def write_sets(folder: Path, config: Mapping[str, Any], keys: Mapping[str, Any], cases: list[dict[str, Any]]) -> None:
    write_json(folder / "config.json", config)
    write_json(folder / "cases.json", cases)
    for name, shapes in keys.items():
        write_json(folder / f"keys_{name}.json", shapes)


RESTOREFORMER_RULES: Rules = [
    [r"quantize\.embedding\.weight$", "range", -1.7, 1.7],
    [r"norm\d?\.weight$", "range", 0.7, 1.3],
    [r"bias$", "range", -0.1, 0.1],
    [r"weight$", "fan", 1.0],
]


def restoreformer(folder: Path) -> None:
    from spandrel.architectures.RestoreFormer import RestoreFormer

    full = {
        "n_embed": 1024, "embed_dim": 256, "ch": 64, "out_ch": 3, "ch_mult": [1, 2, 2, 4, 4, 8], "num_res_blocks": 2,
        "attn_resolutions": [16], "dropout": 0.0, "in_channels": 3, "resolution": 512, "z_channels": 256,
        "double_z": False, "enable_mid": True, "fix_decoder": False, "fix_codebook": True, "fix_encoder": False,
        "head_size": 8,
    }  # fmt: skip
    small = {
        **full, "n_embed": 48, "embed_dim": 24, "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1,
        "resolution": 64, "z_channels": 20,
    }  # fmt: skip
    network: Any = RestoreFormer(**small)
    with torch.device("meta"):
        keys = {"small": shapes_of(network), "full": shapes_of(RestoreFormer(**full))}
    rule = rule_entry(RESTOREFORMER_RULES, {"small": 21}, keys)
    loaded(network, weights(RESTOREFORMER_RULES, 21, keys["small"]))
    seen: list[Any] = []
    network.quantize.register_forward_hook(lambda _module, _given, made: seen.append(made))
    image = face(200, 72, 90)
    given, sized = fed(image, 64)
    raw = network(given)[0]
    _, _, (_, _, indices, distances) = seen[0]
    distance = own_error(network, lambda net, dtype: net(given.to(dtype))[0])
    case: dict[str, Any] = {
        "file": "case0.safetensors", "checkpoint": "RestoreFormer_small.ckpt", "config": "small",
        "smallest_gap": smallest_gap(-distances), "float32_vs_float64_max_abs": distance,
    }  # fmt: skip
    stored = {
        "input_rgb_u8": torch.from_numpy(image), "resized_rgb_u8": sized, "raw_output": raw,
        "output_rgb_u8": written(raw), "code_indices": indices.reshape(16, 16), "distances_t16": distances[::16],
    }  # fmt: skip
    write_tensors(folder / case["file"], stored)
    write_sets(folder, {"small": small, "full": full, "weights_rule": rule}, keys, [case])


def smallest_gap(scores: Tensor) -> float:
    """Return how near the nearest two of all choices are."""
    best = scores.topk(2, dim=-1).values
    return float((best[..., 0] - best[..., 1]).min())


CODEFORMER_RULES: Rules = [
    [r"quantize\.embedding\.weight$", "range", -1.7, 1.7],
    [r"^position_emb$", "range", -1.0, 1.0],
    [r"^generator\.blocks\.24\.weight$", "fan", 0.6],
    [r"(norm\d?|blocks\.23|idx_pred_layer\.0)\.weight$", "range", 0.7, 1.3],
    [r"^feat_emb\.weight$", "fan", 3.0],
    [r"(out_proj|linear2|(scale|shift)\.2)\.weight$", "fan", 0.5],
    [r"bias$", "range", -0.1, 0.1],
    [r"weight$", "fan", 1.0],
]


def codeformer(folder: Path) -> None:
    from spandrel_extra_arches.architectures.CodeFormer import CodeFormer

    full = {
        "dim_embd": 512, "codebook_size": 1024, "n_head": 8, "n_layers": 9,
        "connect_list": ["32", "64", "128", "256"],
    }  # fmt: skip
    network: torch.nn.Module = CodeFormer(**full)
    keys = {"full": shapes_of(network)}
    rule = rule_entry(CODEFORMER_RULES, {"full": 31}, keys)
    loaded(network, weights(CODEFORMER_RULES, 31, keys["full"]))
    image = face(300, 80, 64)
    given, _ = fed(image, 512)
    cases = []
    for number, weight in enumerate((0.5, 0.0)):
        raw, logits = network(given, weight=weight)[:2]
        stored = {
            "raw_output_s8": raw[..., ::8, ::8], "output_rgb_u8_s8": written(raw)[::8, ::8],
            "code_indices": logits.argmax(2).reshape(16, 16), "logits_t32": logits[:, ::32],
        }  # fmt: skip
        case: dict[str, Any] = {
            "file": f"case{number}.safetensors", "checkpoint": None, "config": "full", "fidelity_weight": weight,
            "adain": True, "smallest_logit_gap": smallest_gap(logits),
        }  # fmt: skip
        write_tensors(folder / case["file"], {"input_rgb_u8": torch.from_numpy(image), **stored})
        cases.append(case)
    inference = {"w_default": 0.5, "adain": True}
    write_sets(folder, {"full": full, "inference": inference, "weights_rule": rule}, keys, cases)


REFLDM_RULES: Rules = [
    [r"quantize\.embedding\.weight$", "range", -2.0, 2.0],
    [r"(norm\w*|in_layers\.0|out_layers\.0|^out\.0)\.weight$", "range", 0.7, 1.3],
    [r"bias$", "range", -0.1, 0.1],
    [r"weight$", "fan", 1.0],
]


class Caching:
    """An attention processor of diffusers' that keeps keys and values, or attends to the kept ones as well."""

    def __init__(self) -> None:
        self.keeps = False
        self.kept: list[tuple[Tensor, Tensor]] = []

    def __call__(self, attention: Any, hidden_states: Tensor, temb: None = None, **_: Any) -> Tensor:
        tokens = attention.group_norm(hidden_states.flatten(2)).transpose(1, 2)
        query, key, value = attention.to_q(tokens), attention.to_k(tokens), attention.to_v(tokens)
        if self.keeps:
            self.kept.append((key, value))
        else:
            key = torch.cat([key, *(kept for kept, _ in self.kept)], dim=1)
            value = torch.cat([value, *(kept for _, kept in self.kept)], dim=1)
        query, key, value = (part.unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in (query, key, value))
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        mixed = (scores.softmax(dim=3) @ value).transpose(1, 2).flatten(2)
        return attention.to_out[0](mixed).transpose(1, 2).reshape(hidden_states.shape) + hidden_states


def refldm(folder: Path) -> None:
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel, VQModel

    depth, attends, head, levels = 1, [True, True], 16, 4
    unet = UNet2DModel(
        in_channels=8, out_channels=4, block_out_channels=(32, 64), layers_per_block=depth,
        down_block_types=("AttnDownBlock2D",) * 2, up_block_types=("AttnUpBlock2D",) * 2, attention_head_dim=head,
        norm_eps=1e-5, downsample_padding=1, flip_sin_to_cos=True, freq_shift=0,
    )  # fmt: skip
    first = VQModel(
        block_out_channels=(32, 32, 32, 64), down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, layers_per_block=depth, latent_channels=4, vq_embed_dim=4,
        num_vq_embeddings=64, norm_num_groups=32,
    )  # fmt: skip
    of_unet, of_first = list(unet_pairs(depth, attends)), list(first_stage_pairs(levels, depth))
    shapes = {
        "unet": published_shapes(unet.state_dict(), of_unet),
        "first_stage": published_shapes(first.state_dict(), of_first),
    }
    shapes["ema"] = shapes["unet"]
    seeds = {"unet": 41, "ema": 42, "first_stage": 43}
    averaged, stage = (weights(REFLDM_RULES, seeds[name], shapes[name]) for name in ("ema", "first_stage"))
    loaded(unet, to_diffusers(averaged, of_unet, head))
    loaded(first, to_diffusers(stage, of_first))
    schedule = {"num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0155, "beta_schedule": "scaled_linear"}
    cases = []
    for number, (references, steps, scale, spacing) in enumerate(
        ((2, 4, 1.5, "uniform"), (1, 5, 1.0, "uniform_trailing"))
    ):
        trailing = spacing == "uniform_trailing"
        scheduler = DDIMScheduler(
            **schedule, clip_sample=False, set_alpha_to_one=False, steps_offset=0 if trailing else 1,
            timestep_spacing="trailing" if trailing else "leading",
        )  # fmt: skip
        scheduler.set_timesteps(steps)
        generator = torch.Generator().manual_seed(400 + number)
        images = [torch.from_numpy(face(410 + 10 * number + index, 64, 64)) for index in range(1 + references)]
        lq, *refs = (image.permute(2, 0, 1)[None] / 127.5 - 1 for image in images)
        stored = {"lq": lq, "refs": torch.cat(refs, dim=3), "xT": torch.randn(1, 4, 8, 8, generator=generator)}
        stored["timesteps"] = scheduler.timesteps.float()
        stored |= sampled(unet, first, scheduler, stored, references, scale)
        file = f"case{number}.safetensors"
        write_tensors(folder / file, stored)
        cases.append({"file": file, "n_ref": references, "steps": steps, "cfg": scale, "schedule": spacing})
    write_json(folder / "cases.json", cases)
    write_json(folder / "weights.json", {**rule_entry(REFLDM_RULES, seeds, shapes), "shapes": shapes})
    (folder / "config.yaml").write_text(yaml.safe_dump(refldm_config(depth, head), sort_keys=False), encoding="utf-8")
    write_tensors(folder / "schedule.safetensors", buffers(DDPMScheduler(**schedule).betas.double()))


def sampled(
    unet: Any, first: Any, scheduler: Any, given: Mapping[str, Tensor], references: int, scale: float
) -> dict[str, Tensor]:
    """Return conditions, first and last output of the network, the latent and the image of a case."""
    from diffusers.models.attention_processor import Attention

    guided = scale != 1.0
    caches = [Caching() for _ in range(sum(isinstance(part, Attention) for part in unet.modules()))]
    for cache, part in zip(caches, (part for part in unet.modules() if isinstance(part, Attention)), strict=True):
        part.set_processor(cache)
    condition, strip = first.encode(given["lq"]).latents, first.encode(given["refs"]).latents
    for cache in caches:
        cache.keeps = True
    for latent in strip.chunk(references, dim=3):
        branches = torch.cat([torch.zeros_like(latent), latent]) if guided else latent
        unet(torch.cat([branches, torch.zeros_like(branches)], dim=1), 0)
    for cache in caches:
        cache.keeps = False
    x, outputs = given["xT"], []
    copies = 2 if guided else 1
    for t in scheduler.timesteps:
        outputs.append(unet(torch.cat([x, condition], dim=1).repeat(copies, 1, 1, 1), t).sample)
        noise = outputs[-1]
        if guided:
            without, having = noise.chunk(2)
            noise = without + scale * (having - without)
        x = scheduler.step(noise, t, x).prev_sample
    return {
        "c_lq": condition, "c_ref": strip, "first_x": given["xT"].repeat(copies, 1, 1, 1),
        "first_t": scheduler.timesteps[:1].float().repeat(copies), "first_eps": outputs[0], "last_eps": outputs[-1],
        "z": x, "image": ((first.decode(x).sample + 1) / 2).clamp(0, 1),
    }  # fmt: skip


def buffers(betas: Tensor) -> dict[str, Tensor]:
    """Return the buffers that a checkpoint of latent diffusion holds, after Ho et al. (2020)."""
    alphas = 1 - betas
    total = alphas.cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), total[:-1]])
    variance = betas * (1 - before) / (1 - total)
    made = {
        "betas": betas, "alphas_cumprod": total, "alphas_cumprod_prev": before, "sqrt_alphas_cumprod": total.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - total).sqrt(), "log_one_minus_alphas_cumprod": (1 - total).log(),
        "sqrt_recip_alphas_cumprod": (1 / total).sqrt(), "sqrt_recipm1_alphas_cumprod": (1 / total - 1).sqrt(),
        "posterior_variance": variance, "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - total),
        "posterior_mean_coef2": (1 - before) * alphas.sqrt() / (1 - total),
    }  # fmt: skip
    return {name: value.float() for name, value in made.items()}


def refldm_config(depth: int, head: int) -> dict[str, Any]:
    """Return the architecture in the form of the published configuration files."""
    first = {
        "embed_dim": 4, "n_embed": 64,
        "ddconfig": {
            "double_z": False, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
            "ch_mult": [1, 1, 1, 2], "num_res_blocks": depth, "attn_resolutions": [], "dropout": 0.0,
        },
    }  # fmt: skip
    unet = {
        "image_size": 8, "in_channels": 8, "out_channels": 4, "model_channels": 32, "attention_resolutions": [1, 2],
        "num_res_blocks": depth, "channel_mult": [1, 2], "num_head_channels": head, "use_spatial_transformer": False,
    }  # fmt: skip
    params = {
        "linear_start": 0.0015, "linear_end": 0.0155, "timesteps": 1000, "image_size": 8, "channels": 4,
        "first_stage_config": {"params": first}, "unet_config": {"params": unet}, "use_cache_kv": True,
    }  # fmt: skip
    return {"model": {"params": params}}


# degradation and metrics, on the embedded sample


LEVELS = {
    "moderate": {"sigma": (0, 8), "scale": (1, 8), "noise": (0, 15), "quality": (60, 100)},
    "severe": {"sigma": (8, 16), "scale": (8, 32), "noise": (0, 20), "quality": (30, 100)},
}
"""The ranges of FFHQ-Ref, from ReF-LDM's paper."""


def degradation(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted((REPOSITORY / SAMPLE).rglob("*.jpg"))[:80:40]
    cases = []
    for level, ranges in LEVELS.items():
        random.seed(2024)
        np.random.seed(2024)  # noqa: NPY002 - the published code draws from this generator
        for order, file in enumerate(files):
            output = f"{level}_{order}.png"
            image = np.array(Image.open(file).resize((512, 512)).convert("RGB"))
            made, drawn = degraded(image.astype(np.float32), ranges)
            Image.fromarray(made).save(folder / output, optimize=True)
            name = file.relative_to(REPOSITORY).as_posix()
            cases.append({"level": level, "order": order, "image": name, "output": output, **drawn})
    write_json(
        folder / "cases.json", {"seed": 2024, "opencv": cv2.__version__, "numpy": np.__version__, "cases": cases}
    )


def degraded(image: np.ndarray, ranges: Mapping[str, tuple[float, float]]) -> tuple[np.ndarray, dict[str, Any]]:
    """Blur, shrink, add noise, compress and enlarge an image as FFHQ-Ref's LQ images were; return it with the draws."""
    height, width = image.shape[:2]
    uniform = np.random.uniform
    drawn: dict[str, Any] = {"kernel": random.choices(["iso", "aniso"], [0.5, 0.5])[0]}
    drawn["sigma_x"] = uniform(*ranges["sigma"])
    across, turned = drawn["sigma_x"], 0.0
    if drawn["kernel"] == "aniso":
        drawn["sigma_y"] = across = uniform(*ranges["sigma"])
        drawn["rotation"] = turned = uniform(-math.pi, math.pi)
    sine, cosine = math.sin(turned), math.cos(turned)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    inverse = np.linalg.inv(turn @ np.diag([drawn["sigma_x"] ** 2, across**2]) @ turn.T)
    grid = np.stack(np.meshgrid(np.arange(-20.0, 21.0), np.arange(-20.0, 21.0)), axis=-1)
    kernel = np.exp(-0.5 * ((grid @ inverse) * grid).sum(axis=-1))
    made = cv2.filter2D(cv2.cvtColor(image, cv2.COLOR_RGB2BGR) / 255, -1, kernel / kernel.sum())
    drawn["scale"] = uniform(*ranges["scale"])
    small = (int(width // drawn["scale"]), int(height // drawn["scale"]))
    made = cv2.resize(made, small, interpolation=cv2.INTER_LINEAR)
    drawn["noise_sigma"] = uniform(*ranges["noise"])
    drawn["grey_noise_draw"] = uniform()
    noise = np.random.randn(*made.shape).astype(np.float32)  # noqa: NPY002
    made = (made + noise * drawn["noise_sigma"] / 255).clip(0, 1)
    drawn["jpeg_quality"] = uniform(*ranges["quality"])
    _, data = cv2.imencode(".jpg", made * 255, [cv2.IMWRITE_JPEG_QUALITY, int(drawn["jpeg_quality"])])
    decoded = np.asarray(cv2.imdecode(data, 1), np.float32) / 255
    made = cv2.resize(decoded, (width, height), interpolation=cv2.INTER_LINEAR)
    return (cv2.cvtColor(made, cv2.COLOR_BGR2RGB) * 255).round().clip(0, 255).astype(np.uint8), drawn


METRICS = {"psnr": "psnr", "psnr_y": "psnry", "ssim": "ssim", "ssim_rgb": "ssimc", "ms_ssim": "ms_ssim"}
"""Ours and pyiqa's names."""


def metrics(folder: Path) -> None:
    import pyiqa

    values = []
    measures = {ours: pyiqa.create_metric(theirs, device="cpu") for ours, theirs in METRICS.items()}
    for file in sorted((REPOSITORY / SAMPLE).rglob("*.jpg"))[:120:40]:
        image = np.array(Image.open(file).convert("RGB"))
        for change, changed in changes(image).items():
            pair = [torch.from_numpy(part).permute(2, 0, 1)[None] / 255 for part in (changed, image)]
            scores = {name: float(measure(*pair)) for name, measure in measures.items()}
            values.append({"image": file.relative_to(REPOSITORY).as_posix(), "change": change, "values": scores})
    write_json(folder / "cases.json", values)


def changes(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return changed copies of an image, by means that give the same numbers everywhere."""
    return {
        "shifted": np.roll(image, (2, 3), axis=(0, 1)),
        "coarse": (image // 32 * 32 + 16).astype(np.uint8),
        "darker": (image // 2).astype(np.uint8),
        "inverted": (255 - image).astype(np.uint8),
    }


# parts of sets that the published code made


PUBLISHED = {"gpen": "case1.safetensors", "restoreformer_pp": "case1.safetensors"}
"""The one case of each method that is taken over."""


def cut(folder: Path, published: Path, name: str) -> None:
    """Take over one case: its input, small tensors, and every eighth row and column of its output."""
    (case,) = (case for case in json.loads((published / "cases.json").read_text()) if case["file"] == name)
    tensors = load_file(published / name)
    kept = {key: value for key, value in tensors.items() if value.numel() <= 5000 or key == "input_rgb_u8"}
    for key, axis in (("raw_output", 2), ("output_rgb_u8", 0)):
        value = next(value for stored, value in tensors.items() if re.fullmatch(rf"{key}(_s\d+)?", stored))
        step = value.shape[axis] // 64
        kept[f"{key}_s8"] = value[..., ::step, ::step] if axis else value[::step, ::step]
    write_tensors(folder / name, kept)
    write_json(folder / "cases.json", [case])
    for keys in ("config.json", "keys_full.json", "keys_small.json"):
        write_json(folder / keys, json.loads((published / keys).read_text()))


SETS: dict[str, Callable[[Path], None]] = {
    "gfpgan": gfpgan,
    "restoreformer": restoreformer,
    "codeformer": codeformer,
    "refldm": refldm,
    "degradation": degradation,
    "metrics": metrics,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; none: all")
    parser.add_argument("--published", type=Path, help="folder of outputs of published code")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    ensure_torchvision()
    torch.set_grad_enabled(False)
    for name in options.sets or SETS:
        SETS[name](options.out / name)
    if options.published:
        for name, case in PUBLISHED.items():
            cut(options.out / name, options.published / name, case)
        keys = "refldm_full_keys.json"
        write_json(options.out / keys, json.loads((options.published / keys).read_text()))


if __name__ == "__main__":
    main()
