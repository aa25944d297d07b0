"""The one gate around parsers of foreign bytes: whatever they raise becomes one line for the user."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ffhqref.core.errors import FfhqrefError, one_line
from ffhqref.core.files import read_regular


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
        return json.loads(read_regular(path).decode("utf-8-sig"))


def read_yaml(path: str | Path, error: type[FfhqrefError], remedy: str = "") -> Any:
    """Return the value of a YAML file in UTF-8; see `read_json`. Nothing in it is run."""
    import yaml

    with parsing(path, error, remedy):
        text = read_regular(path).decode("utf-8-sig")
        depth = max(itertools.accumulate(_BRACKETS.get(letter, 0) for letter in text), default=0)
        if len(text) > MAX_YAML or depth > MAX_DEPTH:  # the parser would take minutes, libyaml's would crash
            raise ValueError(f"{len(text)} characters, nested {depth} deep: more than a config has")
        return yaml.safe_load(text)


MAX_YAML, MAX_DEPTH = 1 << 20, 100
_BRACKETS = {"[": 1, "{": 1, "]": -1, "}": -1}
