"""Networks out of InstantRestore's one checkpoint, with the weights that they have in common held once.

The file holds two U-Nets and two VAEs (``unet`` and ``vae`` with LoRA, ``original_unet`` and ``original_vae`` as they
were before training) and a text encoder, all in float32. Widths stand in SD-Turbo's and the VAE's ``config.json``.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ffhqref.core.errors import WeightsError
from ffhqref.weights.tensors import opened, refuse
from ffhqref.zoo.instantrestore.config import ModelSettings
from ffhqref.zoo.instantrestore.lora import UNET_LAYERS, VAE_LAYERS, add_lora
from ffhqref.zoo.shared.model_folder import (
    assemble,
    import_diffusers,
    import_transformers,
    load_scheduler,
    load_text_encoder,
    load_tokenizer,
    own_names,
    read_json,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ffhqref.weights.files import Weights

log = logging.getLogger(__name__)

PARTS = ("unet", "vae", "original_unet", "original_vae", "text_encoder")
"""Beginnings of the names in the file, behind ``net.``."""


@dataclass(frozen=True)
class Networks:
    """What lies in the files. Weights that are equal in both networks of a pair are one storage."""

    settings: ModelSettings
    unet: Any
    vae: Any
    original_unet: Any
    original_vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any


def load_networks(file: Weights, base: Path, vae: Path, device: str) -> Networks:
    """Return the networks on a device, in float32.

    The text encoder is SD-Turbo's own, as in the published script, and not the copy in the checkpoint.

    Args:
        file: the checkpoint.
        base: folder of SD-Turbo: tokenizer, text encoder, scheduler, config of the U-Net.
        vae: folder with the config of the VAE.
        device: where they go.

    Raises:
        WeightsError: a part is absent, damaged, or of other names or shapes.
    """
    tokenizer, scheduler = load_tokenizer(base / "tokenizer"), load_scheduler(base)
    text_encoder = load_text_encoder(import_transformers().CLIPTextModel, base / "text_encoder", device)
    with opened(file) as name:  # only mapped into memory: what is used is copied
        settings, parts = split(_mapped(name, file), str(file))
        _check_text_encoder(text_encoder, parts.pop("text_encoder"), file.path)
        for part in ("unet", "vae"):
            share(parts[part], parts[f"original_{part}"])
        every = [value for tensors in parts.values() for value in tensors.values()]
        copies = {id(value): value.to(device, torch.float32, copy=True) for value in {id(v): v for v in every}.values()}
        tensors = {part: {key: copies[id(value)] for key, value in found.items()} for part, found in parts.items()}
    held, all_of_it = (sum(value.nbytes for value in values) / 1e9 for values in (copies.values(), every))
    log.info("%s: %.2f of %.2f GB are held, what two networks have in common once", file.path.name, held, all_of_it)
    unet_config, vae_config = (read_json(folder / "config.json") for folder in (base / "unet", vae))
    networks = build(tensors, settings, unet_config, vae_config, file.path)
    placed = {part: network.to(device) for part, network in networks.items()}
    return Networks(settings, **placed, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)


def split(content: Any, where: str) -> tuple[ModelSettings, dict[str, dict[str, Tensor]]]:
    """Return a checkpoint's settings, and its tensors by part and by name in it.

    Args:
        content: of the file.
        where: it is, for messages.

    Raises:
        WeightsError: it is no checkpoint of InstantRestore.
    """
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{where} holds no state_dict of tensors: no checkpoint of InstantRestore")
    settings = ModelSettings.read(content.get("cfg"), where)
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, value in state.items():
        # files that were saved from several GPUs have "module" in their names
        net, part, name = (*str(key).replace(".module.", ".").split(".", 2), "", "")[:3]
        if net != "net" or part not in parts:
            raise WeightsError(f"{where} has an unknown tensor: {key}")
        parts[part][name] = value
    return settings, parts


def share(adapted: Mapping[str, Tensor], original: dict[str, Tensor]) -> None:
    """Put the tensors of a network with LoRA in place of equal ones of its original.

    Args:
        adapted: tensors by name.
        original: tensors by name; changed in place.
    """
    for name, value in original.items():
        stem, _, kind = name.rpartition(".")
        other = adapted.get(f"{stem}.base_layer.{kind}", adapted.get(name))
        if other is not None and other.shape == value.shape and torch.equal(other, value):
            original[name] = other


def build(
    parts: Mapping[str, Mapping[str, Tensor]],
    settings: ModelSettings,
    unet: Mapping[str, Any],
    vae: Mapping[str, Any],
    path: Path,
) -> dict[str, nn.Module]:
    """Return the four networks with these tensors as their weights, not copied.

    Args:
        parts: of `split`.
        settings: of the checkpoint.
        unet: config of the U-Nets.
        vae: config of the VAEs.
        path: of the checkpoint, for messages.

    Raises:
        WeightsError: tensors are missing, left over, or of another shape.
    """
    diffusers = import_diffusers()

    def adapted_unet() -> nn.Module:
        network: nn.Module = diffusers.UNet2DConditionModel.from_config(unet)
        add_lora(network, UNET_LAYERS, settings.lora_rank_unet, "default")
        return network

    def adapted_vae() -> nn.Module:
        network: nn.Module = diffusers.AutoencoderKL.from_config(vae)
        add_lora(network, VAE_LAYERS, settings.lora_rank_vae, "vae_skip")
        return network

    makers = {
        "unet": adapted_unet,
        "vae": adapted_vae,
        "original_unet": lambda: diffusers.UNet2DConditionModel.from_config(unet),
        "original_vae": lambda: diffusers.AutoencoderKL.from_config(vae),
    }
    return {part: assemble(make, parts[part], path).requires_grad_(False) for part, make in makers.items()}


def _check_text_encoder(encoder: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a text encoder of other names or shapes than SD-Turbo's, and say it where its weights are others.

    Raises:
        WeightsError: it does not fit.
    """
    named = own_names(encoder, {key: value for key, value in tensors.items() if not key.endswith("position_ids")})
    own = encoder.state_dict()
    in_file = assemble(lambda: type(encoder)(encoder.config), named, path).state_dict()
    if not all(torch.equal(value.cpu(), in_file[key]) for key, value in own.items()):
        log.warning(
            "%s has another text encoder than SD-Turbo's folder, which is used, as in the published script", path
        )


def _mapped(name: Path, file: Weights) -> Any:
    """Return the content of a checkpoint whose tensors are read from the disk when they are used."""
    try:
        return torch.load(name, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(name))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise anything
        code = "Unsupported" in str(error) or "GLOBAL" in str(error)
        raise refuse(file, "holds more than tensors" if code else "is damaged", error) from None
