"""Check whether a file that a stage wrote is unchanged: cheap when nothing touched it, exact when something did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ffhqref.core.hashing import sha256_file


class Stamped(Protocol):
    """A result that holds size and time of a file."""

    @property
    def file_size(self) -> int | None:
        """Return the bytes of the file when it was written."""
        ...

    @property
    def file_mtime_ns(self) -> int | None:
        """Return the time of its last change."""
        ...


def file_stamp(path: str | Path) -> dict[str, int]:
    """Return ``file_size`` (bytes) and ``file_mtime_ns`` of a file, to be stored in the result of a stage."""
    status = Path(path).stat()
    return {"file_size": status.st_size, "file_mtime_ns": status.st_mtime_ns}


def file_intact(path: str | Path, stamp: Stamped | Mapping[str, Any], sha256: str) -> bool:
    """Return whether a file still has the content of a hash.

    Args:
        path: the file.
        stamp: result with the `file_stamp` from when the file was written. The file is not read while size and time
            are those, and hashed when the time alone differs (a copied workspace).
        sha256: the recorded hash.
    """
    if isinstance(stamp, Mapping):
        size, time = stamp["file_size"], stamp["file_mtime_ns"]
    else:
        size, time = stamp.file_size, stamp.file_mtime_ns
    try:
        now = Path(path).stat()
        return now.st_size == size and (now.st_mtime_ns == time or sha256_file(path) == sha256)
    except OSError:
        return False
