"""Named parts of a config and the options of their constructors, checked before any work."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

from ffhqref import datasets, engine, faces, metrics, restorers, synthesis
from ffhqref.core.errors import DependencyError
from ffhqref.core.options import check_options, options_of
from ffhqref.core.registry import load_attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel

    from ffhqref.config.run import EmbedderOptions, RunConfig
    from ffhqref.core.registry import Registry


def check_parts(config: RunConfig) -> None:
    """Refuse names that nothing has, and options that a constructor does not take.

    Raises:
        ConfigError: one line with the key, and the nearest right name.
        DependencyError: a package that a part needs is not installed.
    """
    dataset, embedder, renderer = config.dataset, config.embedder, config.synthesis.renderer
    check_options(datasets.DATASETS.get(dataset.name), "dataset", dataset.options, _keys(dataset))
    check_options(faces.EMBEDDERS.get(embedder.name), "embedder", _set(embedder.options), _keys(embedder))
    check_options(engine.ENGINES.get(config.engine.name), "engine", config.engine.options)
    check_options(synthesis.RENDERERS.get(renderer.name), "synthesis.renderer", renderer.options)
    for label, options in config.parts("restorer").items():
        factory = factory_of("restorer", label, options)
        if factory is not None:
            check_options(factory, f"restorer.{label}", _own(options))
    for label, options in config.parts("metric").items():
        try:
            factory = factory_of("metric", label, options)
        except DependencyError:  # the metric is set aside, and the reason told
            continue
        if factory is not None:
            _check_metric(factory, f"metric.{label}", _own(options), embedder)


def complete(config: RunConfig) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every option with its default of what is chosen, by section, part and name; one chosen part is ``""``."""
    one = {"dataset": config.dataset.name, "embedder": config.embedder.name}
    made = {group: {"": defaults(factory_of(group, name, {}))} for group, name in one.items()}
    for group in ("restorer", "metric"):
        made[group] = {}
        for label, options in config.parts(group).items():
            try:
                shown = defaults(factory_of(group, label, options))
                of_run = {key: f"${{embedder.{name}}}" for key, name in _OF_THE_RUN.items() if key in shown}
                made[group][label] = shown | (of_run if group == "metric" else {})
            except DependencyError:
                continue
    made["synthesis"] = {"renderer": defaults(factory_of("synthesis", config.synthesis.renderer.name, {}))}
    return made


_OF_THE_RUN = {"embedder": "name", "crop": "crop"}
"""Options of a metric that are the run's embedder where they are not given."""


def defaults(factory: Callable[..., Any] | None) -> dict[str, Any]:
    """Return the options of a constructor with their defaults; those that the run sets are left out."""
    if factory is None:
        return {}
    fields = options_of(factory).model_fields.items()
    return {
        name: None if field.is_required() else field.default
        for name, field in fields
        if not field.exclude and name not in ("device", "info", "fall_back")
    }


def factory_of(group: str, label: str, options: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return the constructor of a part; None where it takes no options of its own.

    Raises:
        ConfigError: nothing has the name.
        DependencyError: a package that it needs is not installed.
    """
    target, name = options.get("_target_"), str(options.get("name") or label)
    if target:
        return cast("Callable[..., Any]", load_attribute(str(target), f"{group} '{label}'"))
    found = None if group == "benchmark" or name.startswith("pyiqa:") else registry(group)
    return None if found is None else cast("Callable[..., Any]", found.get(name))


def registry(group: str) -> Registry[Any] | None:
    """Return the registry of a group's names; None: its names are files."""
    if group == "benchmark":
        from ffhqref.cases.benchmark import BENCHMARKS

        return BENCHMARKS
    registries: dict[str, Registry[Any]] = {
        "dataset": datasets.DATASETS, "embedder": faces.EMBEDDERS, "engine": engine.ENGINES, "metric": metrics.METRICS,
        "restorer": restorers.RESTORERS, "synthesis": synthesis.RENDERERS,
    }  # fmt: skip
    return registries.get(group)


def _keys(model: BaseModel) -> list[str]:
    return list(type(model).model_fields)


def _own(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in ("name", "_target_")}


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return an embedder's options without a device that is the run's."""
    return {key: value for key, value in options.items() if key != "device" or value is not None}


def _check_metric(factory: Callable[..., Any], where: str, given: dict[str, Any], embedder: EmbedderOptions) -> None:
    """Check a metric's options; what a metric with an embedder does not take itself is the embedder's."""
    parameters = inspect.signature(factory).parameters.values()
    own = set(options_of(factory).model_fields)
    if "embedder" not in own or not any(item.kind is item.VAR_KEYWORD for item in parameters):
        return check_options(factory, where, given)
    network = faces.EMBEDDERS.get(str(given.get("embedder") or embedder.name))
    known = options_of(network).model_fields
    shared = {key: value for key, value in _set(embedder.options).items() if key in known}
    check_options(network, where, shared | {key: value for key, value in given.items() if key not in own})
    check_options(factory, where, {key: value for key, value in given.items() if key in own})
    return None
