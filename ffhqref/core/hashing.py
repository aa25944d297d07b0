"""Content keys: hashes of files, of JSON-like values, and of both together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ffhqref.core.files import open_regular


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def content_key(*parts: Any) -> str:
    """Return one SHA-256 for JSON-like values: equal values give equal keys, whatever the order of mappings.

    >>> content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()
