"""Whether a file that a stage wrote is still the same: cheap when nothing touched it, exact when something did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ffhqref.core.hashing import sha256_file


def file_stamp(path: str | Path) -> dict[str, int]:
    """Return ``file_size`` (bytes) and ``file_mtime_ns`` of a file, to be kept in a stage's result."""
    status = Path(path).stat()
    return {"file_size": status.st_size, "file_mtime_ns": status.st_mtime_ns}


def file_intact(path: str | Path, stamp: Mapping[str, Any], sha256: str) -> bool:
    """Return whether a file still has the content of that hash.

    Args:
        path: the file.
        stamp: what holds its `file_stamp` from when it was written. While size and time are those, the file is not
            read; when the time alone differs (a copied workspace) it is hashed.
        sha256: the recorded hash.
    """
    path = Path(path)
    try:
        now = file_stamp(path)
        if now["file_size"] != stamp["file_size"]:
            return False
        return now["file_mtime_ns"] == stamp["file_mtime_ns"] or sha256_file(path) == sha256
    except OSError:
        return False
