"""Metrics: each a named, reproducible choice with a signature that says everything its value depends on."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.registry import Registry
from ffhqref.metrics.base import Metric, MetricBatch, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

METRICS: Registry[Callable[..., Metric]] = Registry(
    "metric",
    {
        "psnr": "ffhqref.metrics.fidelity:PSNR",
        "psnr_y": "ffhqref.metrics.fidelity:psnr_y",
        "psnr_matched": "ffhqref.metrics.fidelity:MatchedPSNR",
        "ssim": "ffhqref.metrics.structural:SSIM",
        "ssim_rgb": "ffhqref.metrics.structural:ssim_rgb",
        "ssim_matched": "ffhqref.metrics.structural:MatchedSSIM",
        "ms_ssim": "ffhqref.metrics.structural:MSSSIM",
        "niqe": "ffhqref.metrics.niqe:NIQE",
        "lpips_vgg": "ffhqref.metrics.perceptual:lpips_vgg",
        "lpips_alex": "ffhqref.metrics.perceptual:lpips_alex",
        "dists": "ffhqref.metrics.perceptual:DISTS",
        "musiq": "ffhqref.metrics.iqa:musiq",
        "lmd": "ffhqref.metrics.faceparts:LMD",
        "flpips_parsenet": "ffhqref.metrics.faceparts:FaceLPIPS",
        "age_error": "ffhqref.metrics.age:AgeError",
        "ids": "ffhqref.metrics.identity:ids",
        "ids_ref": "ffhqref.metrics.identity:ids_ref",
        "ids_ref_best": "ffhqref.metrics.identity:ids_ref_best",
        "ids_ref_mean": "ffhqref.metrics.identity:ids_ref_mean",
        "ids_refldm": "ffhqref.metrics.identity:ids_refldm",
        "ids_grey_r18": "ffhqref.metrics.identity:ids_grey_r18",
    },
    "ffhqref.metrics",
)
"""Every metric of single cases by name; other packages add theirs through the entry point group ``ffhqref.metrics``.

``pyiqa:<name>`` is understood too. Set distances (FID, KID) live in `ffhqref.metrics.sets`.
"""

LOWER_IS_BETTER = frozenset(
    {"age_error", "dists", "flpips_parsenet", "ids_grey_r18", "lmd", "lpips_alex", "lpips_vgg", "niqe"}
)
"""Built-in metrics of which less is better: the direction is told even where a metric cannot run."""

__all__ = ["LOWER_IS_BETTER", "METRICS", "Metric", "MetricBatch", "Runtime", "make_metric"]


def make_metric(
    name: str,
    *,
    runtime: Runtime | None = None,
    embedder: str | Mapping[str, Any] | None = None,
    **options: Any,
) -> Metric:
    """Return the metric of that name.

    Args:
        name: a name of `METRICS`, or ``pyiqa:<name>`` for any of pyiqa's single-picture metrics.
        runtime: device and weights folder, for metrics with a network.
        embedder: a name, or the run's embedder as ``name``, ``crop`` and its own options. A mapping is passed over
            by metrics that embed nothing; a name is an error there.
        options: of the metric.

    Raises:
        ConfigError: unknown name or option.
        WeightsError: a weight file is absent; the line says which, from where, where to put it.
        DependencyError: a package is not installed.
    """
    if name.startswith("pyiqa:"):
        from ffhqref.metrics.iqa import PyiqaMetric

        if options:
            raise ConfigError(f"metric '{name}' has no options, got '{next(iter(options))}'")
        return PyiqaMetric(name.removeprefix("pyiqa:"), runtime)
    factory = METRICS.get(name)
    known = inspect.signature(factory).parameters
    if isinstance(embedder, str):
        options, embedder = {**options, "embedder": embedder}, None
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    foreign = [option for option in options if option not in known and not takes_any]
    if foreign:
        allowed = ", ".join(key for key in known if key != "runtime") or "none"
        raise ConfigError(f"metric '{name}' has no option '{foreign[0]}'; its options: {allowed}")
    if "embedder" in known and embedder is not None:
        options = {**embedder, "embedder": embedder["name"], **options}
        del options["name"]
    if "runtime" in known and runtime is not None:
        options = {**options, "runtime": runtime}
    return factory(**options)
