"""Parquet files with a hash of all their bytes, so that any change shows when they are read.

The hash lies in the file's metadata and is taken with zeros in its place. It finds accidents and edits; who edits a
table and computes the hash anew is not found.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

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


MOST = 4 << 30
"""Bytes of a table in memory."""


def check_size(data: bytes) -> None:
    """Refuse a Parquet file that stands for more than fits into memory: a text that its rows share is in it once.

    Raises:
        ValueError: it does.
        Exception: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, schema = pq.read_metadata(pa.BufferReader(data)).num_rows, pq.read_schema(pa.BufferReader(data))
    texts = {field.name: places for field in schema if (places := list(_texts(field.type, field.name)))}
    size = 8 * rows * len(schema)
    if size <= MOST and texts:
        places = [place for part in texts.values() for place in part]
        table = pq.read_table(pa.BufferReader(data), columns=list(texts), read_dictionary=places)
        size += sum(_written_out(chunk) for column in table.columns for chunk in column.chunks)
    if size > MOST:
        raise ValueError(f"it stands for more than {MOST / 2**30:g} GiB")


def _texts(kind: Any, place: str) -> Iterator[str]:
    """Yield where texts and bytes of a kind of column lie in a file."""
    import pyarrow as pa

    types = pa.types
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        yield place
    elif types.is_struct(kind):
        for part in kind:
            yield from _texts(part.type, f"{place}.{part.name}")
    elif types.is_list(kind) or types.is_large_list(kind):
        yield from _texts(kind.value_type, f"{place}.list.{kind.value_field.name}")


def _written_out(values: Any) -> int:
    """Return the bytes of texts whose dictionary is written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = values.flatten()
    if pa.types.is_struct(values.type):
        return sum(map(_written_out, values.flatten()))
    if not pa.types.is_dictionary(values.type):
        return 0
    lengths = pc.take(pc.binary_length(values.dictionary).cast(pa.int64()), values.indices)
    return int(pc.sum(lengths).as_py() or 0)
