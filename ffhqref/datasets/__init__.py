"""Where images come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ffhqref.core.registry import Registry
from ffhqref.datasets.base import Dataset

__all__ = ["DATASETS", "Dataset", "open_dataset"]

DATASETS: Registry[Callable[..., Dataset]] = Registry(
    "dataset",
    {
        "celeba_hq": "ffhqref.datasets.celeba:celeba_hq",
        "celebref_hq": "ffhqref.datasets.celeba:celebref_hq",
        "ffhq": "ffhqref.datasets.builtin:ffhq",
        "folder": "ffhqref.datasets.builtin:folder",
        "sample": "ffhqref.datasets.builtin:sample",
    },
    "ffhqref.datasets",
)
"""Every data set by name; other packages add theirs through the entry point group ``ffhqref.datasets``."""


def open_dataset(name: str, **options: Any) -> Dataset:
    """Return the data set of that name.

    Args:
        name: a name of `DATASETS`.
        options: of its function, for instance ``path``.
    """
    return DATASETS.make(name, **options)
