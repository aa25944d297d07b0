"""The architecture of Arc2Face: Stable Diffusion 1.5's, in the words of diffusers' and transformers' own configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.parsing import read_json

_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
_CONTROLNET = {"cross_attention_dim": 768, "attention_head_dim": 8}
_VAE = {
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4, "layers_per_block": 2, "latent_channels": 4, "sample_size": 512,
    "scaling_factor": 0.18215,
}  # fmt: skip
_ENCODER = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
}  # fmt: skip
_SCHEDULER = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Arc2FaceConfig:
    """Arguments of the networks, and the prompt as token numbers, so that no tokenizer is needed."""

    unet: Mapping[str, Any] = field(default_factory=lambda: dict(_UNET))
    """Of diffusers' ``UNet2DConditionModel``; what is not named has its default, which is Stable Diffusion 1.5's."""
    controlnet: Mapping[str, Any] = field(default_factory=lambda: dict(_CONTROLNET))
    """Of ``ControlNetModel``."""
    vae: Mapping[str, Any] = field(default_factory=lambda: dict(_VAE))
    """Of ``AutoencoderKL``."""
    encoder: Mapping[str, Any] = field(default_factory=lambda: dict(_ENCODER))
    """Of transformers' ``CLIPTextConfig``."""
    scheduler: Mapping[str, Any] = field(default_factory=lambda: dict(_SCHEDULER))
    """Of ``DPMSolverMultistepScheduler``: what it takes over from Stable Diffusion 1.5's own scheduler file."""
    prompt: tuple[int, ...] = (1125, 539, 320, 1014, 2533)
    """CLIP's tokens of "photo of a id person"."""
    identity_token: int = 1014
    """CLIP's token of "id", in whose place the ArcFace vector is put."""
    size: int = 512
    """Side of the images in pixels."""

    @classmethod
    def of(cls, value: Arc2FaceConfig | Mapping[str, Any] | str | Path | None) -> Arc2FaceConfig:
        """Return a config: as it is, from a mapping or a JSON file of some of its entries; None: the published one.

        Raises:
            ConfigError: no such file, no JSON object, an unknown entry, or a prompt without the identity token.
        """
        if value is None or isinstance(value, cls):
            return value or cls()
        if isinstance(value, (str, Path)):
            value = read_json(value, ConfigError, "expected the config of arc2face")
        known = [item.name for item in fields(cls)]
        if not isinstance(value, Mapping):
            raise ConfigError(f"arc2face: the config must hold named entries: {', '.join(known)}")
        for key in value:
            if key not in known:
                raise ConfigError(
                    f"arc2face: unknown config entry '{key}'.{did_you_mean(str(key), known)} Known: {', '.join(known)}"
                )
        entries: dict[str, Any] = {key: tuple(item) if key == "prompt" else item for key, item in value.items()}
        made = replace(cls(), **entries)
        if made.prompt.count(made.identity_token) != 1:
            raise ConfigError(f"arc2face: the prompt {made.prompt} must hold token {made.identity_token} once")
        return made

    @property
    def tokens(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the token rows of the empty prompt and of the prompt, padded with the end token as SD 1.5 does."""
        start, end = int(self.encoder["bos_token_id"]), int(self.encoder["eos_token_id"])
        length = int(self.encoder["max_position_embeddings"])

        def row(words: tuple[int, ...]) -> tuple[int, ...]:
            return (start, *words, *[end] * (length - 1 - len(words)))

        return row(()), row(self.prompt)
