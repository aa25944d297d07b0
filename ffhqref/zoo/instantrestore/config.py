"""What a checkpoint says of itself, and the constants of the published script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ffhqref.core.errors import WeightsError

PROMPT = "A high-quality photo of a person; professional, 8k"
TIMESTEP = 249
"""Time that the input is noised to; training drew 249, 499 and 749."""
REFERENCE_TIMESTEP = 1
FREEU = {"s1": 0.9, "s2": 0.2, "b1": 1.4, "b2": 1.6}
"""FreeU of both U-Nets, by the names of diffusers."""

_BUILT: Mapping[str, Any] = {
    "net_type": "pix2pix_turbo",
    "use_shared_attention": True,
    "condition_on_face_embeds": False,
    "concat_mask_and_landmarks": False,
    "use_shortcuts": False,
    "train_reference_networks": False,
}
"""Settings of training for which only one value is built; a checkpoint without the entry has it."""


@dataclass(frozen=True)
class ModelSettings:
    """The part of a checkpoint's ``cfg.model`` that results depend on."""

    lora_rank_unet: int
    lora_rank_vae: int
    use_adain: bool
    train_input: bool
    """The image's own keys and values stand before those of the references."""

    @classmethod
    def read(cls, cfg: object, where: str) -> ModelSettings:
        """Return the settings in a checkpoint's ``cfg``.

        Raises:
            WeightsError: they are missing, of wrong types, or of a kind of model that is not built.
        """
        model = cfg.get("model") if isinstance(cfg, Mapping) else None
        if not isinstance(model, Mapping):
            raise WeightsError(f"{where} holds no settings (cfg.model): no checkpoint of InstantRestore")
        for name, value in _BUILT.items():
            if model.get(name, value) != value:
                raise WeightsError(f"{where}: {name}={model[name]!r} is not built, only {name}={value!r}")
        kinds = {"lora_rank_unet": int, "lora_rank_vae": int, "use_adain": bool, "train_input": bool}
        for name, kind in kinds.items():
            if type(model.get(name)) is not kind or (kind is int and model[name] < 1):
                expected = "a whole number of at least 1" if kind is int else "true or false"
                raise WeightsError(f"{where}: cfg.model.{name} is {model.get(name)!r}, expected {expected}")
        return cls(**{name: model[name] for name in kinds})


@dataclass(frozen=True)
class Behaviour:
    """What the networks do besides their weights."""

    prompt: str
    timestep: int
    reference_timestep: int
    freeu: Mapping[str, float] | None
    """``s1``, ``s2``, ``b1``, ``b2``; None: off."""
    use_adain: bool | None = None
    """None: as the checkpoint says."""
    train_input: bool | None = None
    """None: as the checkpoint says."""
