"""Cache key of a restorer, without the case.

Made of contents, never of places: a moved workspace, weight folder or checkout changes nothing, a file replaced under
its name does.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.hashing import content_key, sha256_file
from ffhqref.restorers.duck_typed import DuckTyped
from ffhqref.weights.files import file_sha256

if TYPE_CHECKING:
    from ffhqref.restorers.base import Restorer


def restorer_identity(name: str, options: Mapping[str, Any], restorer: Restorer) -> list[Any]:
    """Return everything but the case that an output depends on, JSON-like.

    Weight files count by their hashes in the restorer's order, whatever they are called.

    Args:
        name: under which it is registered.
        options: of its constructor.
        restorer: made of them.
    """
    identity = [
        name, _options(options, restorer), str(restorer.version), str(restorer.quantization),
        list((restorer.weights_sha256 or {}).values()),
    ]  # fmt: skip
    source = _plug_in_source(restorer)
    return identity if source is None else [*identity, source]


def code_of(restorer: Restorer) -> str:
    """Return a hash of what results depend on beside options and weights: version, source, checkout, environment."""
    apart = restorer.cache_key_options or {}
    return content_key(
        str(restorer.version),
        str(restorer.quantization),
        _plug_in_source(restorer),
        apart.get("code"),
        apart.get("python"),
    )


def _options(options: Mapping[str, Any], restorer: Restorer) -> Any:
    if restorer.cache_key_options is not None:
        return restorer.cache_key_options
    ignored = {"device", *restorer.cache_ignored_options}
    return {key: by_content(value) for key, value in options.items() if key not in ignored}


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
    if hasattr(value, "signature") and isinstance(value.signature, str):  # an object such as a face finder
        return value.signature
    return value


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
    """Return the hash of the module of a plug-in's class; None for built-in ones.

    Plug-in authors forget to raise `version`, so the source is hashed.
    """
    kind = type(restorer.plug_in if isinstance(restorer, DuckTyped) else restorer)
    if kind.__module__.partition(".")[0] == "ffhqref":
        return None
    try:
        file = inspect.getsourcefile(kind)
        return None if file is None else sha256_file(file)
    except (OSError, TypeError):  # made in a shell or compiled: there is nothing to read
        return None
