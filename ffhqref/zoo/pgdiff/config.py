"""The architecture of PGDiff's three networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ffhqref.core.errors import ConfigError
from ffhqref.zoo.shared.architecture import read_tree
from ffhqref.zoo.shared.guided_diffusion.config import GuidedUNetConfig, changed, section, whole_number


@dataclass(frozen=True)
class RRDBConfig:
    """The smooth-semantics network. Defaults: the released one."""

    mid_channels: int = 64
    num_blocks: int = 23
    growth_channels: int = 32


@dataclass(frozen=True)
class ArcFaceConfig:
    """The identity network of the reference task. Defaults: IResNet-50, as released."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    layers: tuple[int, ...] = (3, 4, 14, 3)
    features: int = 512

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or len(self.layers) != 4:
            raise ConfigError(f"ArcFace config: widths {self.widths} and layers {self.layers}, expected four of each")


@dataclass(frozen=True)
class PGDiffConfig:
    """All networks and the full chain. ``PGDiffConfig()`` is the released full-size model."""

    unet: GuidedUNetConfig = field(default_factory=GuidedUNetConfig)
    rrdb: RRDBConfig = field(default_factory=RRDBConfig)
    arcface: ArcFaceConfig = field(default_factory=ArcFaceConfig)
    steps: int = 1000
    size: int = 512
    """Side of the images in pixels."""

    @classmethod
    def load(cls, source: PGDiffConfig | Mapping[str, object] | str | Path | None) -> PGDiffConfig:
        """Return a config: as it is, or from a mapping or file; None: released.

        A mapping has ``model_and_diffusion`` and ``restorer`` with the published arguments, ``arcface`` (widths,
        layers, features) and ``inference`` (size); what is left out is as released.

        Raises:
            ConfigError: not readable, or another network.
        """
        if source is None:
            return cls()
        if isinstance(source, PGDiffConfig):
            return source
        what = "PGDiff config"
        tree = read_tree(source, "PGDiff")
        config = cls()
        model = section(tree, "model_and_diffusion", what)
        sizes = section(tree, "inference", what)
        fixed = {"in_channels": 9, "out_channels": 3, "upscale_factor": 1}
        return cls(
            unet=config.unet.changed(model, "sides", f"{what}: model_and_diffusion"),
            rrdb=changed(config.rrdb, section(tree, "restorer", what), f"{what}: restorer", fixed=fixed),
            arcface=changed(config.arcface, section(tree, "arcface", what), f"{what}: arcface"),
            steps=whole_number(model.get("diffusion_steps", config.steps), f"{what}: diffusion_steps"),
            size=whole_number(sizes.get("size", model.get("image_size", config.size)), f"{what}: size"),
        )
