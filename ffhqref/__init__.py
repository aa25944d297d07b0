"""ffhqref: build reference sets, degrade, restore, score and rank face restoration."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ffhqref.training.dataset import KeyedSampler, ReferenceDataset, collate

__version__ = "0.1.0"

_HOME = dict.fromkeys(("ReferenceDataset", "KeyedSampler", "collate"), "ffhqref.training.dataset")
"""Public name to the module that holds it, imported at its first use."""

__all__ = ["KeyedSampler", "ReferenceDataset", "__version__", "collate"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'ffhqref' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
