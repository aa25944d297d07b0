"""SHA-256 of large files, kept in a record so that a weight file of many gigabytes is read for it once."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffhqref.core.files import write_atomic
from ffhqref.core.hashing import sha256_file

log = logging.getLogger(__name__)

LARGE = 2**30
"""Bytes from which on it is said that a file is being hashed: it takes seconds, on a network disk minutes."""


@dataclass(frozen=True)
class Recorded:
    """The hash of a file as it is now, and as it was recorded."""

    sha256: str
    before: str | None
    """What an earlier use recorded for this path; None: it was never met."""
    record: Path | None
    """The file that has it."""


def hash_recorded(path: str | Path, records: Sequence[Path], *, recheck: bool = False) -> Recorded:
    """Return the SHA-256 of a file, read from the record while size, times and inode are as they were.

    The time of the last change of status counts too: a copy that keeps its content's time is noticed.

    Args:
        path: the file.
        records: JSON files that may hold the record, first to last.
        recheck: hash the file whatever was recorded.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(path)
    record = next((record for record in records if _entry(record, path)), None)
    known = _entry(record, path) if record else None
    before = None if known is None else str(known["sha256"])
    if known is not None and known["stamp"] == _stamp(path) and not recheck:
        return Recorded(str(known["sha256"]), before, record)
    size = path.stat().st_size
    if size >= LARGE:
        log.warning("hashing %s (%.1f GB); once, until the file changes", path, size / 1e9)
    return Recorded(sha256_file(path), before, record)


def keep(path: str | Path, sha256: str, records: Sequence[Path]) -> None:
    """Record the hash of a file in the first of the records that can be written; in none of them is no error.

    Args:
        path: the file.
        sha256: its hash as it is now.
        records: see `hash_recorded`.
    """
    path = Path(path)
    entry = {"sha256": sha256, "stamp": _stamp(path)}
    if any(_entry(record, path) == entry for record in records):
        return
    for record in records:
        with contextlib.suppress(OSError):
            content = json.dumps({**_read(record), str(path.resolve()): entry}, indent=1, sort_keys=True)
            write_atomic(record, content.encode())
            return


def forget(path: str | Path, records: Sequence[Path]) -> None:
    """Remove a file from the records, so that its next content is accepted; records that cannot be written stay."""
    name = str(Path(path).resolve())
    for record in records:
        known = _read(record)
        if known.pop(name, None) is not None:
            with contextlib.suppress(OSError):
                write_atomic(record, json.dumps(known, indent=1, sort_keys=True).encode())


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _entry(record: Path, path: Path) -> dict[str, Any] | None:
    found = _read(record).get(str(path.resolve()))
    return found if isinstance(found, dict) and {"sha256", "stamp"} <= set(found) else None


def _read(record: Path) -> dict[str, Any]:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
