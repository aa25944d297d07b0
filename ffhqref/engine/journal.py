"""The journal of a stage: an append-only file of results by content key.

A line is written as soon as a batch is done. Killing the process at any moment loses at most the batch in flight:
a torn last line is dropped on the next opening. A damaged line elsewhere costs its own result only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from ffhqref.engine.base import ResultT

if TYPE_CHECKING:
    from types import TracebackType


class Journal(Generic[ResultT]):
    """Results of one stage on disk, by content key.

    Args:
        path: the file, created with its folder when absent.
        result_type: class of the results.
    """

    def __init__(self, path: str | Path, result_type: type[ResultT]) -> None:
        self.path, self._type = Path(path), result_type
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows: dict[str, dict[str, Any]] = {}
        self._load()
        self._stream = self.path.open("ab")

    def _load(self) -> None:
        if not self.path.exists():
            return
        whole = 0
        with self.path.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                entry = _parsed(line)
                if entry is not None:
                    self._rows[entry[0]] = entry[1]
        if whole < self.path.stat().st_size:
            with self.path.open("r+b") as stream:
                stream.truncate(whole)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> ResultT | None:
        """Return the stored result, or None where there is none, or one with a damaged array or other fields."""
        stored = self._rows.get(key)
        if stored is None:
            return None
        try:
            return self._type(**{name: _decode(value) for name, value in stored.items()})
        except (ValueError, TypeError):
            return None

    def add(self, results: Mapping[str, ResultT]) -> None:
        """Append results by key; they survive the death of the process once this returns, not that of the machine."""
        if not results:
            return
        encoded = {
            key: {name: _encode(value) for name, value in _stored(result).items()} for key, result in results.items()
        }
        lines = [json.dumps({"key": key, "result": result}, separators=(",", ":")) for key, result in encoded.items()]
        self._stream.write(("\n".join(lines) + "\n").encode())
        self._stream.flush()
        self._rows.update(encoded)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Journal[ResultT]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parsed(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """Return key and result of a line, None when it is no line of a journal."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict):
        return None
    key, result = entry.get("key"), entry.get("result")
    return (key, result) if isinstance(key, str) and isinstance(result, dict) else None


def _stored(result: object) -> Mapping[str, Any]:
    """Return the fields of a result that are stored."""
    if not is_dataclass(result):
        assert isinstance(result, Mapping)
        return result
    values = {field.name: (field.default, getattr(result, field.name)) for field in fields(result)}
    return {name: value for name, (default, value) in values.items() if not (default is None and value is None)}


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, dtype=np.float32)
        return {"float32": base64.b64encode(array.tobytes()).decode(), "shape": list(array.shape)}
    if isinstance(value, np.generic):
        return value.item()
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"float32", "shape"}:
        return np.frombuffer(base64.b64decode(value["float32"]), dtype=np.float32).reshape(value["shape"]).copy()
    return value
