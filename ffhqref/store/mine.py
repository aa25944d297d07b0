"""Signatures of this user, by which what he told is told from what a stranger wrote into a workspace."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from functools import cache
from pathlib import Path

from ffhqref.core.files import read_regular
from ffhqref.core.hashing import content_key

LENGTH = 32


def sign(*facts: str) -> str:
    """Return a signature of facts that only this user can make; empty where his state folder cannot be written."""
    key = _key(_place())
    return hmac.digest(key, content_key(*facts).encode(), "sha256").hex() if key else ""


def is_signed(signature: object, *facts: str) -> bool:
    """Return whether this user signed these facts, on a machine that has his state folder."""
    return isinstance(signature, str) and bool(signature) and hmac.compare_digest(signature, sign(*facts))


def _place() -> Path | None:
    with contextlib.suppress(RuntimeError):  # no home folder
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "ffhqref" / "key"
    return None


@cache
def _key(place: Path | None) -> bytes | None:
    """Return the user's key, made on first use."""
    if place is None:
        return None
    with contextlib.suppress(OSError):
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            made = place.with_name(f".{secrets.token_hex(8)}")
            try:
                with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                    stream.write(secrets.token_bytes(LENGTH))
                with contextlib.suppress(FileExistsError):
                    os.link(made, place)  # the first of several processes makes it
            finally:
                made.unlink(missing_ok=True)
        key = read_regular(place)
        return key if len(key) == LENGTH else None
    return None
