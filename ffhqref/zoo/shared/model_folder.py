"""Networks out of model folders in the layout of diffusers, loaded strictly and without running code in them.

A base folder is a Stable Diffusion model as on the hub (``tokenizer``, ``text_encoder``, ``unet``, ``vae``,
``scheduler``, …); a ControlNet folder holds one network. Each part has a ``config.json``, which decides the widths, and
one weight file.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ffhqref.core.errors import DependencyError, WeightsError
from ffhqref.core.files import write_atomic
from ffhqref.core.hashing import sha256_file
from ffhqref.core.parsing import parsing
from ffhqref.weights.files import WeightFile, Weights, require
from ffhqref.weights.tensors import load_into, load_tensors, read_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

T = TypeVar("T")

_TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
"""What is read of a tokenizer's folder; the last may be missing."""

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the VAE's attention layers before diffusers 0.12, which conversions still write."""


def read_json(path: Path) -> dict[str, object]:
    """Return the mapping in a JSON file of a model folder.

    Raises:
        WeightsError: absent, or no JSON mapping.
    """
    if not path.is_file():
        raise WeightsError(f"no such file: {path}; a model folder in the layout of diffusers has it; fetch it again")
    with parsing(path, WeightsError, "fetch it again"):
        found = json.loads(read_bytes(path).decode("utf-8-sig"))
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds no mapping; fetch it again")
    return found


def weight_file(folder: Path, stem: str = "diffusion_pytorch_model") -> Path:
    """Return the weight file of a part: safetensors, of full precision where both are there.

    Raises:
        WeightsError: no such file.
    """
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"no weight file {stem}.safetensors in {folder}")


def part_weights(name: str, folder: Path, stem: str = "diffusion_pytorch_model") -> Weights:
    """Return the weight file of a part, hashed, under that name.

    Raises:
        WeightsError: no such file, or damaged.
    """
    file = weight_file(folder, stem)
    return require(WeightFile(name, file.name), path=file)


def small_files(name: str, base: Path, files: Iterable[str]) -> list[Weights]:
    """Return the configs and tokenizers that are there, hashed, under ``name/file``."""
    there = [file for file in files if (base / file).is_file()]
    return [Weights(f"{name}/{file}", file, base / file, sha256_file(base / file), None) for file in there]


def assemble(make: Callable[[], nn.Module], tensors: Mapping[str, torch.Tensor], path: Weights | Path) -> nn.Module:
    """Return ``make()`` with these tensors as its weights (their own type, not copied), in evaluation mode.

    Raises:
        WeightsError: tensors are missing, left over, or of another shape.
    """
    try:
        from accelerate import init_empty_weights
    except ImportError:
        raise DependencyError(
            "the networks of this restorer need accelerate: pip install 'ffhqref[diffusion]'"
        ) from None
    with init_empty_weights(include_buffers=False):  # buffers that no file holds must be computed
        network = make()
    load_into(network, tensors, path, assign=True)
    return network.eval()


def moved(network: nn.Module, device: str, dtype: torch.dtype) -> Any:
    """Return a network on a device and in a number type, without the warning of diffusers' own ``to``.

    It is about layers that must stay float32, of which these networks have none.
    """
    from torch import nn

    return nn.Module.to(network, device, dtype)


def load_unet(base: str | Path) -> nn.Module:
    """Return the U-Net of a base folder, a diffusers ``UNet2DConditionModel``.

    Raises:
        WeightsError: absent, damaged, or of other names or shapes than its config says.
    """
    return _load(import_diffusers().UNet2DConditionModel, Path(base) / "unet")


def load_controlnet(folder: str | Path) -> nn.Module:
    """Return the ControlNet of a folder, a diffusers ``ControlNetModel``.

    Raises:
        WeightsError: absent, damaged, or of other names or shapes than its config says.
    """
    return _load(import_diffusers().ControlNetModel, Path(folder))


def load_vae(base: str | Path) -> nn.Module:
    """Return the VAE of a base folder, a diffusers ``AutoencoderKL``.

    Raises:
        WeightsError: absent, damaged, or of other names or shapes than its config says.
    """
    return _load(import_diffusers().AutoencoderKL, Path(base) / "vae", old_attention=True)


def load_scheduler(base: str | Path) -> Any:
    """Return a diffusers ``DDPMScheduler`` with the settings of a base folder.

    Raises:
        WeightsError: absent or unreadable.
    """
    return import_diffusers().DDPMScheduler.from_config(read_json(Path(base) / "scheduler" / "scheduler_config.json"))


def _load(kind: Any, folder: Path, *, old_attention: bool = False) -> nn.Module:
    config = read_json(folder / "config.json")
    file = weight_file(folder)
    tensors = load_tensors(file)
    if old_attention:
        tensors = {_attention_name(name): value for name, value in tensors.items()}
    return assemble(lambda: kind.from_config(config), tensors, file)


def _attention_name(name: str) -> str:
    parts = name.split(".")
    if "attentions" in parts and parts[-2] in _OLD_ATTENTION:
        parts[-2] = _OLD_ATTENTION[parts[-2]]
    return ".".join(parts)


def import_diffusers() -> Any:
    """Return the package diffusers.

    Raises:
        DependencyError: it is not installed.
    """
    return _imported("diffusers", "the networks")


def import_transformers() -> Any:
    """Return the package transformers.

    Raises:
        DependencyError: it is not installed.
    """
    return _imported("transformers", "the text encoder")


def _imported(package: str, what: str) -> Any:
    from ffhqref.core.compat import ensure_torchvision

    ensure_torchvision()
    try:
        return import_module(package)
    except ImportError:
        raise DependencyError(
            f"{what} of this restorer need the package {package}: pip install 'ffhqref[diffusion]'"
        ) from None


def own_names(encoder: torch.nn.Module, named: Mapping[str, T]) -> dict[str, T]:
    """Return what a text encoder's file holds under the names that the installed transformers gives it.

    Files have the prefix ``text_model.``; transformers 5 has dropped it from one of the two classes.
    """
    prefixed = any(name.startswith("text_model.") for name in encoder.state_dict())
    return {name if prefixed else name.removeprefix("text_model."): value for name, value in named.items()}


def load_tokenizer(folder: Path) -> Any:
    """Return the CLIP tokenizer of a folder.

    Raises:
        DependencyError: transformers is not installed.
        WeightsError: a file of it is absent.
    """
    transformers = import_transformers()
    for name in _TOKENIZER[:3]:
        if not (folder / name).is_file():
            raise WeightsError(f"no such file: {folder / name}; a model folder in the layout of diffusers has it")
    with tempfile.TemporaryDirectory(prefix="ffhqref-") as copy, parsing(folder, WeightsError, "fetch it again"):
        for name in _TOKENIZER:
            if (folder / name).is_file():
                write_atomic(Path(copy, name), read_bytes(folder / name))
        return transformers.CLIPTokenizer.from_pretrained(copy)


def load_text_encoder(kind: Any, folder: Path, device: str) -> Any:
    """Return the text encoder of a folder in float32.

    Args:
        kind: class of transformers.
        folder: with ``config.json`` and the weights.
        device: where it goes.

    Raises:
        WeightsError: a part is absent, damaged, or of other names or shapes than its config says.
    """
    import torch

    config = kind.config_class.from_dict(read_json(folder / "config.json"))
    file = weight_file(folder, "model")
    found = {name: value for name, value in load_tensors(file).items() if not name.endswith("position_ids")}
    with torch.device("meta"):
        found = own_names(kind(config), found)
    return assemble(lambda: kind(config), found, file).to(device, torch.float32)
