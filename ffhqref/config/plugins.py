"""Names that other packages add, as choices of the config; and every name that can be chosen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import MISSING, OmegaConf

from ffhqref.core.conf import conf_folder
from ffhqref.core.options import options_of

if TYPE_CHECKING:
    from ffhqref.core.registry import Registry

if TYPE_CHECKING:
    from ffhqref.core.registry import Registry

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


def register_plugins() -> None:
    """Make the names that other packages add selectable, as built-in ones are: ``dataset=mine``, ``restorer=[mine]``.

    A plug-in is imported when it is chosen, not before; neither are the rooms of its kind.
    """
    store, folder = ConfigStore.instance(), conf_folder()
    for group, make in _NODES.items():
        for point in entry_points(group=_entry_point_group(group)):
            if not (folder / group / f"{point.name}.yaml").exists():
                store.store(group=group, name=point.name, node={})
                store.repo[group][f"{point.name}.yaml"] = _LazyNode(point.name, group, partial(make, point.name))


def choices() -> dict[str, list[str]]:
    """Return every name that a command line can choose, by kind."""
    from ffhqref.degradation.model import DEGRADATIONS
    from ffhqref.faces import CROPS
    from ffhqref.faces.ages import AGE_MODELS
    from ffhqref.faces.detect import DETECTORS
    from ffhqref.metrics.dataset_metrics import DATASET_METRICS

    registries: dict[str, Registry[Any]] = {
        "crop": CROPS, "detector": DETECTORS, "age model": AGE_MODELS, "degradation": DEGRADATIONS,
        "set_metric": DATASET_METRICS,
    }  # fmt: skip
    found = {kind: sorted(registry) for kind, registry in registries.items()}
    for group in (*_NODES, "engine"):
        points = entry_points(group=_entry_point_group(group)) if group in _NODES else ()
        files = (conf_folder() / group).glob("*.yaml")
        found[group] = sorted({*(point.name for point in points), *(file.stem for file in files)})
    order = ("dataset", "embedder", "crop", "detector", "age model", "degradation", "benchmark", "restorer", "metric",
             "set_metric", "engine", "synthesis")  # fmt: skip
    return {kind: found[kind] for kind in order}


def _dataset(name: str) -> dict[str, Any]:
    from ffhqref.datasets import DATASETS

    return {"name": name, **_defaults(DATASETS.get(name)), **SPLIT}


def _embedder(name: str) -> dict[str, Any]:
    from ffhqref.faces import EMBEDDERS

    factory = EMBEDDERS.get(name)
    told = {key: vars(factory)[key] for key in THRESHOLDS if key in vars(factory)}
    return {"name": name, **_defaults(factory), **THRESHOLDS, **told}


def _benchmark(name: str) -> dict[str, Any]:
    from ffhqref.cases.benchmark import plugin_options

    return {name: plugin_options(name)}


_NODES: dict[str, Callable[[str], dict[str, Any]]] = {
    "dataset": _dataset,
    "embedder": _embedder,
    "benchmark": _benchmark,
    "restorer": lambda name: {name: {}},
    "metric": lambda name: {name: {}},
    "synthesis": lambda name: {"renderer": {"name": name}},
}
"""Group of the config to what makes the node of one of its names."""


def _entry_point_group(group: str) -> str:
    return "ffhqref.renderers" if group == "synthesis" else f"ffhqref.{group}s"


def _defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the options of a constructor with their defaults; one without a default must be given."""
    fields = {name: field for name, field in options_of(factory).model_fields.items() if not field.exclude}
    values = {name: MISSING if field.is_required() else field.default for name, field in fields.items()}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


class _LazyNode(ConfigNode):
    """A node of Hydra's store that is made when it is chosen."""

    def __init__(self, name: str, group: str, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make
        self._made: Any = None
        self.name, self.group, self.package, self.provider = f"{name}.yaml", group, None, f"entry point {name}"

    @property
    def node(self) -> Any:
        """The config of the plug-in."""
        return OmegaConf.create(self._make()) if self._made is None else self._made

    @node.setter
    def node(self, value: Any) -> None:
        self._made = value
