"""Architectures of network restorers: a frozen dataclass from the published constructor arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.parsing import read_yaml

T = TypeVar("T")


def read_architecture(
    kind: type[T],
    source: T | Mapping[str, Any] | str | Path | None,
) -> T:
    """Return the architecture that ``source`` describes.

    Args:
        kind: a frozen dataclass whose fields carry the names of the published constructor's arguments, of type int,
            float, bool, ``tuple[int, ...]``, ``tuple[str, ...]``, another such dataclass or ``dict[str, …]`` of one,
            and whose defaults are the published model. Class variables say which arguments are built for one value only
            (``FIXED``; others are refused rather than misread) and which change no result (``UNUSED``).
        source: such an object, a mapping of arguments, the path of a JSON or YAML file with one, or None (the
            published model).

    Raises:
        ConfigError: the file is absent or no mapping, or an argument is unknown, of a wrong type or not built.
    """
    if source is None:
        return kind()
    if isinstance(source, kind):
        return source
    where = f"{kind.__name__} {source}" if isinstance(source, str | Path) else kind.__name__
    values = read_tree(cast("Mapping[str, Any] | str | Path", source), kind.__name__)
    members = {name: value for one in reversed(kind.__mro__) for name, value in vars(one).items()}
    fixed, unused = members.get("FIXED", {}), members.get("UNUSED", ())
    types = {item.name: str(item.type) for item in fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    typed: dict[str, Any] = {}
    for key, value in values.items():
        if key in fixed:
            if value != fixed[key]:
                raise ConfigError(f"{where}: {key}={value!r} is not built, only {key}={fixed[key]!r}")
        elif key in types and is_dataclass(hints[key]):
            typed[key] = read_architecture(hints[key], value)
        elif key in types and get_origin(hints[key]) is dict:
            inner = get_args(hints[key])[1]
            typed[key] = {str(name): read_architecture(inner, item) for name, item in read_tree(value, where).items()}
        elif key in types:
            typed[key] = _typed(value, types[key], f"{where}: {key}")
        elif key not in unused:
            raise ConfigError(f"{where}: unknown entry '{key}'.{did_you_mean(str(key), types)}")
    return kind(**typed)


def read_tree(source: Mapping[str, Any] | str | Path, what: str) -> Mapping[str, Any]:
    """Return the mapping that ``source`` is, or that the YAML or JSON file there holds.

    Raises:
        ConfigError: no such file, not readable, or no mapping in it.
    """
    if isinstance(source, Mapping):
        return source
    tree = read_yaml(source, ConfigError, f"expected the {what} config")
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{what} config {source}: expected a mapping, not {type(tree).__name__}")
    return tree


def _typed(value: Any, kind: str, where: str) -> Any:
    try:
        if kind.startswith("tuple"):
            if isinstance(value, str | bytes):
                raise TypeError(value)
            return tuple(str(item) if "str" in kind else _whole(item) for item in value)
        if kind == "bool":
            if not isinstance(value, bool):
                raise TypeError(value)
            return value
        return _whole(value) if kind == "int" else float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}={value!r} should be {kind}") from None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(value)
    return int(value)
