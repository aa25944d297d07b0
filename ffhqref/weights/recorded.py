"""SHA-256 of large files, kept in a record so that a weight file of many gigabytes is read for it once.

What is recorded is the hash of one descriptor and its size, times and inode at that moment, so that the record never
speaks of other bytes than those that were hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ffhqref.core.files import open_regular, read_regular, write_atomic
from ffhqref.weights.locks import alone

log = logging.getLogger(__name__)

LARGE = 2**30
"""Bytes from which on it is said that a file is being hashed: it takes seconds, on a network disk minutes."""

Stamp = list[int]
"""Size, time of the last change of the content and of the status, and inode."""


@dataclass(frozen=True)
class Recorded:
    """The hash of a file as it is now, and as it was recorded."""

    sha256: str
    stamp: Stamp
    """Of the bytes that have this hash."""
    before: str | None
    """What an earlier use recorded for this path; None: it was never met."""
    record: Path | None
    """The file that has it."""
    unusable: str | None = None
    """Why these very bytes could not be loaded, when that was tried."""


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
    with open_regular(path) as stream:
        return hash_open(stream, path, records, recheck=recheck)


def hash_open(stream: IO[bytes], path: str | Path, records: Sequence[Path], *, recheck: bool = False) -> Recorded:
    """Return the SHA-256 of a file that is open; see `hash_recorded`. The position in it is left at the start.

    Raises:
        OSError: it cannot be read, or changes while it is.
    """
    path = Path(path)
    record = next((record for record in records if _entry(record, path)), None)
    known = _entry(record, path) if record else None
    before = None if known is None or "unusable" in known else str(known["sha256"])
    now = stamp(stream)
    if known is not None and known["stamp"] == now and not recheck:
        stream.seek(0)
        return Recorded(str(known["sha256"]), now, before, record, known.get("unusable"))
    if now[0] >= LARGE:
        log.warning("hashing %s (%.1f GB); once, until the file changes", path, now[0] / 1e9)
    return Recorded(sha256_open(stream, path), now, before, record)


def sha256_open(stream: IO[bytes], path: str | Path) -> str:
    """Return the SHA-256 of a file that is open, and leave the position at its start.

    Raises:
        OSError: it cannot be read, or changes while it is.
    """
    now = stamp(stream)
    stream.seek(0)
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    if stamp(stream) != now:
        raise OSError(f"it changes while it is read: {path}")
    stream.seek(0)
    return digest.hexdigest()


def known_sha256(path: str | Path, records: Sequence[Path]) -> str | None:
    """Return the recorded SHA-256 of a file that is as it was recorded and loads, without reading the file."""
    path = Path(path)
    try:
        now = _stamp(path.stat())
    except OSError:
        return None
    for record in records:
        found = _entry(record, path)
        if found is not None:
            return str(found["sha256"]) if found["stamp"] == now and "unusable" not in found else None
    return None


def keep(path: str | Path, found: Recorded, records: Sequence[Path]) -> None:
    """Record the hash of a file in the first of the records that can be written; in none of them is no error.

    Args:
        path: the file.
        found: its hash as it is now.
        records: see `hash_recorded`.
    """
    name = str(Path(path).resolve())
    entry = {"sha256": found.sha256, "stamp": found.stamp}
    if any((_entry(record, Path(path)) or {}).items() >= entry.items() for record in records):
        return
    for record in records:
        with contextlib.suppress(OSError):
            _change(record, {name: entry})
            return


def forget(path: str | Path, records: Sequence[Path]) -> None:
    """Remove a file from the records, so that its next content is accepted; records that cannot be written stay."""
    name = str(Path(path).resolve())
    for record in records:
        if name in _read(record):
            with contextlib.suppress(OSError):
                _change(record, {name: None})


def mark_unusable(path: str | Path, reason: str, records: Sequence[Path]) -> None:
    """Record that a file does not load as it is now, so that it is replaced and not met again."""
    path = Path(path)
    for record in records:
        known = _entry(record, path)
        if known is not None:
            with contextlib.suppress(OSError):
                _change(record, {str(path.resolve()): {**known, "unusable": reason}})


def stamp(stream: IO[bytes]) -> Stamp:
    """Return what tells whether an open file is the same as before."""
    return _stamp(os.fstat(stream.fileno()))


def _stamp(status: os.stat_result) -> Stamp:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _change(record: Path, entries: dict[str, dict[str, Any] | None]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    with alone(record):
        known = {name: entry for name, entry in {**_read(record), **entries}.items() if entry is not None}
        write_atomic(record, json.dumps(known, indent=1, sort_keys=True).encode())


def _entry(record: Path, path: Path) -> dict[str, Any] | None:
    found = _read(record).get(str(path.resolve()))
    return found if isinstance(found, dict) and {"sha256", "stamp"} <= set(found) else None


def _read(record: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular(record))
    except Exception:  # noqa: BLE001 - a damaged record is none
        return {}
    return found if isinstance(found, dict) else {}
