"""Let one process at a time write a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ffhqref.core.files import open_own


@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool | None]:
    """Keep other processes from writing a file.

    Yields:
        Whether another process held the file and was waited for; None where there are no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield None
        return
    lock = path.with_name(f".{path.name}.lock")
    waited: bool | None = False
    while True:
        stream = open_own(lock, "a+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            waited = None
        if waited is None or _is(lock, stream):
            break
        stream.close()  # the process that held it has removed it: another one may hold the next
    try:
        yield waited
    finally:
        lock.unlink(missing_ok=True)  # while it is still held
        stream.close()


def _is(path: Path, stream: IO[bytes]) -> bool:
    """Return whether a path still names the file that is open."""
    try:
        named = path.stat()
    except OSError:
        return False
    return os.path.samestat(named, os.fstat(stream.fileno()))
