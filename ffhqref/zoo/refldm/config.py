"""The architecture of a ReF-LDM, and the published YAML form of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.zoo.shared.architecture import read_tree

# Settings of the published classes that change the network, with the only value that ReF-LDM uses. A file that
# sets another value describes a network that is not built here, and is refused rather than misread.
_FIXED_UNET: dict[str, Any] = {
    "dims": 2,
    "conv_resample": True,
    "num_classes": None,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "use_spatial_transformer": False,
    "context_dim": None,
    "n_embed": None,
}
_FIXED_FIRST_STAGE: dict[str, Any] = {
    "double_z": False,
    "attn_type": "vanilla",
    "resamp_with_conv": True,
    "use_linear_attn": False,
    "use_timestep": False,
    "tanh_out": False,
    "give_pre_end": False,
}
_FIXED_MODEL: dict[str, Any] = {
    "parameterization": "eps",
    "beta_schedule": "linear",
    "scale_factor": 1.0,
    "scale_by_std": False,
    "learn_logvar": False,
}
# Settings that say nothing about the network: memory, training, logging.
_IGNORED_UNET = {"use_checkpoint", "use_fp16", "legacy", "transformer_depth", "num_heads_upsample", "image_size"}


@dataclass(frozen=True)
class FirstStageConfig:
    """The VQ auto-encoder. Defaults: the released model (configs/vqgan.yaml)."""

    embed_dim: int = 8
    """Channels of the latent and of a code."""
    n_embed: int = 8192
    """Number of codes."""
    z_channels: int = 8
    resolution: int = 512
    """Side of the images in pixels; decides, with `attn_resolutions`, at which levels attention sits."""
    in_channels: int = 3
    out_ch: int = 3
    ch: int = 128
    """Width of the first level."""
    ch_mult: tuple[int, ...] = (1, 1, 2, 4)
    """Width of each level as a multiple of `ch`; each level but the last halves the side."""
    num_res_blocks: int = 2
    """Residual blocks a level in the encoder; the decoder has one more."""
    attn_resolutions: tuple[int, ...] = ()
    dropout: float = 0.0

    @property
    def downscale(self) -> int:
        """Return image side divided by latent side."""
        return int(2 ** (len(self.ch_mult) - 1))


@dataclass(frozen=True)
class UNetConfig:
    """The denoiser. Defaults: the released model (configs/refldm.yaml)."""

    in_channels: int = 16
    out_channels: int = 8
    model_channels: int = 160
    attention_resolutions: tuple[int, ...] = (2, 4, 8)
    """Down-scale factors (not sides) at which self-attention sits; the middle block always has it."""
    num_res_blocks: int = 2
    channel_mult: tuple[int, ...] = (1, 2, 2, 4)
    num_head_channels: int = 32
    """Channels of an attention head; -1: `num_heads` decides."""
    num_heads: int = -1
    dropout: float = 0.0

    def heads(self, channels: int) -> int:
        """Return the number of attention heads of a layer of this width."""
        return self.num_heads if self.num_head_channels == -1 else channels // self.num_head_channels


@dataclass(frozen=True)
class RefLDMConfig:
    """Architecture and noise schedule. ``RefLDMConfig()`` is the released full-size model."""

    first_stage: FirstStageConfig = field(default_factory=FirstStageConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    image_size: int = 64
    """Side of the latent the model was trained at."""
    channels: int = 8
    """Channels of the latent."""
    timesteps: int = 1000
    linear_start: float = 0.0015
    linear_end: float = 0.0155

    def __post_init__(self) -> None:
        stage, unet = self.first_stage, self.unet
        if stage.embed_dim != self.channels or unet.out_channels != self.channels:
            raise ConfigError(
                f"ReF-LDM config: channels ({self.channels}), first stage embed_dim ({stage.embed_dim}) and U-Net "
                f"out_channels ({unet.out_channels}) must be equal"
            )
        if unet.in_channels != 2 * self.channels:
            raise ConfigError(
                f"ReF-LDM config: U-Net in_channels must be {2 * self.channels} (noisy latent and LQ latent), "
                f"not {unet.in_channels}"
            )
        if self.image_size * stage.downscale != stage.resolution:
            raise ConfigError(
                f"ReF-LDM config: image_size {self.image_size} times the first stage's down-scale "
                f"{stage.downscale} must be its resolution {stage.resolution}"
            )
        if unet.num_head_channels == -1 and unet.num_heads == -1:
            raise ConfigError("ReF-LDM config: the U-Net needs num_head_channels or num_heads")
        for mult in unet.channel_mult:
            width = mult * unet.model_channels
            heads = unet.heads(width)
            if heads < 1 or width % heads:
                raise ConfigError(
                    f"ReF-LDM config: attention heads of num_head_channels={unet.num_head_channels}, "
                    f"num_heads={unet.num_heads} do not divide width {width}"
                )

    @property
    def picture_size(self) -> int:
        """Return the side in pixels of the images the model was trained at."""
        return self.first_stage.resolution

    @classmethod
    def load(cls, source: RefLDMConfig | str | Path | None) -> RefLDMConfig:
        """Return ``source`` as a config: a config, the path of a published-style YAML, or None (released model).

        Raises:
            ConfigError: the file is absent, no YAML, or describes a network that is not a ReF-LDM.
        """
        if source is None:
            return cls()
        if isinstance(source, RefLDMConfig):
            return source
        return cls.from_tree(read_tree(source, "ReF-LDM"), where=str(source))

    @classmethod
    def from_tree(cls, tree: Any, where: str = "config") -> RefLDMConfig:
        """Return the config that a published-style YAML tree (``model: params: …``) describes.

        Raises:
            ConfigError: an entry is missing, unknown, of a wrong type, or asks for another network.
        """
        params = _child(_child(tree, "model", where), "params", where)
        _refuse_other(params, _FIXED_MODEL, where)
        for condition in params.get("cond_stage_config") or []:
            key = condition.get("conditioning_key") if isinstance(condition, Mapping) else None
            if key not in ("concat", "cache_kv"):
                raise ConfigError(f"{where}: conditioning_key must be 'concat' or 'cache_kv', not {key!r}")
        unet = _child(_child(params, "unet_config", where), "params", where)
        stage = _child(_child(params, "first_stage_config", where), "params", where)
        inner = dict(_child(stage, "ddconfig", where))
        for name in ("embed_dim", "n_embed"):
            if name in stage:
                inner[name] = stage[name]
        own = {item.name for item in fields(cls)} - {"first_stage", "unet"}
        return cls(
            first_stage=_build(FirstStageConfig, inner, _FIXED_FIRST_STAGE, set(), f"{where}: ddconfig"),
            unet=_build(UNetConfig, unet, _FIXED_UNET, _IGNORED_UNET, f"{where}: unet_config"),
            **_typed(cls, {name: value for name, value in params.items() if name in own}, where),
        )

    def to_tree(self) -> dict[str, Any]:
        """Return the published-style YAML tree; `from_tree` gives the same config back."""
        stage = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.first_stage).items()
        }
        unet = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.unet).items()}
        outer = {name: stage.pop(name) for name in ("embed_dim", "n_embed")}
        conditions = [
            {"cond_stage_key": "lq_image", "conditioning_key": "concat"},
            {"cond_stage_key": "ref_image", "conditioning_key": "cache_kv"},
        ]
        params = {
            "linear_start": self.linear_start,
            "linear_end": self.linear_end,
            "timesteps": self.timesteps,
            "image_size": self.image_size,
            "channels": self.channels,
            "first_stage_config": {"params": {**outer, "ddconfig": {"double_z": False, **stage}}},
            "cond_stage_config": conditions,
            "unet_config": {"params": {"image_size": self.image_size, **unet}},
        }
        return {"model": {"params": params}}


T = TypeVar("T")


def _child(tree: Any, key: str, where: str) -> Mapping[str, Any]:
    value = tree.get(key) if isinstance(tree, Mapping) else None
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: no mapping '{key}'; expected the form of the published refldm.yaml")
    return value


def _refuse_other(values: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> None:
    for key, expected in fixed.items():
        if key in values and values[key] != expected:
            raise ConfigError(f"{where}: {key}={values[key]!r} is another network than ReF-LDM ({key}={expected!r})")


def _build(kind: type[T], values: Mapping[str, Any], fixed: Mapping[str, Any], ignored: set[str], where: str) -> T:
    _refuse_other(values, fixed, where)
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    rest = {key: value for key, value in values.items() if key not in fixed and key not in ignored}
    for key in rest:
        if key not in known:
            raise ConfigError(f"{where}: unknown entry '{key}'.{did_you_mean(key, known)}")
    return kind(**_typed(kind, rest, where))


def _typed(kind: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values as the types of the dataclass's fields, or refuse them."""
    kinds = {item.name: str(item.type) for item in fields(kind)}
    typed: dict[str, Any] = {}
    for key, value in values.items():
        try:
            if kinds[key].startswith("tuple"):
                typed[key] = tuple(_whole(item) for item in value)
            elif kinds[key] == "int":
                typed[key] = _whole(value)
            else:
                typed[key] = float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{where}: {key}={value!r} should be {kinds[key]}") from None
    return typed


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(value)
    return int(value)
