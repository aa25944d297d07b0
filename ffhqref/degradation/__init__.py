"""Synthetic low-quality pictures: parameters drawn first, then applied."""

from ffhqref.degradation.legacy import legacy_sequence
from ffhqref.degradation.parameters import Parameters, draw
from ffhqref.degradation.presets import PRESETS, Preset, get_preset
from ffhqref.degradation.steps import apply

__all__ = ["PRESETS", "Parameters", "Preset", "apply", "draw", "get_preset", "legacy_sequence"]
