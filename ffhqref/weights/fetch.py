"""Download weight files into the weights folder: the right file or none, whatever the servers do."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from ffhqref.core.errors import WeightsError
from ffhqref.core.files import open_own, settle
from ffhqref.core.hashing import sha256_bytes
from ffhqref.weights.download import Progress, cause, resume, silence
from ffhqref.weights.files import OFFLINE, WeightFile, Weights, entry, find, home, offline, records, require
from ffhqref.weights.intact import why_broken, why_foreign
from ffhqref.weights.locks import alone
from ffhqref.weights.recorded import Recorded, forget, keep, sha256_open, stamp

log = logging.getLogger(__name__)


def fetch(
    name: str | WeightFile,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    timeout: float = 10.0,
) -> Path:
    """Download a file into the weights folder, check it, and return its path.

    An interrupted download is resumed where its source proves that it is still the same file. Sources are tried in
    order; a host that does not answer within ``timeout`` seconds is not asked again by this process, so that a machine
    without network says so in seconds, however many files are missing.

    Args:
        name: registry name or entry.
        folder: the configured weights folder.
        progress: called with (bytes there, bytes in all or None).
        timeout: seconds to wait for a connection or for the next bytes.

    Raises:
        WeightsError: offline, nothing to fetch it from, no source answers, or what came is another file.
    """
    item = entry(name) if isinstance(name, str) else name
    if offline():
        raise WeightsError(f"weights '{item.name}': offline is set ({' or '.join(OFFLINE)}); nothing was fetched")
    if not item.sources:
        raise WeightsError(
            f"weights '{item.name}' cannot be fetched by program: get {item.filename} from {item.origin} and put it "
            f"into {home(folder)}"
        )
    target = home(folder) / item.filename
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target) as waited:
            if waited and target.is_file() and _same(item, target):
                return target  # another process fetched it
            job = _Job(item, target, records(folder), progress, timeout, private="" if waited is not None else _mine())
            return job.run()
    except OSError as error:
        raise WeightsError(f"weights '{item.name}': cannot write to {target.parent}: {error.strerror}") from None


def obtain(
    name: str | WeightFile,
    *,
    path: str | Path | None = None,
    folder: str | Path | None = None,
    download: bool = False,
) -> Weights:
    """Return a weight file as `require` does, fetched first where it is absent and may be.

    Args:
        name: registry name, or an entry from `ffhqref.weights.files.by_filename`.
        path: a file the user named.
        folder: the configured weights folder.
        download: fetch a missing file (never when offline is set in the environment).

    Raises:
        WeightsError: see `fetch` and `require`.
    """
    if download and not offline() and find(name, path=path, folder=folder) is None:
        fetch(name, folder=folder)
    return require(name, path=path, folder=folder)


def fetched(
    name: str, *, folder: str | Path | None = None, progress: Progress | None = None, again: bool = False
) -> Weights:
    """Return a weight file, fetched where it is absent, cut off, does not load, or is not the published one.

    Its companions are fetched first, where they are absent.

    Args:
        name: registry name.
        folder: the configured weights folder.
        progress: told while fetching.
        again: fetch it whatever is there.

    Raises:
        WeightsError: see `fetch` and `require`.
    """
    item = entry(name)
    for part in item.parts:
        if again or find(part, folder=folder) is None:
            fetch(part, folder=folder, progress=progress)
    try:
        found = require(item, folder=folder)
        if not again and (found.published is not False or not item.sources):
            return found
    except WeightsError:
        if not item.sources:
            raise
    fetch(item, folder=folder, progress=progress)
    return require(item, folder=folder)


@dataclass(frozen=True)
class _Job:
    """One file on its way."""

    item: WeightFile
    target: Path
    records: list[Path]
    progress: Progress | None
    timeout: float
    private: str
    """Ending of the unfinished file's name where nothing else keeps other processes from it."""

    def run(self) -> Path:
        """Try the sources in order.

        Raises:
            WeightsError: none has the file.
        """
        problems = []
        for source in self.item.sources:
            try:
                reason = silence("/".join(source.split("/")[:3]), self.timeout) or self._from(source)
            except (OSError, HTTPException) as error:
                reason = str(cause(error))
            if reason is None:
                self._sweep()
                return self.target
            problems.append(f"{source}: {reason}")
        raise WeightsError(f"weights '{self.item.name}' could not be fetched: {'; '.join(problems)}")

    def _part(self, source: str) -> Path:
        """Return the unfinished file of one source; another source never continues it."""
        return self.target.with_name(f".{self.target.name}.{sha256_bytes(source.encode())[:8]}{self.private}.part")

    def _from(self, source: str) -> str | None:
        """Fetch from one source; return what is wrong with what it has, or None when it is in its place."""
        part = self._part(source)
        reason: str | None = "nothing came"
        with open_own(part, "a+b") as stream:
            try:
                reason = self._tried(source, stream, part)
            finally:
                if stamp(stream)[0] == 0 or reason is None:
                    _note(part).unlink(missing_ok=True)
                if stamp(stream)[0] == 0 and reason is not None:
                    part.unlink(missing_ok=True)
        return reason

    def _tried(self, source: str, stream: IO[bytes], part: Path) -> str | None:
        """Fetch once, and once more from the start where a resumed download turned out to be another file."""
        while True:
            resumed = resume(
                source, stream, _note(part), size=self.item.size, checked=bool(self.item.sha256),
                progress=self.progress, timeout=self.timeout,
            )  # fmt: skip
            reason = self._place(stream, part)
            if reason is None:
                return None
            stream.truncate(0)
            if not resumed:
                return reason

    def _place(self, stream: IO[bytes], part: Path) -> str | None:
        """Put a file that is all there into its place; return why it may not be."""
        settle(stream)
        before = stamp(stream)
        digest = sha256_open(stream, part)
        reason = _wrong(self.item, part, digest)
        if reason:
            return reason
        forget(self.target, self.records)
        part.replace(self.target)
        now = stamp(stream)
        if before[:2] != now[:2] or not os.path.samestat(os.fstat(stream.fileno()), self.target.stat()):
            self.target.unlink(missing_ok=True)
            return "it was changed while it was put into its place"
        keep(self.target, Recorded(digest, now, None, None), self.records)
        return None

    def _sweep(self) -> None:
        """Remove what other sources have left unfinished."""
        for source in self.item.sources:
            for left in (self._part(source), _note(self._part(source))):
                left.unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _mine() -> str:
    return f".{os.getpid()}"


def _same(item: WeightFile, path: Path) -> bool:
    with path.open("rb") as stream:
        return _wrong(item, path, sha256_open(stream, path)) is None


def _wrong(item: WeightFile, path: Path, digest: str) -> str | None:
    """Return why a fetched file is not the one that was asked for, or None."""
    if item.sha256 and not digest.startswith(item.sha256):
        reason = why_broken(path, name=item.filename)
        return f"sha256 {digest[:12]}…, expected {item.sha256[:12]}…" + (f" ({reason})" if reason else "")
    if item.size is not None and path.stat().st_size != item.size:
        return f"{path.stat().st_size} bytes, expected {item.size}"
    reason = None if item.sha256 else why_foreign(path, name=item.filename)
    return f"not whole or another file ({reason})" if reason else None
