"""Restorers: the interface, the registry, and the code that runs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ffhqref.core.errors import ConfigError, FfhqrefError, one_line
from ffhqref.core.options import check_options
from ffhqref.core.registry import Registry, load_attribute
from ffhqref.restorers.base import PartialResult, RestorationBatch, Restorer, RestorerInfo
from ffhqref.restorers.duck_typed import as_restorer

__all__ = ["RESTORERS", "PartialResult", "RestorationBatch", "Restorer", "RestorerInfo", "make_restorer"]

RESTORERS: Registry[Callable[..., Restorer]] = Registry(
    "restorer",
    {
        "asffnet": "ffhqref.zoo.asffnet.restorer:ASFFNetRestorer",
        "best_of": "ffhqref.restorers.composed.best_of:BestOf",
        "bicubic": "ffhqref.zoo.baselines.simple:Bicubic",
        "chain": "ffhqref.restorers.composed.chain:Chain",
        "codeformer": "ffhqref.zoo.codeformer.restorer:CodeFormer",
        "colour_transfer": "ffhqref.restorers.composed.colour:ColourTransfer",
        "command": "ffhqref.restorers.command.restorer:CommandRestorer",
        "daefr": "ffhqref.zoo.daefr.restorer:DAEFRRestorer",
        "difface": "ffhqref.zoo.difface.restorer:DifFace",
        "dmdnet": "ffhqref.zoo.dmdnet.restorer:DMDNetRestorer",
        "dr2": "ffhqref.zoo.dr2.restorer:DR2",
        "faceme": "ffhqref.zoo.faceme.restorer:FaceMeRestorer",
        "gfpgan": "ffhqref.zoo.gfpgan.restorer:GFPGAN",
        "gpen": "ffhqref.zoo.gpen.restorer:GPEN",
        "instantrestore": "ffhqref.zoo.instantrestore.restorer:InstantRestoreRestorer",
        "lq": "ffhqref.zoo.baselines.simple:LowQuality",
        "nlm": "ffhqref.zoo.baselines.classical:NonLocalMeans",
        "osdface": "ffhqref.zoo.osdface.restorer:OSDFaceRestorer",
        "outputs": "ffhqref.restorers.outputs:Outputs",
        "pgdiff": "ffhqref.zoo.pgdiff.restorer:PGDiff",
        "pmrf": "ffhqref.zoo.pmrf.restorer:PMRF",
        "realesrgan": "ffhqref.zoo.realesrgan.restorer:RealESRGAN",
        "reference": "ffhqref.zoo.baselines.simple:FirstReference",
        "refldm": "ffhqref.zoo.refldm.restorer:RefLDMRestorer",
        "refldm-tiny": "ffhqref.zoo.refldm.tiny:RefLDMTiny",
        "restoreformer": "ffhqref.zoo.restoreformer.restorer:RestoreFormer",
        "restoreformer_pp": "ffhqref.zoo.restoreformer.restorer:RestoreFormerPP",
        "restorerid": "ffhqref.zoo.restorerid.restorer:RestorerIDRestorer",
        "tiled": "ffhqref.restorers.composed.tiled:Tiled",
        "tv": "ffhqref.zoo.baselines.classical:TotalVariation",
        "vqfr": "ffhqref.zoo.vqfr.restorer:VQFR",
        "vqfr_v1": "ffhqref.zoo.vqfr.restorer:VQFRVersion1",
    },
    "ffhqref.restorers",
)
"""Every restorer by name; other packages add theirs through the entry point group ``ffhqref.restorers``."""


def make_restorer(name: str, device: str | None = None, **options: Any) -> Restorer:
    """Return the restorer of that name.

    Args:
        name: a name of `RESTORERS`; any name when ``_target_`` is among the options.
        device: where networks run (``"cpu"``, ``"cuda"``, …); handed on to restorers that take a ``device``.
        options: of its constructor. ``_target_`` names a class of yours as ``package.module.Class``, in place of
            a registered one.

    Raises:
        ConfigError: unknown name or option, a plug-in that does not import or start, or is no restorer.
        DependencyError: a package that it needs is not installed.
        WeightsError: its weights are missing or damaged.
    """
    target = options.pop("_target_", None)
    factory = load_attribute(str(target), f"restorer '{name}'") if target else RESTORERS.get(name)
    try:
        if device is not None and "device" in inspect.signature(factory).parameters:
            options["device"] = device
        check_options(factory, f"restorer '{name}'", options)
        made = factory(**options)
    except FfhqrefError:
        raise
    except Exception as error:  # a plug-in may fail in any way
        raise ConfigError(f"restorer '{name}' does not start: {one_line(error)}") from error
    return as_restorer(made, name)
