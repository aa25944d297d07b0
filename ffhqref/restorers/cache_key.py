"""What makes two runs of a restorer the same run: the part of a content key that is not the case's.

It is made of contents, never of places: a moved workspace, weight folder or checkout is the same, and a file that was
replaced under its name is another.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.hashing import sha256_file
from ffhqref.weights.files import file_sha256

if TYPE_CHECKING:
    from ffhqref.restorers.base import Restorer


def restorer_identity(name: str, options: Mapping[str, Any], restorer: Restorer) -> list[Any]:
    """Return everything but the case that an output depends on, JSON-like.

    Weight files count by their hashes in the order in which the restorer tells them: what they are called does not.

    Args:
        name: under which it is registered.
        options: of its constructor.
        restorer: made of them.
    """
    weights = getattr(restorer, "weights_sha256", None) or {}
    identity = [
        name, key_options(options, restorer), str(getattr(restorer, "version", "1")),
        str(getattr(restorer, "eight_bit_rule", "round")), list(weights.values()),
    ]  # fmt: skip
    source = _plug_in_source(restorer)
    return identity if source is None else [*identity, source]


def key_options(options: Mapping[str, Any], restorer: Restorer) -> Any:
    """Return what of a restorer's options its results depend on; see `Restorer`."""
    own = getattr(restorer, "key_options", None)
    if own is not None:
        return own
    neutral = {"device", *getattr(restorer, "neutral_options", ())}
    return {key: by_content(value) for key, value in options.items() if key not in neutral}


def by_content(value: Any, root: Path | None = None) -> Any:
    """Return an option with the hash of its content in place of every file that it names, at any depth.

    Args:
        value: JSON-like, or a path.
        root: folder that relative names start from; None: the current one.
    """
    if isinstance(value, Mapping):
        return {str(key): by_content(item, root) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [by_content(item, root) for item in value]
    if isinstance(value, (str, Path)) and (file := _file(value, root)) is not None:
        return {"sha256": file_sha256(file)}
    signature = getattr(value, "signature", None)  # such as that of the face finder that a program hands over
    return signature if isinstance(signature, str) else value


def _file(value: str | Path, root: Path | None) -> Path | None:
    """Return the file that an option names; a plain word names none, even where a file happens to be called so."""
    text = os.fspath(value)
    if os.sep not in text and not Path(text).suffix:
        return None
    file = (root or Path()) / Path(text).expanduser()
    try:
        return file if file.is_file() else None
    except (OSError, ValueError):  # a text too long for a name, or with a null in it
        return None


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
