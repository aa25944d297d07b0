"""The door for plug-ins that do not derive from `Restorer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.restorers.base import RestorationBatch, Restorer, RestorerInfo

if TYPE_CHECKING:
    import torch

    from ffhqref.restorers.base import PartialResult


class _OwnOrDefault:
    """Read a member from the plug-in where it has it, else from `Restorer`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, restorer: DuckTyped, owner: type) -> Any:
        own = hasattr(restorer.plug_in, self.name)
        return getattr(restorer.plug_in if own else super(DuckTyped, restorer), self.name)


def _own_or_default() -> Any:
    return _OwnOrDefault()


class DuckTyped(Restorer):
    """A plug-in that does not derive from `Restorer`, with defaults for the members it leaves out."""

    info = _own_or_default()
    version = _own_or_default()
    batch_size = _own_or_default()
    device = _own_or_default()
    weights_sha256 = _own_or_default()
    quantization = _own_or_default()
    cache_ignored_options = _own_or_default()
    cache_key_options = _own_or_default()
    in_process = _own_or_default()
    groups_references = _own_or_default()
    exclusive = _own_or_default()

    def __init__(self, plug_in: Any) -> None:
        self.plug_in = plug_in

    def restore(self, batch: RestorationBatch) -> torch.Tensor | PartialResult:
        """Return what the plug-in returns."""
        made: torch.Tensor | PartialResult = self.plug_in.restore(batch)
        return made


def as_restorer(made: Any, name: str) -> Restorer:
    """Return a restorer as one of the base class.

    Args:
        made: by a factory.
        name: for the message.

    Raises:
        ConfigError: it lacks ``info`` or ``restore``.
    """
    has_info = hasattr(made, "info") and isinstance(made.info, RestorerInfo)
    if not has_info or not hasattr(made, "restore") or not callable(made.restore):
        raise ConfigError(
            f"restorer '{name}' is no restorer: {type(made).__name__} needs `info`, a "
            "ffhqref.restorers.RestorerInfo, and `restore(batch)`"
        )
    return made if isinstance(made, Restorer) else DuckTyped(made)
