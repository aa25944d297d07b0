"""Tables as files: atomic writing, checked reading, provenance; `ffhqref.store.schemas` says which there are.

A table is one Parquet file ``<root>/tables/<name>.parquet``. Its schema metadata holds, as JSON under the key
``ffhqref``, the table's name and version and everything it was made of. Its bytes are hashed
(`ffhqref.store.sealed`), and a table that is not as it was written is refused when it is read.
"""

from __future__ import annotations

import datetime
import io
import json
import logging
import platform
import subprocess
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref import __version__
from ffhqref.core.errors import TableError, did_you_mean, one_line
from ffhqref.core.files import read_regular, write_atomic
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.store.schemas import SPECS, VOLATILE, schema
from ffhqref.store.sealed import check_size, is_sealed, sealed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import pyarrow as pa

METADATA_KEY = b"ffhqref"

log = logging.getLogger(__name__)


class DamagedTableError(TableError):
    """A table whose file is not as ffhqref wrote it."""


def table_path(root: str | Path, name: str) -> Path:
    """Return where a table of that name lies under a workspace root."""
    if name not in SPECS:
        raise TableError(f"no table is called '{name}'.{did_you_mean(name, SPECS)} Known: {', '.join(SPECS)}")
    return Path(root) / "tables" / f"{name}.parquet"


def to_arrow(name: str, frame: pd.DataFrame) -> pa.Table:
    """Check a frame against a table's schema and return it as an Arrow table, rows sorted by the table's key.

    Raises:
        TableError: a missing, foreign or wrongly typed column, a null where none may be, or a key that occurs twice.
    """
    import numpy as np
    import pyarrow as pa

    spec = SPECS[name]
    missing = [column for column in spec.columns if column not in frame.columns]
    foreign = [column for column in frame.columns if column not in spec.columns]
    if missing or foreign:
        raise TableError(f"table '{name}': missing columns {missing}, unexpected columns {foreign}")
    doubled = frame.duplicated(list(spec.key))
    if doubled.any():
        raise TableError(f"table '{name}': key {dict(frame.loc[doubled, list(spec.key)].iloc[0])} occurs twice")
    frame = frame.sort_values(list(spec.key), kind="stable", ignore_index=True)
    if name == "embeddings":
        vectors = np.ascontiguousarray(
            np.stack(frame["vector"].tolist()) if len(frame) else np.zeros((0, 1)), np.float32
        )
        full = schema(name, vectors.shape[1])
        columns = [pa.array(frame["image_id"], pa.string()), pa.array(frame["embedder"], pa.string())]
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]))
        return pa.Table.from_arrays(columns, schema=full)
    full = schema(name)
    columns = []
    for field in full:
        try:
            column = pa.array(frame[field.name], type=field.type, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise TableError(f"table '{name}', column '{field.name}': {error}") from None
        if not field.nullable and column.null_count:
            raise TableError(f"table '{name}', column '{field.name}': {column.null_count} values are missing")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=full)


def provenance(
    *,
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Return what a table was made of, for `write_table`.

    Args:
        config: the resolved configuration of the stage.
        inputs: input table name to its content hash (`table_hash`).
        facts: anything else, for instance ``weights={file: sha256}``, ``signatures={metric: signature}``, ``device``.
    """
    return {
        "config": dict(config or {}),
        "config_hash": content_key(config or {}),
        "inputs": dict(inputs or {}),
        **facts,
    }


def write_table(root: str | Path, name: str, frame: pd.DataFrame, origin: Mapping[str, Any] | None = None) -> Path:
    """Write a table atomically, with its provenance, and return its path.

    Nothing is written when the file already holds the same rows of the same origin, so that a second run leaves
    every byte as it was.

    Args:
        root: workspace.
        name: table name, a key of `SPECS`.
        frame: the rows; order does not matter.
        origin: from `provenance`.

    Raises:
        TableError: the frame does not fit the schema.
    """
    table = to_arrow(name, frame)
    spec = SPECS[name]
    facts: dict[str, Any] = {
        "table": name,
        "version": spec.version,
        **(origin or {}),
        "content": _content_hash(table),
    }
    facts = json.loads(json.dumps(facts, default=str))
    path = table_path(root, name)
    if path.is_file() and _holds(path, name, facts, table):
        return path
    facts["packages"] = package_versions()
    facts["platform"] = platform.platform()
    facts["git_commit"] = _git_commit()
    facts["created"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(facts, sort_keys=True).encode()})
    write_atomic(path, sealed(table), lasting=True)
    return path


def _holds(path: Path, name: str, facts: Mapping[str, Any], table: pa.Table) -> bool:
    """Return whether a file holds these rows of this origin; one that is damaged is told."""
    try:
        found, before = _read(path, name)
    except DamagedTableError:
        log.warning("table '%s' was damaged or changed since it was written; it is made again: %s", name, path)
        return False
    except TableError:
        return False
    same = all(before.get(key) == value for key, value in facts.items())
    return same and bool(found.replace_schema_metadata(None).equals(table))  # with times and memory


def read_metadata(root: str | Path, name: str) -> dict[str, Any]:
    """Return the provenance of a table.

    Raises:
        TableError: the file is missing, is no Parquet, is no table of ours, of another version, or is not as it was
            written.
    """
    path = table_path(root, name)
    try:
        now = path.stat()
    except OSError:
        raise _absent(path, name) from None
    facts: dict[str, Any] = json.loads(_facts(path, name, (now.st_mtime_ns, now.st_size, now.st_ino)))
    return facts


@lru_cache(256)
def _facts(path: Path, name: str, stamp: tuple[int, ...]) -> str:  # noqa: ARG001 - a changed file is read again
    return json.dumps(_read(path, name)[1])


def _absent(path: Path, name: str) -> TableError:
    return TableError(f"table '{name}' does not exist yet: {path}; run the stage that makes it first")


def _read(path: Path, name: str) -> tuple[pa.Table, dict[str, Any]]:
    """Read a table from the bytes that were checked, and its provenance."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise _absent(path, name)
    remedy = f"run `ffhqref {SPECS[name].made_by}` again"
    try:
        data = read_regular(path)
    except OSError as error:
        raise TableError(f"table '{name}' cannot be read ({error.strerror or error}): {path}") from None
    whole = is_sealed(data)
    if whole is False:
        raise DamagedTableError(f"table '{name}' was damaged or changed since it was written: {path}; {remedy}")
    try:
        check_size(data)
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes the reader raise
        raise DamagedTableError(f"table '{name}' cannot be read ({one_line(error)}): {path}; {remedy}") from None
    facts = _checked_facts(table.schema, path, name)
    if whole is None:
        raise DamagedTableError(
            f"table '{name}' has no hash of its bytes, so another program or an earlier release wrote it: {path}; "
            f"{remedy}"
        )
    _check_rows(table, path, name)
    return table, facts


def _checked_facts(found: pa.Schema, path: Path, name: str) -> dict[str, Any]:
    """Return the provenance, checked as far as every reader relies on it."""
    spec = SPECS[name]
    try:
        facts: dict[str, Any] = json.loads((found.metadata or {})[METADATA_KEY])
        version, inputs = facts.get("version"), facts.get("inputs", {})
        well = isinstance(facts.get("content"), str) and isinstance(inputs, dict)
    except Exception:  # noqa: BLE001 - no JSON, none of ours, or nested too deeply
        raise TableError(f"not a table of ffhqref: {path}; move it away and run again") from None
    if facts.get("table") != name or version != spec.version:
        raise TableError(
            f"{path} holds table '{facts.get('table')}' version {version}, this release of ffhqref "
            f"({__version__}) reads '{name}' version {spec.version}: move it away and run again, or use the release "
            "that wrote it"
        )
    expected = schema(name)
    names = [field.name for field in expected]
    wrong = found.names != names or any(
        found.field(field.name).type != field.type
        for field in expected
        if SPECS[name].columns[field.name].kind != "vector"
    )
    if wrong or not well:
        raise TableError(
            f"table '{name}' has columns {found.names}, expected {names}: {path}; move it away and run again"
        )
    return facts


def _check_rows(table: pa.Table, path: Path, name: str) -> None:
    """Refuse nulls where none may be, and rows that are not in the order of their key, each once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    spec = SPECS[name]
    for column, kind in spec.columns.items():
        if not kind.nullable and table.column(column).null_count:
            raise DamagedTableError(f"table '{name}', column '{column}': a value is missing: {path}")
    if len(table) < 2:
        return
    tied: Any = pa.scalar(True)
    rising: Any = pa.scalar(False)
    for column in spec.key:
        values = table.column(column).combine_chunks()
        before, after = values[:-1], values[1:]
        rising = pc.or_(rising, pc.and_(tied, pc.less(before, after)))
        tied = pc.and_(tied, pc.equal(before, after))
    if not pc.all(rising).as_py():
        raise DamagedTableError(f"table '{name}': a key occurs twice, or rows are not in order: {path}")


def read_table(root: str | Path, name: str) -> pd.DataFrame:
    """Read a table as a frame, vectors as float32 arrays, nullable integers as Int32.

    Raises:
        TableError: see `read_metadata`.
    """
    import numpy as np
    import pandas as pd

    table, _ = _read(table_path(root, name), name)
    frame: pd.DataFrame
    if name == "embeddings":
        column = table.column("vector").combine_chunks()
        values = column.flatten() if hasattr(column, "flatten") else column.values
        vectors = np.asarray(values, dtype=np.float32).reshape(len(table), -1)
        frame = table.drop_columns(["vector"]).to_pandas()
        frame["vector"] = pd.Series(list(vectors), dtype=object)
        return frame
    integer = {"int32": pd.Int32Dtype(), "int64": pd.Int64Dtype()}
    frame = table.to_pandas(integer_object_nulls=True)
    for name_of, column in SPECS[name].columns.items():
        if column.nullable and column.kind in integer:
            frame[name_of] = frame[name_of].astype(integer[column.kind])
    return frame


def row_count(root: str | Path, name: str) -> int:
    """Return how many rows a table has, 0 where it is not there."""
    path = table_path(root, name)
    return len(_read(path, name)[0]) if path.is_file() else 0


def table_hash(root: str | Path, name: str) -> str:
    """Return the hash of a table's rows without times and memory: what later stages record as their input."""
    return str(read_metadata(root, name)["content"])


def check_current(root: str | Path, name: str) -> None:
    """Refuse a table that was made from other tables than are there now, and so for all that those were made from.

    Raises:
        TableError: it is stale, or one of its inputs is missing; the line says which pipeline to run.
    """
    for source, recorded in sorted(read_metadata(root, name).get("inputs", {}).items()):
        if table_hash(root, source) != recorded:
            raise TableError(
                f"table '{name}' was made from another table '{source}' than is there now: run "
                f"`ffhqref {SPECS[name].made_by}` again before what follows it, or `ffhqref run`"
            )
        check_current(root, source)


def _content_hash(table: pa.Table) -> str:
    import pyarrow as pa

    stable = table.drop_columns([column for column in VOLATILE if column in table.column_names])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, stable.schema.remove_metadata()) as writer:
        for batch in stable.replace_schema_metadata(None).combine_chunks().to_batches():
            writer.write_batch(batch)
    return sha256_bytes(sink.getvalue())


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of the packages that can change a number."""
    import importlib.metadata

    names = [
        "ffhqref",
        "torch",
        "numpy",
        "scipy",
        "opencv-python-headless",
        "pillow",
        "scikit-image",
        "scikit-learn",
        "pandas",
        "pyarrow",
        "pyiqa",
        "diffusers",
        "onnxruntime",
        "dlib-bin",
        "facexlib",
        "insightface",
    ]
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def _git_commit() -> str | None:
    """Return the commit of the checkout this package runs from, or None for an installed wheel."""
    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(top), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
