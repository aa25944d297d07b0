"""Config of names that registries know and no file tells about: most come from other packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from ffhqref.core.options import options_of

SPLIT = {"test": 0.1, "val": 0.05, "min_references": 1, "max_references": 9}
"""Splits of a data set of another package, unless the config says otherwise."""

THRESHOLDS = {
    "crop": "ffhq_template",
    "max_distance": MISSING,
    "min_distance": 0.0,
    "grouping": "components",
    "grouping_threshold": None,
}
"""What belongs to an embedder; the class of a plug-in may tell it in attributes of these names."""


def _dataset(name: str) -> dict[str, Any]:
    from ffhqref.datasets import DATASETS

    return {"name": name, **_defaults(DATASETS.get(name)), **SPLIT}


def _embedder(name: str) -> dict[str, Any]:
    from ffhqref.faces import EMBEDDERS

    factory = EMBEDDERS.get(name)
    told = {key: vars(factory)[key] for key in THRESHOLDS if key in vars(factory)}
    return {"name": name, **_defaults(factory), **THRESHOLDS, **told}


def node(group: str, name: str) -> dict[str, Any]:
    """Return the config of a registered name that has no file.

    Args:
        group: of the config.
        name: in the group's registry; it is imported where its options are needed.
    """
    if group == "benchmark":
        from ffhqref.cases.benchmark import plugin_options

        return {name: plugin_options(name)}
    if group in ("restorer", "metric"):
        return {name: {}}
    makers: dict[str, Callable[[str], dict[str, Any]]] = {
        "dataset": _dataset,
        "embedder": _embedder,
        "engine": lambda name: {"name": name},
        "synthesis": lambda name: {"renderer": {"name": name}},
    }
    return makers[group](name)


def _defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the options of a constructor with their defaults; one without a default must be given."""
    fields = {name: field for name, field in options_of(factory).model_fields.items() if not field.exclude}
    values = {name: MISSING if field.is_required() else field.default for name, field in fields.items()}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
