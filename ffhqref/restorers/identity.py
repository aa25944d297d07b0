"""What makes two runs of a restorer the same run: the part of a content key that is not the case's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ffhqref.hashing import sha256_file
from ffhqref.restorers.base import Restorer


def restorer_identity(name: str, options: Mapping[str, Any], restorer: Restorer) -> list[Any]:
    """Return everything but the case that an output depends on, JSON-like.

    Args:
        name: under which it is registered.
        options: of its constructor.
        restorer: made of them.
    """
    identity = [
        name, getattr(restorer, "key_options", dict(options)), str(getattr(restorer, "version", "1")),
        str(getattr(restorer, "eight_bit_rule", "round")), getattr(restorer, "weights_sha256", None),
    ]  # fmt: skip
    source = _plug_in_source(restorer)
    return identity if source is None else [*identity, source]


def _plug_in_source(restorer: Restorer) -> str | None:
    """Return the hash of the module that a plug-in's class lies in; None for built-in ones, which have a ``version``.

    Who works on a method of their own edits it between runs and does not think of a version.
    """
    kind = type(restorer)
    if kind.__module__.partition(".")[0] == "ffhqref":
        return None
    try:
        file = inspect.getsourcefile(kind)
        return None if file is None else sha256_file(file)
    except (OSError, TypeError):  # made in a shell or compiled: there is nothing to read
        return None
