"""Architecture of DifFace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ffhqref.core.errors import ConfigError
from ffhqref.zoo.shared.architecture import read_tree
from ffhqref.zoo.shared.guided_diffusion.config import GuidedUNetConfig, changed, section, whole_number

# What spandrel's class does not build otherwise, or what the published class is always given.
_FIXED_SWINIR: dict[str, object] = {
    "patch_size": 1, "in_chans": 3, "upsampler": "nearest+conv", "resi_connection": "1conv", "unshuffle": True,
}  # fmt: skip


@dataclass(frozen=True)
class SwinIRConfig:
    """The network of the first estimate. Defaults: the released one."""

    img_size: int = 64
    """Nominal side after the entrance, which takes the image down by `unshuffle_scale`."""
    embed_dim: int = 180
    depths: tuple[int, ...] = (6,) * 8
    num_heads: tuple[int, ...] = (6,) * 8
    window_size: int = 8
    mlp_ratio: float = 2.0
    sf: int = 8
    """Enlargement at the end, which undoes the entrance."""
    img_range: float = 1.0
    unshuffle_scale: int = 8

    def __post_init__(self) -> None:
        if self.sf != self.unshuffle_scale:
            raise ConfigError(f"SwinIR config: sf={self.sf} must equal unshuffle_scale={self.unshuffle_scale}")
        if len(self.depths) != len(self.num_heads):
            raise ConfigError(f"SwinIR config: {len(self.depths)} depths and {len(self.num_heads)} num_heads")


@dataclass(frozen=True)
class DifFaceConfig:
    """Both networks and the full chain. ``DifFaceConfig()`` is the released full-size model."""

    unet: GuidedUNetConfig = field(default_factory=GuidedUNetConfig)
    swinir: SwinIRConfig = field(default_factory=SwinIRConfig)
    steps: int = 1000

    @classmethod
    def load(cls, source: DifFaceConfig | Mapping[str, object] | str | Path | None) -> DifFaceConfig:
        """Return a config: as it is, or from a mapping or file in the published form; None: released.

        The published form has ``model``, ``model_ir`` and ``diffusion``, each with ``params``; what is left out is as
        released.

        Raises:
            ConfigError: not readable, or another network.
        """
        if source is None or isinstance(source, cls):
            return source or cls()
        assert not isinstance(source, DifFaceConfig)
        tree = read_tree(source, "DifFace")
        unet, swinir, diffusion = (
            section(section(tree, name, "DifFace config"), "params", f"DifFace config: {name}")
            for name in ("model", "model_ir", "diffusion")
        )
        config = cls()
        return cls(
            unet=config.unet.changed(unet, "sides", "DifFace config: model"),
            swinir=changed(config.swinir, swinir, "DifFace config: model_ir", fixed=_FIXED_SWINIR),
            steps=whole_number(diffusion.get("steps", config.steps), "DifFace config: steps"),
        )
