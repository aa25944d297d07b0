"""Reading the architecture of a network restorer: a frozen dataclass, from a mapping or a JSON or YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ffhqref.errors import ConfigError, did_you_mean

T = TypeVar("T")


def read_architecture(kind: type[T], source: T | Mapping[str, Any] | str | Path | None, method: str) -> T:
    """Return the architecture that ``source`` describes.

    Args:
        kind: a frozen dataclass, whose fields have the names of the published constructor's arguments and whose
            defaults are the published full-size network. Class variables, where it has them: ``FIXED``, arguments of
            the published constructor with the only value that is built here; ``IGNORED``, those that only matter
            in training.
        source: an instance of ``kind``, a mapping of arguments, the path of a JSON or YAML file that holds one, or
            None for the published network.
        method: the restorer's name, for messages.

    Raises:
        ConfigError: the file is absent or no mapping, or an argument is unknown, of a wrong type, or another
            network's.
    """
    if source is None:
        return kind()
    if isinstance(source, kind):
        return source
    where = f"{method} config"
    if isinstance(source, str | Path):
        where += f" {source}"
        source = _read(Path(source), where)
    if not isinstance(source, Mapping):
        raise ConfigError(f"{where}: expected a mapping of the network's arguments, got {type(source).__name__}")
    return _build(kind, source, where)


def _read(path: Path, where: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML too
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{where} cannot be read: {' '.join(str(error).split())}") from None


def _build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    kinds = {name: hint for name, hint in get_type_hints(kind).items() if name not in ("FIXED", "IGNORED")}
    fixed: Mapping[str, Any] = getattr(kind, "FIXED", {})
    ignored: frozenset[str] = getattr(kind, "IGNORED", frozenset())
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in fixed:
            if value != fixed[key]:
                raise ConfigError(f"{where}: {key}={value!r} is another network, only {fixed[key]!r} is built")
        elif key in kinds:
            found[key] = _typed(kinds[key], value, f"{where}: {key}")
        elif key not in ignored:
            raise ConfigError(f"{where}: unknown entry '{key}'.{did_you_mean(str(key), kinds)}")
    return kind(**found)


def _typed(hint: Any, value: Any, where: str) -> Any:
    """Return the value as the type of its field, or refuse it."""
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(get_args(hint)[0], item, where) for item in value)
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return {str(key): _typed(get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ConfigError(f"{where}={value!r} should be {getattr(hint, '__name__', hint)}")
