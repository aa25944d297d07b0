"""Tell whether a weight file is whole and of its kind, from its size and its container alone."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from ffhqref.core.parsing import load_reason

_NOT_WEIGHTS = {
    b"<!doc": "a web page",
    b"<html": "a web page",
    b"<?xml": "a web page",
    b"versi": "a Git LFS pointer",
}
_TORCH = (".pth", ".pt", ".ckpt", ".bin", ".pkl")
_PICKLE = b"\x80"
"""Start of torch's old format, a row of pickles."""

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
        beginning = (head + stream.read(59)).lstrip()[:5].lower()
        if beginning in _NOT_WEIGHTS:
            return f"{_NOT_WEIGHTS[beginning]}, not the file"
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


def why_foreign(path: str | Path, *, name: str | None = None) -> str | None:
    """Return why a file that came from elsewhere is not of the kind that its name says, or None.

    Stricter than `why_broken`: nothing may stand before or after the container, the checksums of an archive are
    right, and a checkpoint of torch loads. Reads the whole file.

    Args:
        path: the file.
        name: whose suffix tells the container; its own name when None.

    Raises:
        OSError: it cannot be read.
    """
    path = Path(path)
    reason = why_broken(path, name=name)
    if reason:
        return reason
    suffix, there = Path(name or path.name).suffix, path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(4)
        if suffix in _TORCH:
            if head == b"PK\x03\x04":
                return _foreign_archive(path)
            return _foreign_pickle(path) if head[:1] == _PICKLE else "no checkpoint of torch"
        if suffix == ".npz":
            return _foreign_archive(path) if head == b"PK\x03\x04" else "no archive of NumPy"
        if suffix == ".mat":
            return None if head == b"MATL" else "no file of MATLAB"
        if suffix == ".safetensors":
            return None if _safetensors_end(stream, there) == there and _is_header(stream) else "no safetensors file"
        if suffix == ".onnx":
            return None if _onnx_end(stream, there, strict=True) == there else "no ONNX model"
    return None


def _foreign_archive(path: Path) -> str | None:
    """Return why a file is not one archive from its first byte to its last."""
    try:
        with path.open("rb") as stream:
            stream.seek(-22, 2)
            end = stream.read(4)
        with zipfile.ZipFile(path) as archive:
            first = min((item.header_offset for item in archive.infolist()), default=-1)
            if first != 0 or end != b"PK\x05\x06":
                return "other bytes stand before or after its archive"
            damaged = archive.testzip()
    except Exception as error:  # noqa: BLE001 - damaged files raise anything
        return f"damaged archive: {error}"
    return f"damaged archive: {damaged}" if damaged else None


def _foreign_pickle(path: Path) -> str | None:
    """Return why a file of torch's old format, which has neither an end nor checksums, cannot be loaded."""
    import torch

    with io.BufferedReader(_Sequential(path)) as stream:
        try:
            torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - damaged files raise anything
            return f"does not load: {load_reason(error)}"
        return "other bytes stand after its end" if stream.read(1) else None


class _Sequential(io.FileIO):
    """A file that torch reads through Python, so that its position tells where the last tensor ends."""

    def fileno(self) -> int:
        """Have none."""
        raise io.UnsupportedOperation


def _is_header(stream: BinaryIO) -> bool:
    """Return whether the header of a safetensors file names tensors."""
    stream.seek(0)
    try:
        (length,) = struct.unpack("<Q", stream.read(8))
        entries = json.loads(stream.read(length))
        return any("data_offsets" in entry for name, entry in entries.items() if name != "__metadata__")
    except Exception:  # noqa: BLE001
        return False


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
    except Exception:  # noqa: BLE001
        return there  # damaged, but not cut off: the loader says so
    return int(8 + length + max(ends, default=0))


def _onnx_end(stream: BinaryIO, there: int, *, strict: bool = False) -> int:
    """Return where the last field of an ONNX model ends; more than there is where the operator sets, its last, lack.

    What is no protobuf ends where it does, for the loader to say so; with ``strict`` it has no end.
    """
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
        if length is None or (strict and tag < 8):
            return there + strict
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
