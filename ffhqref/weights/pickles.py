"""Read checkpoints of torch that name classes of other packages, without importing or calling any of them.

Old versions of Lightning keep the state of a callback under its class, so that torch refuses the whole file.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any


class Mention:
    """Stands where a checkpoint names a class that is not of torch. It cannot be called, made or filled.

    Args:
        name: module and class, joined by a dot.
    """

    def __init__(self, name: str) -> None:
        # where torch looks for the name of what it lets through
        self.__module__, _, self.__qualname__ = name.rpartition(".")


def read_checkpoint(path: Path) -> Any:
    """Return what `torch.load` finds with ``weights_only``, classes that are named and not used as `Mention`.

    Raises:
        Exception: what torch raises for a damaged file, and for one that calls or fills what is not of torch.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        mentions: Any = [Mention(name) for name in _foreign(path)]
        if not mentions:
            raise
        with torch.serialization.safe_globals(mentions):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - a use of a mention fails in many ways
                raise error from None


def _foreign(path: Path) -> list[str]:
    """Return the names in a checkpoint that torch does not let through; none where it cannot tell."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        return get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001 - damaged files raise anything
        return []
