"""Architectures of PMRF's two networks, in the names of the published constructors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.zoo.shared.architecture import read_tree
from ffhqref.zoo.shared.guided_diffusion.config import changed, section
from ffhqref.zoo.shared.swinir import FIXED_SWINIR, SwinIRConfig

_COLOURS: dict[str, object] = {"in_channels": 3, "out_channels": 3}


@dataclass(frozen=True)
class HDiTConfig:
    """The flow's hourglass transformer. Defaults: the released one, ``hdit_ImageNet256Sp4``.

    The published form has ``self_attns``, a list with ``type``, ``d_head`` and ``kernel_size`` of each level, in place
    of `head_widths` and `kernels`.
    """

    widths: tuple[int, ...] = (256, 512, 1024)
    """Channels of each level, finest first; the last is the middle."""
    depths: tuple[int, ...] = (2, 2, 8)
    """Layers of each level, on the way down and again on the way up."""
    head_widths: tuple[int, ...] = (64, 64, 64)
    """Channels of a head at each level, a multiple of 8."""
    kernels: tuple[int, ...] = (7, 7, 0)
    """Side of each level's attention neighbourhood in tokens; 0: every token attends to all."""
    patch_size: tuple[int, ...] = (4, 4)
    """Height and width of the pixels of one token."""
    mapping_depth: int = 2
    mapping_width: int = 768
    """Channels of the time's embedding, an even number."""
    ff_ratio: int = 3
    """Width of every feed-forward layer as a multiple of its level's."""

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.depths) == len(self.head_widths) == len(self.kernels) or not self.widths:
            raise ConfigError("HDiT config: widths, depths and self_attns should have one entry for each level")
        for width, head in zip(self.widths, self.head_widths, strict=True):
            if head < 8 or head % 8 or width % head:
                raise ConfigError(
                    f"HDiT config: d_head={head} should be a multiple of 8 that divides the width {width}"
                )
        if len(self.patch_size) != 2 or self.mapping_width % 2 or self.ff_ratio < 1:
            raise ConfigError(
                "HDiT config: patch_size should be two numbers, mapping_width an even one, ff_ratio at least 1"
            )

    @property
    def units(self) -> tuple[int, int]:
        """Return what height and width of an image must be multiples of."""
        down = 2 ** (len(self.widths) - 1)
        return self.patch_size[0] * down, self.patch_size[1] * down

    def fits(self, height: int, width: int) -> bool:
        """Return whether every neighbourhood lies inside an image of that size."""
        return all(
            min(height // (self.patch_size[0] * 2**level), width // (self.patch_size[1] * 2**level)) >= kernel
            for level, kernel in enumerate(self.kernels)
        )


@dataclass(frozen=True)
class PMRFConfig:
    """Both networks. ``PMRFConfig()`` is the released full-size model."""

    hdit: HDiTConfig = field(default_factory=HDiTConfig)
    swinir: SwinIRConfig = field(default_factory=SwinIRConfig)

    @classmethod
    def load(cls, source: PMRFConfig | Mapping[str, object] | str | Path | None) -> PMRFConfig:
        """Return a config: as it is, or from a mapping or file with ``hdit`` and ``swinir``; None: released.

        Raises:
            ConfigError: not readable, or another network.
        """
        if source is None or isinstance(source, cls):
            return source or cls()
        assert not isinstance(source, PMRFConfig)
        tree = read_tree(source, "PMRF")
        for name in tree:
            if name not in ("hdit", "swinir"):
                raise ConfigError(f"PMRF config: unknown entry '{name}'.{did_you_mean(str(name), ('hdit', 'swinir'))}")
        hdit, swinir = (section(tree, name, "PMRF config") for name in ("hdit", "swinir"))
        return cls(
            hdit=changed(
                HDiTConfig(),
                _flat(hdit),
                "PMRF config: hdit",
                fixed=_COLOURS,
                ignored=("dropout_rate", "mapping_dropout_rate"),
            ),
            swinir=changed(SwinIRConfig(), swinir, "PMRF config: swinir", fixed={**FIXED_SWINIR, **_COLOURS}),
        )

    @property
    def units(self) -> tuple[int, int]:
        """Return what height and width of an image must be multiples of: 64, for the released networks."""
        window = self.swinir.window_size * self.swinir.unshuffle_scale
        return math.lcm(window, self.hdit.units[0]), math.lcm(window, self.hdit.units[1])


def _flat(hdit: Mapping[str, object]) -> dict[str, object]:
    """Return the entries with ``self_attns`` as fields of `HDiTConfig`.

    Raises:
        ConfigError: an entry of another form, or another kind of attention.
    """
    values = dict(hdit)
    levels = values.pop("self_attns", None)
    if levels is None:
        return values
    if not isinstance(levels, Sequence) or not all(isinstance(level, Mapping) for level in levels):
        raise ConfigError("PMRF config: hdit: self_attns should be a list of mappings")
    for level in levels:
        if level.get("type") not in ("neighborhood", "global"):
            raise ConfigError(f"PMRF config: hdit: self_attns: type {level.get('type')!r} is not built")
    kernels = [level.get("kernel_size", 7) if level["type"] == "neighborhood" else 0 for level in levels]
    return {**values, "kernels": kernels, "head_widths": [level.get("d_head", 64) for level in levels]}
