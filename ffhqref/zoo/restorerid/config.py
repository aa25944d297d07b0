"""Widths of RestorerID's networks. Names of the fields are those of the published configs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ffhqref.core.errors import ConfigError


@dataclass(frozen=True)
class UNetConfig:
    """Widths of the denoiser. Defaults: Stable Diffusion 1.5."""

    FIXED: ClassVar[dict[str, object]] = {
        "in_channels": 4,
        "out_channels": 4,
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "legacy": False,
    }
    UNUSED: ClassVar[tuple[str, ...]] = ("image_size",)

    model_channels: int = 320
    num_res_blocks: int = 2
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    """Factors by which the latent is reduced where there is attention."""
    num_heads: int = 8
    context_dim: int = 768
    """Channels of a text or identity token."""
    semb_channels: int = 256
    """Channels of a structure feature."""


@dataclass(frozen=True)
class StructureConfig:
    """Widths of the structure encoder."""

    FIXED: ClassVar[dict[str, object]] = {"in_channels": 4, "conv_resample": True}
    UNUSED: ClassVar[tuple[str, ...]] = ("image_size",)

    model_channels: int = 256
    out_channels: int = 256
    """Channels of each feature."""
    num_res_blocks: int = 2
    channel_mult: tuple[int, ...] = (1, 1, 2, 2)
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    num_heads: int = 4


@dataclass(frozen=True)
class VAEConfig:
    """Widths of the auto-encoder. Defaults: Stable Diffusion 1.5."""

    FIXED: ClassVar[dict[str, object]] = {
        "double_z": True,
        "z_channels": 4,
        "embed_dim": 4,
        "in_channels": 3,
        "out_ch": 3,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    UNUSED: ClassVar[tuple[str, ...]] = ("resolution",)

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2


@dataclass(frozen=True)
class AdapterConfig:
    """Widths of the identity projection. Defaults: IP-Adapter FaceID-plus for Stable Diffusion 1.5."""

    context: int = 768
    """Channels of a token."""
    id_dim: int = 512
    """Channels of an ArcFace vector."""
    depth: int = 4
    dim_head: int = 64
    num_tokens: int = 4
    ff_mult: int = 4


@dataclass(frozen=True)
class TextConfig:
    """Widths of the text encoder. Defaults: CLIP ViT-L/14."""

    FIXED: ClassVar[dict[str, object]] = {"hidden_act": "quick_gelu"}

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    vocab_size: int = 49408
    max_position_embeddings: int = 77


@dataclass(frozen=True)
class VisionConfig:
    """Widths of the image encoder. Defaults: CLIP ViT-H/14."""

    FIXED: ClassVar[dict[str, object]] = {"hidden_act": "gelu"}

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    projection_dim: int = 1024
    patch_size: int = 14
    image_size: int = 224


@dataclass(frozen=True)
class DiffusionConfig:
    """The noise of training. Defaults: Stable Diffusion 1.5."""

    timesteps: int = 1000
    linear_start: float = 0.00085
    """First beta, and the last one below; their roots lie at equal distances."""
    linear_end: float = 0.012
    scale_factor: float = 0.18215
    """Latents of the networks in those of the VAE."""


@dataclass(frozen=True)
class RestorerIDConfig:
    """Widths of all networks. Defaults: the released ones."""

    UNUSED: ClassVar[tuple[str, ...]] = ("lora_rank",)  # the tensors tell it

    unet: UNetConfig = field(default_factory=UNetConfig)
    struct: StructureConfig = field(default_factory=StructureConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    spade_hidden: int = 128
    """Channels inside the layers that modulate by a structure feature."""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)

    @property
    def reduction(self) -> int:
        """Return the side of an image in sides of its latent: 8, as released."""
        return int(2 ** (len(self.vae.ch_mult) - 1))

    @property
    def unit(self) -> int:
        """Return what sides of images are multiples of: 64, as released, since the U-Net halves latents three times."""
        return self.reduction * int(2 ** (len(self.unet.channel_mult) - 1))

    def __post_init__(self) -> None:
        pairs = {
            "unet.semb_channels and struct.out_channels": (self.unet.semb_channels, self.struct.out_channels),
            "unet.context_dim and adapter.context": (self.unet.context_dim, self.adapter.context),
            "unet.context_dim and text.hidden_size": (self.unet.context_dim, self.text.hidden_size),
        }
        for names, (one, other) in pairs.items():
            if one != other:
                raise ConfigError(f"RestorerID config: {names} must be equal, not {one} and {other}")
        if self.adapter.context % self.adapter.dim_head:
            raise ConfigError(
                f"RestorerID config: adapter.context must be a multiple of adapter.dim_head, not "
                f"{self.adapter.context} of {self.adapter.dim_head}"
            )
