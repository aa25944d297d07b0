"""Whether a training is done, told from its files alone: no network is loaded to see that there is nothing to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffhqref.core.hashing import content_key, sha256_file
from ffhqref.core.images import write_atomic
from ffhqref.engine.files import file_intact, file_stamp

RECORD = "finished.json"


def mark_finished(folder: str | Path, key: str, written: Sequence[Path]) -> None:
    """Record that a training is done.

    Args:
        folder: where the run lives.
        key: of all that decides what it makes.
        written: its checkpoints, files or folders below ``folder``.
    """
    folder = Path(folder)
    files = {
        path.relative_to(folder).as_posix(): {**file_stamp(path), "sha256": sha256_file(path)}
        for item in written
        for path in (sorted(item.rglob("*")) if item.is_dir() else [item])
        if path.is_file()
    }
    record = {"key": key, "written": [path.relative_to(folder).as_posix() for path in written], "files": files}
    write_atomic(folder / RECORD, json.dumps(record, indent=1).encode())


def finished(folder: str | Path, key: str) -> list[Path] | None:
    """Return the checkpoints of a training that is done, or None: it is not, is another, or a file has changed.

    Args:
        folder: where the run lives.
        key: as given to `mark_finished`.
    """
    folder, record = Path(folder), _record(folder)
    if record is None or record["key"] != key:
        return None
    if not all(file_intact(folder / name, stamp, stamp["sha256"]) for name, stamp in record["files"].items()):
        return None
    return [folder / name for name in record["written"]]


def outcome(folder: str | Path) -> str:
    """Return a hash of the weights that a training ended with, for what goes on from them; empty before its end."""
    record = _record(Path(folder))
    if record is None:
        return ""
    return content_key(sorted((name, stamp["sha256"]) for name, stamp in record["files"].items() if _is_weights(name)))


def _is_weights(name: str) -> bool:
    return Path(name).suffix != ".json"


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        _ = record["key"], record["written"], [stamp["sha256"] for stamp in record["files"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(record)
