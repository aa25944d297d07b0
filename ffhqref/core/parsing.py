"""The one gate around parsers of foreign bytes: whatever they raise becomes one line for the user."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import FfhqrefError, one_line
from ffhqref.core.files import read_regular

if TYPE_CHECKING:
    import yaml


@contextlib.contextmanager
def parsing(what: object, error: type[FfhqrefError], remedy: str = "") -> Iterator[None]:
    """Turn anything that a parser raises into an error of ours; ours pass.

    Parsers of damaged or hostile files raise anything, RecursionError and MemoryError among it, so this is the one
    place that catches all of it: no list of exceptions is complete.

    Args:
        what: the file, for the message.
        error: class of the error.
        remedy: what to do.
    """
    try:
        yield
    except FfhqrefError:
        raise
    except FileNotFoundError:
        raise error(f"no such file: {what}{remedy and f'; {remedy}'}") from None
    except Exception as caught:  # noqa: BLE001
        raise error(f"{what} cannot be read ({load_reason(caught)}){remedy and f'; {remedy}'}") from None


def load_reason(error: BaseException) -> str:
    """Return in one line why `torch.load` refused a file, without its advice to switch the protection off."""
    text = str(error)
    if "Weights only" not in text:
        return one_line(error)[:200]
    found = re.search(r"GLOBAL \S+|Unsupported \w+ \S+", text)
    return f"it holds more than tensors, which could run code{f': {found[0]}' if found else ''}"


def read_json(path: str | Path, error: type[FfhqrefError], remedy: str = "") -> Any:
    """Return the value of a JSON file in UTF-8.

    Raises:
        FfhqrefError: of the class ``error``; it is missing, no regular file, no UTF-8, no JSON, or nested too deeply.
    """
    with parsing(path, error, remedy):
        return json.loads(read_regular(path, MAX_JSON).decode("utf-8-sig"))


def read_yaml(path: str | Path, error: type[FfhqrefError], remedy: str = "", *, as_written: bool = False) -> Any:
    """Return the value of a YAML file in UTF-8; see `read_json`. Nothing in it is run; see `load_yaml`."""
    with parsing(path, error, remedy):
        return load_yaml(read_regular(path, MAX_YAML).decode("utf-8-sig"), as_written=as_written)


def load_yaml(text: str, *, as_written: bool = False) -> Any:
    """Return the value of a YAML text, its scalars by the rules of YAML 1.2.

    By those of 1.1, which PyYAML follows, ``2024_11_28``, ``12:30`` and ``010`` are other numbers, and ``on`` is true.

    Args:
        text: to read.
        as_written: all scalars are texts, letter by letter.

    Raises:
        ValueError: it is larger or deeper than a config, its aliases written out, or has a key twice.
    """
    import yaml

    depth = max(itertools.accumulate(_BRACKETS.get(letter, 0) for letter in text), default=0)
    if len(text) > MAX_YAML or depth > MAX_DEPTH:  # the parser would take minutes, libyaml's would crash
        raise ValueError(f"{len(text)} characters, nested {depth} deep: more than a config has")
    loader = _loader(as_written=as_written)
    _count(yaml.compose(text, loader), {})
    return yaml.load(text, loader)  # noqa: S506 -- derived from the safe loader


def _count(node: yaml.Node | None, known: dict[int, int | None]) -> int:
    """Return how many values a YAML node has when each alias stands for all that it names.

    A few lines of aliases of aliases can stand for more values than there is memory.

    Raises:
        ValueError: there are too many, or an alias names what holds it.
    """
    import yaml

    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        parts = list(itertools.chain.from_iterable(node.value))
    elif isinstance(node, yaml.SequenceNode):
        parts = list(node.value)
    if id(node) not in known:
        known[id(node)] = None
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    total = known[id(node)]
    if total is None or total > MAX_VALUES:
        raise ValueError("its aliases stand for more values than a config has")
    return total


@functools.cache
def _loader(*, as_written: bool) -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain values alone, each key once."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[object] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        raise ValueError(f"line {key.start_mark.line + 1}: the key '{key.value}' occurs twice")
                    seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    Loader.yaml_implicit_resolvers = {}
    for kind, pattern, first in () if as_written else _SCALARS:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{pattern})$"), list(first))
    return Loader


_SCALARS = (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", "<<", "<"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
)
"""Kind of a plain scalar, what it looks like, and the letters that it begins with."""


MAX_JSON, MAX_YAML, MAX_DEPTH, MAX_VALUES = 1 << 30, 1 << 18, 100, 50_000
_BRACKETS = {"[": 1, "{": 1, "]": -1, "}": -1}
