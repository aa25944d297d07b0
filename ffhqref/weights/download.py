"""Fetch one file over HTTP: resumable, and quick to say that there is no network."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

Progress = Callable[[int, int | None], None]
"""Called with (bytes there, bytes in all or None) while a file is fetched."""


@cache
def silence(host: str, timeout: float) -> str | None:
    """Return why a host (``https://name``) does not answer, or None when it does, whatever it answers."""
    if not host.startswith(("https://", "http://")):
        return "only http and https are fetched"
    request = urllib.request.Request(host, method="HEAD", headers={"User-Agent": "ffhqref"})  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=timeout).close()  # noqa: S310 - the scheme is checked above
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        return f"no answer ({cause(error)})"
    return None


def cause(error: Exception) -> object:
    """Return what an error of the network says, without its wrapping."""
    return error.reason if isinstance(error, urllib.error.URLError) else error


@contextlib.contextmanager
def alone(part: Path) -> Iterator[bool]:
    """Let one process at a time write an unfinished file; yield whether this one had to wait for another."""
    try:
        import fcntl
    except ImportError:  # Windows: no lock
        yield False
        return
    with part.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            waited = False
        except OSError:
            fcntl.flock(stream, fcntl.LOCK_EX)
            waited = True
        try:
            yield waited
        finally:
            with contextlib.suppress(OSError):
                if not part.stat().st_size:
                    part.unlink()


def resume(source: str, part: Path, progress: Progress | None, timeout: float) -> None:
    """Append to ``part`` what it lacks of ``source``.

    Raises:
        OSError: the source cannot be reached, breaks off, or answers with an error.
    """
    there = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "ffhqref"} | ({"Range": f"bytes={there}-"} if there else {})
    request = urllib.request.Request(source, headers=headers)  # noqa: S310 - `silence` checked the scheme
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416 or not there:
            raise
        if not str(error.headers.get("Content-Range", "")).endswith(f"/{there}"):
            part.unlink()  # not a beginning of this file: once more from the start
            resume(source, part, progress, timeout)
        return
    with answer:
        resumed = answer.status == 206
        there = there if resumed else 0
        left = answer.headers.get("Content-Length")
        total = there + int(left) if left else None
        with part.open("ab" if resumed else "wb") as stream:
            while chunk := answer.read(1 << 20):
                stream.write(chunk)
                there += len(chunk)
                if progress:
                    progress(there, total)
    if total is not None and there < total:
        raise OSError(f"broke off after {there} of {total} bytes")
