"""What a training starts from: the frozen base, the text states, and the networks to train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.faceme.config import MixConfig
from ffhqref.zoo.faceme.lora import merge_lora
from ffhqref.zoo.faceme.mix import Mix, load_mix
from ffhqref.zoo.faceme.prompt import KEY_WORD, PROMPT, TextEncoders
from ffhqref.zoo.shared.model_folder import load_controlnet, load_scheduler, load_unet, load_vae, moved


@dataclass(frozen=True)
class Prompt:
    """The text that every sample has, encoded once before training."""

    text: str
    position: int
    """Index of the key word's token, which gives way to the identity tokens."""
    states: Tensor
    """[1, 77, C]."""
    pooled: Tensor
    """[1, P]."""


@dataclass(frozen=True)
class Networks:
    """Everything a stage works with."""

    unet: Any
    """A diffusers ``UNet2DConditionModel``. Frozen; the gradient runs through it."""
    vae: Any
    """A diffusers ``AutoencoderKL``. Frozen, float32."""
    scheduler: Any
    """A diffusers ``DDPMScheduler``: betas and what the U-Net predicts."""
    prompt: Prompt
    controlnet: Any
    """A diffusers ``ControlNetModel``. Trained."""
    mix: Mix
    """Trained in stage 1, frozen in stage 2."""


def encode_prompt(
    base: str | Path,
    text: str = PROMPT,
    key_word: str = KEY_WORD,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Prompt:
    """Return a prompt's states; the encoders are let go of again.

    Args:
        base: a SDXL folder.
        text: the prompt.
        key_word: its word that the identity tokens replace.
        device: where the encoders work.
        dtype: of the states. The published script encodes in the frozen networks' half precision; here the encoders
            work in float32 and the result is rounded.

    Raises:
        ConfigError: the key word is not in the prompt once.
        WeightsError: a part of the folder is missing or damaged.
    """
    encoders = TextEncoders(base, device)
    found = encoders.encode(text)
    position = encoders.position(text, key_word)
    return Prompt(text, position, found.states.to(dtype).cpu(), found.pooled.to(dtype).cpu())


def load_networks(
    base: str | Path,
    prompt: Prompt,
    *,
    controlnet: str | Path | None = None,
    mix: str | Path | None = None,
    mix_config: MixConfig | None = None,
    lora: str | Path | None = None,
    seed: int = 233,
) -> Networks:
    """Return the networks of a stage, in float32.

    Args:
        base: a SDXL folder.
        prompt: from `encode_prompt`.
        controlnet: a ControlNet folder to go on from; None: a copy of the U-Net, as published for both stages.
        mix: ``mix.safetensors`` or its folder; None: random, as published for stage 1.
        mix_config: widths of Mix; None: the released ones.
        lora: ``photomaker-v1.bin`` whose LoRA is merged into the U-Net; None: not applied, as published.
        seed: of what is random.

    Raises:
        ConfigError: the widths do not fit each other.
        WeightsError: a file is missing, damaged, or of another network.
    """
    unet: Any = moved(load_unet(base), "cpu", torch.float32)
    if lora is not None:
        merge_lora(unet, load_tensors(lora, wrappers=("lora_weights",)), lora)
    config = mix_config or MixConfig()
    width = int(unet.config["cross_attention_dim"])
    if config.embed_dim != width:
        raise ConfigError(f"training: Mix has tokens of {config.embed_dim} channels, the U-Net of {base} takes {width}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trained = load_controlnet(controlnet) if controlnet is not None else controlnet_of(unet)
        mixing = load_mix(mix, config) if mix is not None else Mix(config)
    vae, trained, mixing = (moved(network, "cpu", torch.float32) for network in (load_vae(base), trained, mixing))
    return Networks(unet, vae, load_scheduler(base), prompt, trained, mixing)


def controlnet_of(unet: nn.Module) -> nn.Module:
    """Return a ControlNet copied from a U-Net: its down and middle part, zero convolutions, a random condition stem."""
    from ffhqref.core.compat import ensure_torchvision

    ensure_torchvision()
    from diffusers import ControlNetModel

    made: nn.Module = ControlNetModel.from_unet(unet)
    return made


def latest_checkpoint(folder: str | Path) -> Path:
    """Return the ``checkpoint-N`` of the highest N in a folder of a run.

    Raises:
        WeightsError: there is none.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    if not found:
        raise WeightsError(f"no checkpoint-N in {folder}; train this stage to its end first")
    return max(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))
