"""The kinds of values that nested keys of the config take, checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ffhqref.core.errors import ConfigError


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "number": (_number, "a number"),
    "path": (lambda value: isinstance(value, str) and bool(value.strip()), "a path"),
    "list": (lambda value: isinstance(value, list), "a list, [first,second]"),
    "options": (lambda value: isinstance(value, dict), "options, {key}.KEY=VALUE"),
}

KEYS = {
    "ages": "options",
    "ages.path": "path?",
    "audit.second": "options",
    "audit.second.path": "path?",
    "audit.second.max_distance": "number?",
    "build.max_distance": "number",
    "embedder.path": "path?",
    "exclusions": "path?",
    "release": "path?",
    "synthesis.benchmarks": "list",
    "synthesis.min_similarity": "number?",
    "synthesis.normals": "path?",
    "synthesis.renderer": "options",
    "synthesis.splits": "list",
    "synthesis.vectors": "options",
    "synthesis.vectors.detector_path": "path?",
    "synthesis.vectors.expression": "list",
    "synthesis.vectors.pose": "list",
    "synthesis.vectors.table": "path?",
    "train": "options",
    "train.faceme": "options",
    "train.faceme.faces": "options",
    "train.faceme.photomaker": "path?",
    "train.faceme.synthetic": "path?",
    "train.leave_out": "list",
    "train.splits": "list",
    "validate": "options",
    "validate.csv": "path?",
}
"""Dotted key to its kind; ``?``: null too. An option comes after what it is in."""


def check_kinds(settings: Mapping[str, Any]) -> None:
    """Refuse values of another kind than `KEYS` says; keys that a config does not have are passed over.

    Raises:
        ConfigError: with the key, its value and what is expected.
    """
    for key, kind in KEYS.items():
        value: Any = settings
        for name in key.split("."):
            value = value.get(name, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is _ABSENT or (value is None and kind.endswith("?")):
            continue
        right, words = _KINDS[kind.removesuffix("?")]
        if not right(value):
            null = ", or null" if kind.endswith("?") else ""
            raise ConfigError(f"{key}={value}: expected {words.format(key=key)}{null}")


_ABSENT = object()
