"""Whether a training is done, known from its files alone: no network is loaded when there is nothing to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.files import write_atomic
from ffhqref.core.hashing import content_key, sha256_file
from ffhqref.core.parsing import parsing, read_json
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.weights.files import Weights, file_sha256

RECORD = "finished.json"
DATA = "data.sha256"


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


def recorded_weights(folder: str | Path) -> list[Weights]:
    """Return the weights that `outcome` speaks of, to hold them to their hashes when they are read."""
    folder = Path(folder)
    record = _record(folder)
    files = record["files"].items() if record else ()
    return [
        Weights(name, name, folder / name, str(stamp["sha256"]), None) for name, stamp in files if _is_weights(name)
    ]


def checkpoint_sha256(path: Path) -> str:
    """Return the hash of a checkpoint: the recorded one where a training here made the file, which may be deleted.

    Returns:
        An empty text where there is no such file, nor a record of it.
    """
    record = _record(path.parent)
    stamp = record["files"].get(path.name) if record else None
    if stamp is not None and (not path.is_file() or file_intact(path, stamp, stamp["sha256"])):
        return str(stamp["sha256"])
    return file_sha256(path) if path.is_file() else ""


def _is_weights(name: str) -> bool:
    return Path(name).suffix != ".json"


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        with parsing(folder / RECORD, ConfigError):
            record = read_json(folder / RECORD, ConfigError)
            _ = record["key"], [folder / name for name in record["written"]]
            _ = [(stamp["sha256"], stamp["file_size"] + stamp["file_mtime_ns"]) for stamp in record["files"].values()]
    except ConfigError:
        return None
    return dict(record)


def check_same_data(folder: str | Path, key: str) -> None:
    """Refuse to resume a training that was begun on other data; record what it is begun on.

    Args:
        folder: where the run lives.
        key: hash of the images and of the networks that it starts from.

    Raises:
        ConfigError: the folder has a saved state of a training on other data.
    """
    folder = Path(folder)
    record = folder / DATA
    if (folder / "state.pt").is_file() and record.is_file() and record.read_text(encoding="utf-8") != key:
        raise ConfigError(
            f"{folder} belongs to a training on other images or references (another limit, split or list), or from "
            "other networks (base, start, or an earlier stage); take another train.folder, or delete it"
        )
    write_atomic(record, key.encode())
