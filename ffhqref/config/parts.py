"""Named parts of a config and the options of their constructors, checked before any work."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

from ffhqref import datasets, faces, metrics, restorers, synthesis
from ffhqref.core.errors import DependencyError
from ffhqref.core.options import check_options, options_of
from ffhqref.core.registry import load_attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ffhqref.config.run import EmbedderOptions, RunConfig
    from ffhqref.core.registry import Registry


def check_parts(config: RunConfig) -> None:
    """Refuse names that nothing has, and options that a constructor does not take.

    Raises:
        ConfigError: one line with the key, and the nearest right name.
        DependencyError: a package that a part needs is not installed.
    """
    dataset, embedder, renderer = config.dataset, config.embedder, config.synthesis.renderer
    check_options(datasets.DATASETS.get(dataset.name), "dataset", dataset.options)
    check_options(faces.EMBEDDERS.get(embedder.name), "embedder", _set(embedder.options))
    check_options(synthesis.RENDERERS.get(renderer.name), "synthesis.renderer", renderer.options)
    for label, options in config.parts("restorer").items():
        factory = _factory("restorer", restorers.RESTORERS, label, options)
        check_options(factory, f"restorer.{label}", _own(options))
    for label, options in config.parts("metric").items():
        if str(options.get("name", "")).startswith("pyiqa:"):
            continue
        try:
            factory = _factory("metric", metrics.METRICS, label, options)
        except DependencyError:  # the metric is set aside, and the reason told
            continue
        _check_metric(factory, f"metric.{label}", _own(options), embedder)


def _factory(
    group: str, registry: Registry[Callable[..., Any]], label: str, options: Mapping[str, Any]
) -> Callable[..., Any]:
    target = options.get("_target_")
    if target:
        return cast("Callable[..., Any]", load_attribute(str(target), f"{group} '{label}'"))
    return registry.get(str(options.get("name") or label))


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
