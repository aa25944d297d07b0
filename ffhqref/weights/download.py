"""Fetch one file over HTTP: resumable, bounded, and quick to say that there is no network."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import Message
from functools import cache
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO

from ffhqref.core.files import write_atomic
from ffhqref.weights.recorded import stamp

Progress = Callable[[int, int | None], None]
"""Called with (bytes there, bytes in all or None) while a file is fetched."""

LIMIT = 32 * 2**30
"""Bytes that a file of unknown size may have."""


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


@dataclass(frozen=True)
class _Note:
    """What an unfinished file is the beginning of, as its source described it."""

    source: str
    etag: str | None
    modified: str | None
    length: int | None

    @property
    def validator(self) -> str | None:
        """Return what a source compares before it sends the rest; a weak ETag does not promise equal bytes."""
        return self.etag if self.etag and self.etag.startswith('"') else self.modified

    def allows(self, answer: _Note) -> bool:
        """Return whether an answer is about the same file."""
        pairs = ((self.etag, answer.etag), (self.modified, answer.modified), (self.length, answer.length))
        return all(mine is None or theirs is None or mine == theirs for mine, theirs in pairs)


class _OtherPartError(Exception):
    """The answer does not continue what is there."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirections over HTTP alone, and none from an encrypted connection to an open one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        encrypted = req.full_url.startswith("https://")
        if not newurl.startswith("https://" if encrypted else ("https://", "http://")):
            raise urllib.error.HTTPError(req.full_url, code, f"refused to be redirected to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def resume(
    source: str,
    part: IO[bytes],
    note: Path,
    *,
    size: int | None = None,
    checked: bool = False,
    progress: Progress | None = None,
    timeout: float = 10.0,
) -> bool:
    """Put into ``part`` what it lacks of ``source``; begin anew where it is not a beginning of that.

    Args:
        source: URL.
        part: the unfinished file, open to read and write.
        note: where the source's description of the unfinished file is kept.
        size: bytes that the file must have, where known.
        checked: the caller compares a hash afterwards: a source that gives nothing to compare is resumed too.
        progress: told while fetching.
        timeout: seconds to wait for a connection or for the next bytes.

    Returns:
        Whether bytes of an earlier download were used.

    Raises:
        OSError: the source cannot be reached, breaks off, or answers with something else than the file.
    """
    known = _read(note)
    there = stamp(part)[0]
    usable = known is not None and known.source == source and (known.validator or checked) and there
    for offset in (there, 0) if usable else (0,):
        try:
            return _ask(source, part, note, known if offset else None, offset, size, progress, timeout)
        except _OtherPartError as error:
            if not offset:
                raise OSError(str(error)) from None
    raise AssertionError


def _ask(
    source: str,
    part: IO[bytes],
    note: Path,
    known: _Note | None,
    offset: int,
    size: int | None,
    progress: Progress | None,
    timeout: float,
) -> bool:
    headers = {"User-Agent": "ffhqref", "Accept-Encoding": "identity"}
    if known:
        headers["Range"] = f"bytes={offset}-"
        headers |= {"If-Range": known.validator} if known.validator else {}
    request = urllib.request.Request(source, headers=headers)  # noqa: S310 - `silence` checked the scheme
    try:
        answer: HTTPResponse = urllib.request.build_opener(_Redirects).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416 or not known:
                raise
            told = _described(source, error.headers, _total(error.headers))
            if told.length == offset and known.allows(told):
                return True  # all of it was there
        raise _OtherPartError("answered with status 416") from None
    with answer:
        offset, told = _start(source, answer, known, offset)
        total = told.length
        if size is not None and total is not None and total != size:
            raise OSError(f"{total} bytes, expected {size}")
        if total is None and size is None and not answer.chunked:
            raise OSError("does not say how many bytes it has")
        if not offset:
            part.truncate(0)
            write_atomic(note, json.dumps(asdict(told)).encode())
        _copy(answer, part, offset, total, total or size or LIMIT, progress)
    return bool(offset)


def _start(source: str, answer: HTTPResponse, known: _Note | None, offset: int) -> tuple[int, _Note]:
    """Return where in the file an answer begins, and what it says of the whole."""
    headers = answer.headers
    if headers.get_content_type() == "text/html":
        raise OSError("a web page, not the file")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise OSError(f"sent as {headers['Content-Encoding']}, not as it is")
    if answer.status == 206:
        told = _described(source, headers, _total(headers))
        begins = re.match(r"bytes (\d+)-\d+/(?:\d+|\*)$", headers.get("Content-Range", ""))
        if known is None or begins is None or int(begins[1]) != offset or not known.allows(told):
            raise _OtherPartError(f"sent another part ({headers.get('Content-Range', 'which one is not said')})")
        return offset, _Note(source, told.etag, told.modified, told.length or known.length)
    if answer.status != 200:
        raise OSError(f"answered with status {answer.status}")
    length = headers.get("Content-Length", "")
    return 0, _described(source, headers, int(length) if length.isdecimal() else None)


def _copy(
    answer: HTTPResponse, part: IO[bytes], there: int, total: int | None, limit: int, progress: Progress | None
) -> None:
    if limit > LIMIT:
        raise OSError(f"{limit} bytes, more than the {LIMIT} that are fetched")
    begin = there
    part.seek(begin)
    while chunk := answer.read1(1 << 20):  # what has come is written, in case this process is killed
        there += len(chunk)
        if there > limit:
            part.truncate(0)
            raise (_OtherPartError if begin else OSError)(f"sent more than {limit} bytes")
        part.write(chunk)
        part.flush()
        if progress:
            progress(there, total)
    part.truncate(there)
    if total is not None and there < total:
        raise OSError(f"broke off after {there} of {total} bytes")


def _described(source: str, headers: Message, length: int | None) -> _Note:
    return _Note(source, headers.get("ETag"), headers.get("Last-Modified"), length)


def _total(headers: Message) -> int | None:
    """Return the bytes of the whole file from the header of an answer with a part of it."""
    found = re.search(r"/(\d+)$", str(headers.get("Content-Range", "")))
    return int(found[1]) if found else None


def _read(note: Path) -> _Note | None:
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        found = _Note(**json.loads(note.read_text(encoding="utf-8")))
        texts = (found.source, found.etag, found.modified)
        if all(text is None or (isinstance(text, str) and text.isprintable()) for text in texts):
            return found
    return None
