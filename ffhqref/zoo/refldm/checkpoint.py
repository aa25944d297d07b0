"""Checkpoints as released, ``refldm.ckpt`` and ``vqgan.ckpt``: read them, and write the same layout.

Layout: that of the published refldm.ckpt and vqgan.ckpt. Nothing is unpickled: files are read as safetensors or with
torch's weights-only reader.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ffhqref.core.errors import WeightsError
from ffhqref.core.parsing import load_reason
from ffhqref.weights.tensors import opened
from ffhqref.zoo.refldm.config import RefLDMConfig
from ffhqref.zoo.refldm.first_stage import FirstStage
from ffhqref.zoo.refldm.schedule import alphas_cumprod
from ffhqref.zoo.refldm.unet import UNet

if TYPE_CHECKING:
    from collections.abc import Iterable

UNET = "model.diffusion_model."
EMA = "model_ema."
FIRST_STAGE = "first_stage_model."
CONDITION = "cond_stage_model."
CONDITIONS = (f"{CONDITION}lq_image.", f"{CONDITION}ref_image.", CONDITION)
"""Aliases of the first stage; the longest prefix comes first."""
SCHEDULE = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
_LEFTOVERS = ("loss.", "perceptual_loss", "identity_loss", "lvlb_weights", "logvar")
"""What training leaves in a file: discriminator, perceptual and identity networks."""
_FRAMEWORKS = ("pytorch_lightning.", "lightning.", "omegaconf.")
"""Packages whose objects Lightning checkpoints may hold beside their tensors."""


@dataclass(frozen=True)
class RefLDMWeights:
    """What sampling needs of the published files: EMA weights of the U-Net, and the first stage."""

    unet: dict[str, Tensor]
    first_stage: dict[str, Tensor]


def shapes(config: RefLDMConfig) -> tuple[dict[str, torch.Size], dict[str, torch.Size]]:
    """Return parameter name to shape for the U-Net and for the first stage, in checkpoint order."""
    with torch.device("meta"):
        unet, first_stage = UNet(config.unet), FirstStage(config.first_stage)
    return (
        {name: value.shape for name, value in unet.state_dict().items()},
        {name: value.shape for name, value in first_stage.state_dict().items()},
    )


def ema_name(parameter: str) -> str:
    """Return the published name of a U-Net parameter's EMA copy: the dots are removed.

    >>> ema_name("input_blocks.0.0.weight")
    'model_ema.diffusion_modelinput_blocks00weight'
    """
    return EMA + f"diffusion_model.{parameter}".replace(".", "")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a bare state dict, or the ``state_dict`` entry of a training checkpoint, without running its pickle.

    Raises:
        WeightsError: the file is missing, damaged, or holds other things than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no such weight file: {path}")
    try:
        with opened(path) as name:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                return load_file(name)
            loaded = _load_pickled(name)
    except WeightsError:
        raise
    except Exception as error:  # noqa: BLE001 -- a damaged file fails in many ways, which all mean the same
        raise WeightsError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as weights, it is damaged or holds other things "
            f"than tensors: {load_reason(error)}"
        ) from None
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path} holds no state dict; expected tensors by name or an entry 'state_dict'")
    strange = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if strange:
        raise WeightsError(f"{path} holds entries that are no tensors: {_some(strange)}")
    return {str(key): value for key, value in loaded.items()}


class _Inert:
    """Stands in for a class of the training framework that lies in a checkpoint beside its tensors."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _load_pickled(path: Path) -> Any:
    """Read with the weights-only reader; classes of the training framework become inert, others are refused."""
    known, mapped = torch.serialization, zipfile.is_zipfile(path)
    names: list[str] = []
    if mapped and hasattr(known, "get_unsafe_globals_in_checkpoint"):
        names = known.get_unsafe_globals_in_checkpoint(path)
    if not names or not all(name.startswith(_FRAMEWORKS) for name in names):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    with known.safe_globals([(_Inert, name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def load_published(
    refldm_ckpt: str | Path, vqgan_ckpt: str | Path | None, config: RefLDMConfig | None = None
) -> RefLDMWeights:
    """Read the published pair of files as the published sampler uses them.

    EMA weights of the U-Net are required, since the sampler swaps them in. The first stage comes from
    ``vqgan_ckpt``, overridden by that of ``refldm_ckpt``; aliases, schedule buffers and training leftovers are
    dropped.

    Args:
        refldm_ckpt: the main file.
        vqgan_ckpt: the first stage's file; None where the main file holds all of the first stage.
        config: the architecture; None: the released one.

    Raises:
        WeightsError: a file cannot be read, lacks keys, has foreign ones, has other shapes, or was trained on
            another noise schedule than the config's.
    """
    config = config or RefLDMConfig()
    main = read_tensors(refldm_ckpt)
    unet_shapes, stage_shapes = shapes(config)
    ema = {ema_name(name): name for name in unet_shapes}
    assert len(ema) == len(unet_shapes), "two parameters share one EMA name"
    if not any(key.startswith(EMA) for key in main):
        raise WeightsError(
            f"{refldm_ckpt} has no EMA weights ({EMA}*), which the published sampler uses; the file is incomplete"
        )
    _check_schedule(main, config, refldm_ckpt)

    unet: dict[str, Tensor] = {}
    raw: dict[str, Tensor] = {}
    # In the order in which loading lets one copy of the first stage overwrite another.
    copies: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in (FIRST_STAGE, *CONDITIONS)}
    foreign: list[str] = []
    for key, value in main.items():
        if key in ema:
            unet[ema[key]] = value
        elif key.startswith(UNET):
            raw[key[len(UNET) :]] = value
        elif prefix := next((name for name in copies if key.startswith(name)), None):
            copies[prefix][key[len(prefix) :]] = value
        elif key not in (*SCHEDULE, f"{EMA}decay", f"{EMA}num_updates") and not key.startswith(_LEFTOVERS):
            foreign.append(key)
    missing = [key for key, name in ema.items() if name not in unet]
    missing += [UNET + name for name in unet_shapes if name not in raw]
    foreign += [UNET + name for name in unknown(raw, unet_shapes)]
    refuse(refldm_ckpt, missing, foreign)
    check_shapes(refldm_ckpt, unet, unet_shapes)
    check_shapes(refldm_ckpt, raw, unet_shapes)

    first_stage: dict[str, Tensor] = {}
    if vqgan_ckpt is not None:
        first_stage = {key: value for key, value in read_tensors(vqgan_ckpt).items() if not key.startswith("loss.")}
        refuse(vqgan_ckpt, [key for key in stage_shapes if key not in first_stage], unknown(first_stage, stage_shapes))
        check_shapes(vqgan_ckpt, first_stage, stage_shapes)
    for prefix, part in copies.items():
        state = {key: value for key, value in part.items() if not key.startswith("loss.")}
        if state:
            absent = [prefix + key for key in unknown(stage_shapes, state)]
            refuse(refldm_ckpt, absent, [prefix + key for key in unknown(state, stage_shapes)])
            check_shapes(refldm_ckpt, state, stage_shapes)
            first_stage |= state
    refuse(refldm_ckpt, [FIRST_STAGE + key for key in stage_shapes if key not in first_stage], [])
    return RefLDMWeights(unet, first_stage)


def published_state(
    config: RefLDMConfig,
    raw: Mapping[str, Tensor],
    ema: Mapping[str, Tensor],
    first_stage: Mapping[str, Tensor],
    *,
    decay: float,
    updates: int,
) -> dict[str, Tensor]:
    """Return a state dict in the published layout, as training writes it.

    Args:
        config: architecture and schedule.
        raw: U-Net parameters as trained.
        ema: their running averages.
        first_stage: parameters of the VQ auto-encoder.
        decay: of the running averages.
        updates: how many they have had.
    """
    state: dict[str, Tensor] = schedule_buffers(config)
    state |= {UNET + name: value for name, value in raw.items()}
    state[f"{EMA}decay"] = torch.tensor(decay)
    state[f"{EMA}num_updates"] = torch.tensor(updates, dtype=torch.int32)
    state |= {ema_name(name): value for name, value in ema.items()}
    for prefix in (FIRST_STAGE, *CONDITIONS[:2]):
        state |= {prefix + name: value for name, value in first_stage.items()}
    return state


def schedule_buffers(config: RefLDMConfig) -> dict[str, Tensor]:
    """Return the 12 buffers of the noise schedule that published checkpoints hold, float32 [timesteps]."""
    alphas = torch.from_numpy(alphas_cumprod(config.timesteps, config.linear_start, config.linear_end))
    before = torch.cat([alphas.new_ones(1), alphas[:-1]])
    betas = 1.0 - alphas / before
    variance = betas * (1.0 - before) / (1.0 - alphas)
    values = (
        betas,
        alphas,
        before,
        alphas.sqrt(),
        (1.0 - alphas).sqrt(),
        (1.0 - alphas).log(),
        (1.0 / alphas).sqrt(),
        (1.0 / alphas - 1.0).sqrt(),
        variance,
        variance.clamp(min=1e-20).log(),
        betas * before.sqrt() / (1.0 - alphas),
        (1.0 - before) * (1.0 - betas).sqrt() / (1.0 - alphas),
    )
    return {name: value.float() for name, value in zip(SCHEDULE, values, strict=True)}


def _check_schedule(state: Mapping[str, Tensor], config: RefLDMConfig, path: str | Path) -> None:
    found = state.get("alphas_cumprod")
    if found is None:
        return
    expected = schedule_buffers(config)["alphas_cumprod"]
    if found.shape != expected.shape or not torch.allclose(found.float(), expected, rtol=1e-4, atol=1e-6):
        raise WeightsError(
            f"{path} was trained on another noise schedule than the config's ({config.timesteps} steps from "
            f"{config.linear_start} to {config.linear_end}); give the config that belongs to the file"
        )


def check_shapes(path: str | Path, state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    """Refuse tensors of other shapes than expected, which mean another config."""
    wrong = [
        f"{key} {list(value.shape)} instead of {list(expected[key])}"
        for key, value in state.items()
        if value.shape != expected[key]
    ]
    if wrong:
        raise WeightsError(
            f"{path}: {len(wrong)} tensors of another shape ({_some(wrong)}); give the config that belongs to it"
        )


def refuse(path: str | Path, missing: Collection[str], foreign: Collection[str]) -> None:
    """Raise a WeightsError that lists the first of the missing and foreign keys, if there are any."""
    faults = []
    if missing:
        faults.append(f"{len(missing)} keys missing ({_some(missing)})")
    if foreign:
        faults.append(f"{len(foreign)} foreign keys ({_some(foreign)})")
    if faults:
        raise WeightsError(f"{path} is not this ReF-LDM: {' and '.join(faults)}")


def unknown(state: Iterable[str], known: Collection[str]) -> list[str]:
    """Return the keys that are not known."""
    return [key for key in state if key not in known]


def _some(names: Collection[str], count: int = 3) -> str:
    listed = list(names)
    return ", ".join(listed[:count]) + (", …" if len(listed) > count else "")
