"""PMRF's two file forms: a Lightning checkpoint with a moving average of the flow, and the hub's bare tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import WeightsError
from ffhqref.weights.tensors import load_content, load_into
from ffhqref.zoo.pmrf.network import HDiT
from ffhqref.zoo.shared.model_folder import read_json
from ffhqref.zoo.shared.swinir import build_swinir, spandrel_names

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ffhqref.weights.files import Weights
    from ffhqref.zoo.pmrf.config import PMRFConfig


@dataclass(frozen=True)
class Networks:
    """What a file holds."""

    flow: HDiT
    mean: nn.Module
    """SwinIR: images of 0..1 to the same, not clipped."""
    noise_std: float | None
    """Of the start; None: the file does not say."""
    eps: float | None
    """First time of the flow."""


def hub_config(file: Weights) -> Path:
    """Return where the constructor's arguments of a file in the hub's form lie."""
    return file.path.with_name("config.json")


def load_networks(file: Weights, config: PMRFConfig) -> Networks:
    """Return the networks of a file, on the CPU.

    Args:
        file: a Lightning checkpoint, whose moving average takes the place of the flow's parameters, or
            ``model.safetensors``, whose values are used as they are.
        config: architectures.

    Raises:
        WeightsError: damaged, of other names or shapes, or of a model of another kind.
    """
    content: Any = load_content(file)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file} does not fit PMRF: no names of tensors")
    hub = "state_dict" not in content
    arguments = _arguments(file, content, hub=hub)
    tensors: Mapping[str, Any] = content if hub else content["state_dict"]
    flow = HDiT(config.hdit)
    load_into(flow, _part(tensors, "model."), file)
    if not hub:
        _put_average(flow, content.get("ema"), file)
    mean = build_swinir(config.swinir)
    load_into(mean, spandrel_names(_part(tensors, "mmse_model.")), file)
    return Networks(flow, mean, arguments.get("mmse_noise_std"), arguments.get("eps"))


def _part(tensors: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one network; networks of metrics lie beside them."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _arguments(file: Weights, content: Mapping[str, Any], *, hub: bool) -> Mapping[str, Any]:
    path = hub_config(file)
    found = content.get("hyper_parameters", {}) if not hub else read_json(path) if path.is_file() else {}
    if found.get("conditional") or found.get("stage", "flow") != "flow":
        raise WeightsError(f"{file}: a flow without a condition is expected, as in the released model")
    return dict(found)


def _put_average(flow: HDiT, ema: object, file: Weights) -> None:
    """Put the moving average, a bare list in the order of the parameters, in their place."""
    import torch

    values = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    named = list(flow.named_parameters())
    if not isinstance(values, list) or len(values) != len(named):
        found = f"{len(values)} tensors" if isinstance(values, list) else "none"
        raise WeightsError(f"{file}: ema.shadow_params: expected {len(named)} tensors, found {found}")
    with torch.no_grad():
        for (name, parameter), value in zip(named, values, strict=True):
            if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
                raise WeightsError(f"{file}: ema.shadow_params: no tensor of the shape of {name}")
            parameter.copy_(value)
