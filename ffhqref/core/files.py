"""Read and write files that others may have made: regular files only, through no link, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from ffhqref.core.errors import FfhqrefError

_TEMPORARY = ".ffhqref-tmp"
_LINKLESS = getattr(os, "O_NOFOLLOW", 0)
_WAITLESS = getattr(os, "O_NONBLOCK", 0)
"""Opening a named pipe would wait for somebody to write into it."""

MOST = 8 << 30
"""Bytes of a file that is read at once, unless its reader says less."""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read its bytes.

    Raises:
        OSError: it is missing, may not be read, or is a folder, a pipe or a device.
    """
    _check_regular(os.stat(path).st_mode, path)  # noqa: PTH116 - opening a device may already do something
    stream = cast("BinaryIO", open(path, "rb", opener=lambda name, flags: os.open(name, flags | _WAITLESS)))  # noqa: SIM115
    try:
        _check_regular(os.fstat(stream.fileno()).st_mode, path)
    except OSError:
        stream.close()
        raise
    return stream


def read_regular(path: str | Path, most: int = MOST) -> bytes:
    """Return the bytes of a file; see `open_regular`.

    Args:
        path: the file.
        most: bytes that it may have: a sparse file of a few bytes on the disk can be larger than any memory.

    Raises:
        OSError: see `open_regular`, or it is larger.
    """
    with open_regular(path) as stream:
        data = stream.read() if os.fstat(stream.fileno()).st_size <= most else None
    if data is None or len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most / 2**20:g} MiB", str(path))
    return data


def _check_regular(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))


def open_own(path: str | Path, mode: str) -> IO[bytes]:
    """Open a file that only ffhqref writes, such as a journal; it is made with the user's rights.

    Raises:
        FfhqrefError: it is a link, which could lead to another file of the user, or no regular file.
        OSError: it may not be opened.
    """
    refused = FfhqrefError(f"{path} is no regular file or a link, and ffhqref writes through no link; move it away")

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | _LINKLESS | _WAITLESS, 0o666)

    try:
        stream: IO[bytes] = open(path, mode, opener=opener)  # noqa: SIM115
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise refused from None
        raise
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise refused
    return stream


def write_atomic(path: str | Path, data: bytes, *, lasting: bool = False) -> None:
    """Write a file so that at every moment either the old or the whole new content is there.

    Args:
        path: the file. A link in its place is replaced, not followed.
        data: the content.
        lasting: wait until it would survive a power failure.
    """
    with atomic(path, lasting=lasting) as stream:
        stream.write(data)


@contextlib.contextmanager
def atomic(path: str | Path, *, lasting: bool = False) -> Iterator[IO[bytes]]:
    """Yield a stream whose content takes a file's place once all is written; see `write_atomic`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}{_TEMPORARY}"  # short, whatever the length of the name
    try:
        with open(temporary, "xb") as stream:  # noqa: PTH123 - never through a link, with the user's umask
            yield stream
            if lasting:
                settle(stream)
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if lasting:
        _settle_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder that takes its place once all in it is written; what is there of the name is removed.

    It has a name that nobody can know before, so that nobody has put a link there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.parent / f".{secrets.token_hex(8)}{_TEMPORARY}"
    made.mkdir()
    try:
        yield made
        for file in sorted(made.rglob("*")):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        made.replace(path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    _settle_folder(path.parent)


def settle(stream: IO[bytes]) -> None:
    """Wait until what was written would survive a power failure."""
    stream.flush()
    os.fsync(stream.fileno())


def _settle_folder(folder: Path) -> None:
    """Wait until the names in a folder would survive a power failure, where the system can tell."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems
        pass
    finally:
        os.close(descriptor)


def sweep(root: str | Path) -> int:
    """Remove the temporary files and folders that killed processes left below one; return how many there were.

    Call it only while no other process writes there.
    """
    found = 0
    for folder, folders, names in os.walk(root):
        for name in names:
            if name.endswith(_TEMPORARY):
                Path(folder, name).unlink(missing_ok=True)
                found += 1
        for name in [name for name in folders if name.endswith(_TEMPORARY)]:
            folders.remove(name)
            if Path(folder, name).is_symlink():
                Path(folder, name).unlink()
            else:
                shutil.rmtree(Path(folder, name), ignore_errors=True)
            found += 1
    return found
