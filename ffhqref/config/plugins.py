"""Names that other packages add, as choices of the config; and every name that can be chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import MISSING, OmegaConf
from pydantic_core import PydanticUndefined

from ffhqref import datasets, faces, metrics, restorers, synthesis
from ffhqref.cases import benchmark
from ffhqref.core.conf import conf_folder
from ffhqref.core.options import options_of

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

    A plug-in is imported when it is chosen, not before.
    """
    store, folder = ConfigStore.instance(), conf_folder()
    for group, (registry, node) in _nodes().items():
        for name in registry.plugin_names():
            if not (folder / group / f"{name}.yaml").exists():
                store.store(group=group, name=name, node={})
                store.repo[group][f"{name}.yaml"] = _LazyNode(name, group, lambda name=name, node=node: node(name))


def choices() -> dict[str, list[str]]:
    """Return every name that a command line can choose, by kind."""
    from ffhqref.degradation.model import DEGRADATIONS
    from ffhqref.faces.ages import AGE_MODELS
    from ffhqref.faces.detect import DETECTORS

    groups = {group: registry.plugin_names() for group, (registry, _) in _nodes().items()}
    groups["engine"] = []
    found = {group: sorted({*names, *_files(group)}) for group, names in groups.items()}
    further: Mapping[str, Registry[Any]] = {
        "crop": faces.CROPS, "detector": DETECTORS, "age model": AGE_MODELS, "degradation": DEGRADATIONS,
        "set metric": metrics.SET_METRICS,
    }  # fmt: skip
    found |= {kind: sorted(registry) for kind, registry in further.items()}
    order = ("dataset", "embedder", "crop", "detector", "age model", "degradation", "benchmark", "restorer", "metric",
             "set metric", "engine", "synthesis")  # fmt: skip
    return {kind: found[kind] for kind in order}


def _files(group: str) -> list[str]:
    return [path.stem for path in (conf_folder() / group).glob("*.yaml")]


def _nodes() -> dict[str, tuple[Registry[Any], Callable[[str], dict[str, Any]]]]:
    """Return the registry of each group of the config, and what makes the node of one of its names."""
    return {
        "dataset": (datasets.DATASETS, lambda name: {"name": name, **_defaults(datasets.DATASETS.get(name)), **SPLIT}),
        "embedder": (faces.EMBEDDERS, _embedder),
        "benchmark": (benchmark.BENCHMARKS, lambda name: {name: benchmark.plugin_options(name)}),
        "restorer": (restorers.RESTORERS, lambda name: {name: {}}),
        "metric": (metrics.METRICS, lambda name: {name: {}}),
        "synthesis": (synthesis.RENDERERS, lambda name: {"renderer": {"name": name}}),
    }


def _embedder(name: str) -> dict[str, Any]:
    factory = faces.EMBEDDERS.get(name)
    told = {key: vars(factory)[key] for key in THRESHOLDS if key in vars(factory)}
    return {"name": name, **_defaults(factory), **THRESHOLDS, **told}


def _defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the options of a constructor with their defaults; one without a default must be given."""
    fields = {name: field for name, field in options_of(factory).model_fields.items() if not field.exclude}
    values = {name: MISSING if field.default is PydanticUndefined else field.default for name, field in fields.items()}
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
