"""Architecture of DifFace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ffhqref.zoo.shared.architecture import read_tree
from ffhqref.zoo.shared.guided_diffusion.config import GuidedUNetConfig, changed, section, whole_number
from ffhqref.zoo.shared.swinir import FIXED_SWINIR, SwinIRConfig


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
            swinir=changed(config.swinir, swinir, "DifFace config: model_ir", fixed=FIXED_SWINIR),
            steps=whole_number(diffusion.get("steps", config.steps), "DifFace config: steps"),
        )
