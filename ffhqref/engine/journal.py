"""The journal of a stage: an append-only file of results by content key.

A line is written as soon as a batch is done, and ends in a checksum of itself. Killing the process at any moment loses
at most the batch in flight. A damaged or torn line costs its own result only, which is told and computed again.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, Union, get_args, get_origin, get_type_hints

import numpy as np

from ffhqref.core.files import open_own, settle
from ffhqref.core.lines import checked_line, parse_line
from ffhqref.engine.base import ResultT

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger(__name__)


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
        self._fits = _checks(result_type)
        self._stream = open_own(self.path, "a+b")
        self._written = False
        self._load()

    def _load(self) -> None:
        damaged = whole = 0
        self._stream.seek(0)
        for line in self._stream:
            if not line.endswith(b"\n"):
                damaged += 1
                self._stream.truncate(whole)
                break
            whole += len(line)
            entry = _parsed(line)
            if entry is None:
                damaged += 1
            else:
                self._rows[entry[0]] = entry[1]
        self._stream.seek(0, 2)
        if damaged:
            log.warning("%d damaged or torn lines in %s: what they held is computed again", damaged, self.path)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> ResultT | None:
        """Return the stored result, or None: there is none, or one with other fields or values of another kind."""
        stored = self._rows.get(key)
        if stored is None:
            return None
        try:
            values = {name: _decode(value) for name, value in stored.items()}
            if all(fits(values[name]) for name, fits in self._fits.items() if name in values):
                return self._type(**values)
        except (ValueError, TypeError):
            pass
        return None

    def add(self, results: Mapping[str, ResultT]) -> None:
        """Append results by key; they survive the death of the process once this returns, not that of the machine."""
        if not results:
            return
        encoded = {
            key: {name: _encode(value) for name, value in _stored(result).items()} for key, result in results.items()
        }
        self._stream.write(b"".join(checked_line({"key": key, "result": result}) for key, result in encoded.items()))
        self._stream.flush()
        self._written = True
        self._rows.update(encoded)

    def close(self) -> None:
        """Close the file; what it holds survives the death of the machine."""
        if self._written and not self._stream.closed:
            settle(self._stream)
        self._stream.close()

    def __enter__(self) -> Journal[ResultT]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parsed(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """Return key and result of a line, None when it is not as it was written."""
    entry = parse_line(line) or {}
    key, result = entry.get("key"), entry.get("result")
    return (key, result) if isinstance(key, str) and isinstance(result, dict) else None


def _stored(result: object) -> Mapping[str, Any]:
    """Return the fields of a result that are stored."""
    if not is_dataclass(result):
        assert isinstance(result, Mapping)
        return result
    values = {field.name: (field.default, getattr(result, field.name)) for field in fields(result)}
    return {name: value for name, (default, value) in values.items() if not (default is None and value is None)}


def _checks(kind: type[Any]) -> dict[str, Callable[[Any], bool]]:
    """Return what tells whether a value is of the kind of a field, by field; of kinds that JSON lacks nothing is told.

    The checksum of a line does not tell who wrote it: an earlier release, or a stranger.
    """
    if not is_dataclass(kind):
        return {}
    try:  # arrays are named for the type checker alone
        hints = get_type_hints(kind, localns={"NDArray": _Arrays, "np": np})
    except NameError:  # a plug-in's
        return {}
    return {field.name: _check(hints[field.name]) for field in fields(kind)}


class _Arrays:
    def __class_getitem__(cls, item: Any) -> type[np.ndarray]:
        return np.ndarray


def _check(hint: Any) -> Callable[[Any], bool]:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    known = {_PLAIN.get(get_origin(part) or part) for part in parts}
    if None in known:
        return lambda _: True
    plain = frozenset(kind for kinds in known for kind in kinds or ())
    items = [_check(get_args(part)[0]) for part in parts if get_origin(part) is list]

    def fits(value: Any) -> bool:
        kind = type(value)
        return kind in plain and (kind is not list or not items or all(map(items[0], value)))

    return fits


_PLAIN: dict[Any, tuple[type, ...]] = {
    str: (str,), bool: (bool,), int: (int,), float: (float, int), list: (list,), dict: (dict,),
    np.ndarray: (np.ndarray,), type(None): (type(None),),
}  # fmt: skip
"""What JSON gives for a kind of field; whole numbers stand for themselves."""


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, dtype=np.float32)
        return {"float32": base64.b64encode(array.tobytes()).decode(), "shape": list(array.shape)}
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"float32", "shape"}:
        return np.frombuffer(base64.b64decode(value["float32"]), dtype=np.float32).reshape(value["shape"]).copy()
    return value
