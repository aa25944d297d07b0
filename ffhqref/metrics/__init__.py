"""Metrics: named and reproducible, each with a signature that says everything its value depends on."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.registry import Registry
from ffhqref.metrics.base import Metric, MetricBatch, MetricRuntime, MetricTraits, as_metric, traits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

METRICS: Registry[Callable[..., object]] = Registry(
    "metric",
    {
        "psnr": "ffhqref.metrics.fidelity:PSNR",
        "psnr_y": "ffhqref.metrics.fidelity:LumaPSNR",
        "psnr_matched": "ffhqref.metrics.fidelity:MatchedPSNR",
        "ssim": "ffhqref.metrics.structural:SSIM",
        "ssim_rgb": "ffhqref.metrics.structural:ChannelSSIM",
        "ssim_matched": "ffhqref.metrics.structural:MatchedSSIM",
        "ms_ssim": "ffhqref.metrics.structural:MSSSIM",
        "niqe": "ffhqref.metrics.niqe:NIQE",
        "lpips_vgg": "ffhqref.metrics.perceptual:VGGLPIPS",
        "lpips_alex": "ffhqref.metrics.perceptual:AlexLPIPS",
        "dists": "ffhqref.metrics.perceptual:DISTS",
        "musiq": "ffhqref.metrics.iqa:MUSIQ",
        "lmd": "ffhqref.metrics.faceparts:LMD",
        "flpips_parsenet": "ffhqref.metrics.faceparts:FaceLPIPS",
        "age_error": "ffhqref.metrics.age:AgeError",
        "ids": "ffhqref.metrics.identity:EmbedderIDS",
        "ids_ref": "ffhqref.metrics.identity:FirstReferenceIDS",
        "ids_ref_best": "ffhqref.metrics.identity:BestReferenceIDS",
        "ids_ref_mean": "ffhqref.metrics.identity:MeanReferenceIDS",
        "ids_adaface": "ffhqref.metrics.judges:AdaFaceIDS",
        "ids_arcface_r50": "ffhqref.metrics.judges:ArcFaceR50IDS",
        "ids_arcface_r100": "ffhqref.metrics.judges:ArcFaceR100IDS",
        "ids_dlib": "ffhqref.metrics.judges:DlibIDS",
        "ids_edgeface": "ffhqref.metrics.judges:EdgeFaceIDS",
        "ids_facenet": "ffhqref.metrics.judges:FaceNetIDS",
        "ids_refldm": "ffhqref.metrics.identity:RefldmIDS",
        "ids_grey_r18": "ffhqref.metrics.grey_arcface:GreyAngle",
    },
    "ffhqref.metrics",
)
"""Metrics of single cases by name; other packages add theirs through the entry point group ``ffhqref.metrics``.

``pyiqa:NAME`` works too. Dataset-level metrics (FID, KID): `ffhqref.metrics.dataset_metrics`.
"""

__all__ = ["METRICS", "Metric", "MetricBatch", "MetricRuntime", "MetricTraits", "make_metric", "metric_traits"]


def make_metric(
    name: str,
    *,
    runtime: MetricRuntime | None = None,
    embedder: str | Mapping[str, Any] | None = None,
    **options: Any,
) -> Metric:
    """Return the metric of that name.

    Args:
        name: a name of `METRICS`, or ``pyiqa:NAME`` for any of pyiqa's metrics of single images.
        runtime: device and weights folder, for metrics with a network.
        embedder: a name, or the run's embedder as ``name``, ``crop`` and its own options. Metrics that embed nothing
            ignore a mapping; a name is an error there.
        options: of the metric.

    Raises:
        ConfigError: unknown name or option, or a plug-in that is no metric.
        WeightsError: a weight file is absent; the message says which, its origin, and where to put it.
        DependencyError: a package is not installed.
    """
    factory, known = _factory(name, options)
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
    return as_metric(factory(**options), name)


def metric_traits(name: str, options: Mapping[str, object]) -> MetricTraits:
    """Return direction, needs and role of a metric, without weights.

    Args:
        name: as for `make_metric`.
        options: of the metric.

    Raises:
        ConfigError: unknown name, or the direction is not declared.
    """
    if name.startswith(_PYIQA):
        from ffhqref.metrics.iqa import PyiqaMetric

        return PyiqaMetric.describe({"name": name.removeprefix(_PYIQA)})
    return traits_of(METRICS.get(name), name, options)


_PYIQA = "pyiqa:"


def _factory(name: str, options: Mapping[str, object]) -> tuple[Callable[..., object], Mapping[str, inspect.Parameter]]:
    if not name.startswith(_PYIQA):
        factory = METRICS.get(name)
        return factory, inspect.signature(factory).parameters
    if foreign := [option for option in options if option != "allow_remote_code"]:
        raise ConfigError(f"metric '{name}' has no option '{foreign[0]}'; its options: allow_remote_code")
    from functools import partial

    from ffhqref.metrics.iqa import PyiqaMetric

    made = partial(PyiqaMetric, name.removeprefix(_PYIQA))
    known = inspect.signature(PyiqaMetric).parameters
    return made, {key: known[key] for key in ("runtime", "allow_remote_code")}
