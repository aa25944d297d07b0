"""The architecture of a guided-diffusion U-Net, and the reading of published argument lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ffhqref.core.errors import ConfigError, did_you_mean

T = TypeVar("T")

GROUPS = 32
"""Groups of every normalisation layer, whatever the width."""

# Arguments of the published constructors that change the network or the sampler, with the only value used by the
# methods here. Another value describes something that is not built here, and is refused rather than misread.
_FIXED: dict[str, object] = {
    "dims": 2,
    "conv_resample": True,
    "num_classes": None,
    "class_cond": False,
    "use_scale_shift_norm": True,
    "use_new_attention_order": False,
    "num_heads_upsample": -1,
    "learn_sigma": True,
    "noise_schedule": "linear",
    "predict_xstart": False,
    "rescale_timesteps": False,
}
# Arguments that matter in training or to memory alone, or that are the restorer's options.
_IGNORED = {
    "dropout", "use_checkpoint", "use_fp16", "use_kl", "rescale_learned_sigmas", "sigma_small", "diffusion_steps",
    "timestep_respacing",
}  # fmt: skip


@dataclass(frozen=True)
class GuidedUNetConfig:
    """A guided-diffusion U-Net. Defaults: the FFHQ 512 network that DifFace and PGDiff share."""

    image_size: int = 512
    """Side of the images in pixels."""
    in_channels: int = 3
    model_channels: int = 32
    """Base width; a multiple of 32."""
    out_channels: int = 6
    """Noise, then the value that the variance is interpolated with."""
    channel_mult: tuple[int, ...] = (1, 2, 4, 8, 8, 16, 16)
    """Width of each level as a multiple of the base; each level but the last halves the side."""
    num_res_blocks: tuple[int, ...] = (1, 2, 2, 2, 2, 3, 4)
    """Residual blocks of each level on the way down; one more on the way up."""
    attention_levels: tuple[int, ...] = (4, 5, 6)
    """Levels with self-attention after each residual block, the first being 0; the middle always has it."""
    num_head_channels: int = 64
    """Channels of an attention head; -1: `num_heads` decides."""
    num_heads: int = 1
    resblock_updown: bool = False
    """Residual blocks without own resampling weights halve and double the side; else 3x3 convolutions."""

    def __post_init__(self) -> None:
        if len(self.num_res_blocks) != len(self.channel_mult):
            raise ConfigError(
                f"U-Net config: num_res_blocks has {len(self.num_res_blocks)} entries and channel_mult "
                f"{len(self.channel_mult)}, expected one for each level"
            )
        if self.model_channels < GROUPS or self.model_channels % GROUPS:
            raise ConfigError(f"U-Net config: model_channels={self.model_channels}, expected a multiple of {GROUPS}")
        for level in {*self.attention_levels, len(self.channel_mult) - 1}:
            width = self.channel_mult[level] * self.model_channels
            heads = self.heads(width)
            if heads < 1 or width % heads:
                raise ConfigError(
                    f"U-Net config: attention heads of num_head_channels={self.num_head_channels}, "
                    f"num_heads={self.num_heads} do not divide width {width}"
                )

    def heads(self, width: int) -> int:
        """Return the number of attention heads of a layer of this width."""
        return self.num_heads if self.num_head_channels == -1 else width // self.num_head_channels

    def changed(
        self, values: Mapping[str, object], attention: Literal["sides", "factors"], where: str
    ) -> GuidedUNetConfig:
        """Return this config with the published arguments put in.

        Args:
            values: arguments under the names of the published constructors; what is left out stays.
            attention: what ``attention_resolutions`` lists: sides in pixels (DifFace, PGDiff) or down-sampling
                factors (DR2).
            where: what the values come from, for messages.

        Raises:
            ConfigError: an unknown name, a wrong type, or a network that is not of this family.
        """
        given = dict(values)
        if "num_channels" in given:
            given["model_channels"] = given.pop("num_channels")
        resolutions = given.pop("attention_resolutions", None)
        mult = whole_numbers(given.get("channel_mult", self.channel_mult), f"{where}: channel_mult")
        if "num_res_blocks" in given and isinstance(given["num_res_blocks"], int):
            given["num_res_blocks"] = [given["num_res_blocks"]] * len(mult)
        if resolutions is not None:
            listed = whole_numbers(resolutions, f"{where}: attention_resolutions")
            side = whole_number(given.get("image_size", self.image_size), f"{where}: image_size")
            marks = [side >> level if attention == "sides" else 2**level for level in range(len(mult))]
            given["attention_levels"] = [level for level, mark in enumerate(marks) if mark in listed]
        return changed(self, given, where, fixed=_FIXED, ignored=_IGNORED)


def section(tree: Mapping[str, object], name: str, where: str) -> Mapping[str, object]:
    """Return a part of a config; an empty mapping where it is absent.

    Raises:
        ConfigError: it is no mapping.
    """
    part = tree.get(name)
    if part is None:
        return {}
    if not isinstance(part, Mapping):
        raise ConfigError(f"{where}: '{name}' should be a mapping, not {type(part).__name__}")
    return part


def changed(
    base: T,
    values: Mapping[str, object],
    where: str,
    *,
    fixed: Mapping[str, object] | None = None,
    ignored: Collection[str] = (),
) -> T:
    """Return a frozen dataclass with some of its fields set from a config.

    Args:
        base: what holds for fields that are left out.
        values: field names to values; lists, and texts such as ``"1, 2, 4"``, for tuples of whole numbers.
        where: what the values come from, for messages.
        fixed: names that are no fields, with the only value that is accepted.
        ignored: names that are no fields and do not matter.

    Raises:
        ConfigError: an unknown name, another value than the fixed one, or a wrong type.
    """
    fixed = fixed or {}
    kinds = {item.name: str(item.type) for item in dataclasses.fields(base)}  # type: ignore[arg-type]
    typed: dict[str, object] = {}
    for name, value in values.items():
        if name in fixed:
            if value != fixed[name]:
                raise ConfigError(f"{where}: {name}={value!r} is another network; here it is always {fixed[name]!r}")
        elif name in kinds:
            typed[name] = _typed(kinds[name], value, f"{where}: {name}")
        elif name not in ignored:
            raise ConfigError(f"{where}: unknown entry '{name}'.{did_you_mean(name, kinds)}")
    return dataclasses.replace(base, **typed)  # type: ignore[type-var]


def whole_numbers(value: object, what: str) -> tuple[int, ...]:
    """Return a list, or a text such as ``"32, 16, 8"``, as whole numbers.

    Raises:
        ConfigError: it is neither, or holds something else.
    """
    if isinstance(value, str):
        value = [int(item) if item.strip().lstrip("-").isdigit() else item for item in value.split(",") if item.strip()]
    if isinstance(value, (list, tuple)) and all(isinstance(item, int) and not isinstance(item, bool) for item in value):
        return tuple(value)
    raise ConfigError(f"{what}={value!r}, expected whole numbers")


def whole_number(value: object, what: str) -> int:
    """Return a whole number.

    Raises:
        ConfigError: it is none.
    """
    return whole_numbers([value], what)[0]


def _typed(kind: str, value: object, what: str) -> Any:
    if kind.startswith("tuple"):
        return whole_numbers(value, what)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind in ("int", "float") and isinstance(value, (int, float)) and not isinstance(value, bool):
        if kind == "float":
            return float(value)
        if int(value) == value:
            return int(value)
    if kind == "str" and isinstance(value, str):
        return value
    raise ConfigError(f"{what}={value!r}, expected {kind}")
