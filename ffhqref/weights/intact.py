"""Tell whether a weight file is whole, from its size and its container alone."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

_NOT_WEIGHTS = {b"<!doc": "a web page", b"<html": "a web page", b"versi": "a Git LFS pointer"}


_OPERATOR_SETS = 8
"""Field of an ONNX model."""


def why_broken(path: str | Path, *, name: str | None = None, size: int | None = None) -> str | None:
    """Return why a file cannot be what its name says, as an interrupted download leaves it, or None.

    Safetensors, ONNX, and the zip archives of torch and NumPy tell where they end; of other files only the size counts.

    Args:
        path: the file.
        name: whose suffix tells the container; its own name when None.
        size: bytes of the published file, where known.

    Raises:
        OSError: it cannot be read.
    """
    path = Path(path)
    there = path.stat().st_size
    if size is not None and there < size:
        return f"{there} of {size} bytes"
    with path.open("rb") as stream:
        head = stream.read(5)
        if not head:
            return "empty"
        if head.lower() in _NOT_WEIGHTS:
            return f"{_NOT_WEIGHTS[head.lower()]}, not the file"
        suffix = Path(name or path.name).suffix
        if suffix == ".safetensors":
            needed = _safetensors_end(stream, there)
        elif suffix == ".onnx":
            needed = _onnx_end(stream, there)
        else:
            needed = there
    if needed > there:
        return f"{there} of {needed} bytes" if suffix == ".safetensors" else f"cut off after {there} bytes"
    if head[:4] == b"PK\x03\x04" and not zipfile.is_zipfile(path):
        return f"cut off after {there} bytes"
    return None


def _safetensors_end(stream: BinaryIO, there: int) -> int:
    """Return the size that the header promises, at least one more than there is where the header itself is cut off."""
    stream.seek(0)
    head = stream.read(8)
    if len(head) < 8:
        return there + 1
    (length,) = struct.unpack("<Q", head)
    if 8 + length > there:
        return int(8 + length)
    try:
        entries = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return there  # damaged, but not cut off: the loader says so
    return int(8 + length + max(ends, default=0))


def _onnx_end(stream: BinaryIO, there: int) -> int:
    """Return where the last field of an ONNX model ends; more than there is where the operator sets, its last, lack."""
    stream.seek(0)
    end, fields = 0, set[int]()
    while end < there:
        tag = _varint(stream)
        if tag is None:
            return there + 1
        kind = tag & 7
        fields.add(tag >> 3)
        length = {0: 0, 1: 8, 5: 4}.get(kind)
        if kind in (0, 2):
            value = _varint(stream)
            if value is None:
                return there + 1
            length = value if kind == 2 else 0
        if length is None:
            return there  # no protobuf: the loader says so
        end = stream.seek(length, 1)
    return end if _OPERATOR_SETS in fields else there + 1


def _varint(stream: BinaryIO) -> int | None:
    value = shift = 0
    while byte := stream.read(1):
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
    return None
