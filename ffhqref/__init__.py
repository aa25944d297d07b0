"""ffhqref: build reference sets, degrade, restore, score and rank face restoration.

The functions of this module are told in docs/library.md. Each is imported when it is first used, so that importing the
package takes no time; ``__init__.pyi`` tells type checkers what there is.
"""

from __future__ import annotations

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(
        ("list_benchmarks", "list_datasets", "list_degradations", "list_embedders", "list_metrics", "list_restorers",
         "read"),
        "ffhqref.api.names",
    ),
    **dict.fromkeys(("Cases", "benchmark"), "ffhqref.api.benchmarks"),
    "Case": "ffhqref.api.case",
    **dict.fromkeys(("Evaluation", "evaluate"), "ffhqref.api.evaluation"),
    **dict.fromkeys(("KeyedSampler", "ReferenceDataset", "collate"), "ffhqref.training.dataset"),
    **dict.fromkeys(("build_reference_sets", "degrade"), "ffhqref.api.sets"),
    "FfhqrefError": "ffhqref.core.errors",
    "metric": "ffhqref.api.metrics",
    "restorer": "ffhqref.api.restorers",
}  # fmt: skip
"""Public name to the module that holds it."""

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 - names


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'ffhqref' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
