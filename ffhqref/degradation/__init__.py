"""Synthetic low-quality images: parameters drawn first, then applied."""

from ffhqref.degradation.legacy import legacy_sequence
from ffhqref.degradation.model import DEGRADATIONS, Degradation, get_degradation
from ffhqref.degradation.parameters import Parameters, draw
from ffhqref.degradation.steps import apply

__all__ = ["DEGRADATIONS", "Degradation", "Parameters", "apply", "draw", "get_degradation", "legacy_sequence"]
