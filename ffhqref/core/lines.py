"""Lines of JSON that end in a checksum of themselves, for files that only grow."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

_CHECKSUM = b',"crc32":"'


def checked_line(values: Mapping[str, Any]) -> bytes:
    r"""Return a line: a JSON object whose last value is the CRC-32 of all before it.

    >>> checked_line({"y": 1})
    b'{"y":1,"crc32":"32af831e"}\n'
    """
    start = json.dumps(values, separators=(",", ":")).encode()[:-1]
    return start + _CHECKSUM + _end(start)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line, None when it is not as `checked_line` made it."""
    start, _, end = line.rpartition(_CHECKSUM)
    if end != _end(start):
        return None
    try:
        values = json.loads(start + b"}")
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _end(start: bytes) -> bytes:
    return b'%08x"}\n' % zlib.crc32(start)
