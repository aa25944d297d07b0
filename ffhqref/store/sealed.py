"""Parquet files with a hash of all their bytes, so that any change shows when they are read.

The hash lies in the file's metadata and is taken with zeros in its place. It finds accidents and edits; who edits a
table and computes the hash anew is not found.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

KEY = b"ffhqref.sha256"
_BLANK = b"0" * 64
_BEFORE = KEY + b"\x18\x40"
"""What stands before the hash: its key, then Thrift's mark and length of a string of 64 bytes."""


def sealed(table: pa.Table) -> bytes:
    """Return a table as a Parquet file with checksums of its pages and a hash of its bytes."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({KEY: _BLANK})
    data = sink.getvalue()
    start = data.rindex(_BEFORE) + len(_BEFORE)
    return b"".join((data[:start], _hash_without(data, start), data[start + 64 :]))


def is_sealed(data: bytes) -> bool | None:
    """Return whether the bytes of a file are those that were hashed; None: it holds no hash."""
    start = data.rfind(_BEFORE)
    if start < 0:
        return None
    start += len(_BEFORE)
    return data[start : start + 64] == _hash_without(data, start)


def _hash_without(data: bytes, start: int) -> bytes:
    view = memoryview(data)
    digest = hashlib.sha256(view[:start])
    digest.update(_BLANK)
    digest.update(view[start + 64 :])
    return digest.hexdigest().encode()
