"""Tables by name, and every name that can be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def read(root: str | Path, table: str) -> pd.DataFrame:
    """Return a table of a workspace, checked; docs/tables.md says which there are.

    Args:
        root: of the workspace.
        table: for instance ``scores``, ``cases``, ``leaderboard``.

    Raises:
        FfhqrefError: no workspace, no such table, or a damaged one.
    """
    from ffhqref.store.workspace import Workspace

    return Workspace(root, read_only=True).read(table)


def list_restorers() -> list[str]:
    """Return the names of restorers, those of plug-ins among them."""
    return _names("restorer")


def list_metrics() -> list[str]:
    """Return the names of metrics of single images; ``pyiqa:NAME`` works too.

    >>> "psnr" in list_metrics()
    True
    """
    return _names("metric")


def list_benchmarks() -> list[str]:
    """Return the names of benchmarks."""
    return _names("benchmark")


def list_degradations() -> list[str]:
    """Return the names of degradations."""
    return _names("degradation")


def list_datasets() -> list[str]:
    """Return the names of data sets."""
    return _names("dataset")


def list_embedders() -> list[str]:
    """Return the names of embedders."""
    return _names("embedder")


def _names(kind: str) -> list[str]:
    from ffhqref.config.source import choices

    return choices()[kind]
