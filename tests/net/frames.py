"""Tables as short texts that can be compared on another machine. Reads the files without ffhqref."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

VOLATILE = (
    "seconds", "peak_memory_bytes", "seconds_per_image", "device", "scored", "versions",
    "peak_memory_mb", "parameters", "multiply_adds", "evaluations", "openness",
)  # fmt: skip
"""Columns that differ between two runs of the same work."""

VOLATILE_FACTS = ("content", "created", "git_commit", "packages", "platform", "device", "mine")
"""Metadata of a table that differs between two runs or machines."""

EXACT_OUTPUTS = ("lq", "bicubic", "reference")
"""Methods with the same output bytes on each CPU: OpenCV and integers, no network."""

RTOL = 1e-5
"""Allowed relative difference of a float, where no network has a part in it."""


def names(root: Path) -> list[str]:
    """Return the names of a workspace's tables."""
    return sorted(path.stem for path in (root / "tables").glob("*.parquet"))


def facts(root: Path, name: str) -> dict[str, Any]:
    """Return a table's metadata."""
    metadata: dict[str, Any] = json.loads(pq.read_schema(root / "tables" / f"{name}.parquet").metadata[b"ffhqref"])
    return metadata


def stable_facts(root: Path, name: str) -> dict[str, Any]:
    """Return a table's metadata without times and places; of the inputs, only their names."""
    found = {key: value for key, value in facts(root, name).items() if key not in VOLATILE_FACTS}
    found["inputs"] = sorted(found["inputs"])
    found.get("arrangement", {}).pop("devices", None)
    if "unavailable" in found:
        found["unavailable"] = sorted(found["unavailable"])  # the reasons name folders
    return found


def columns(root: Path, name: str) -> dict[str, str]:
    """Return a table's columns and their Arrow types in words, with ``?`` where null is allowed."""
    found = pq.read_schema(root / "tables" / f"{name}.parquet")
    return {field.name: f"{field.type}{'?' if field.nullable else ''}" for field in found}


def read(root: Path, name: str) -> pd.DataFrame:
    """Return a table without volatile columns; vectors reduced, null integers and lists as text."""
    frame = pq.read_table(root / "tables" / f"{name}.parquet").to_pandas(integer_object_nulls=True)
    frame = frame.drop(columns=[column for column in VOLATILE if column in frame])
    if "vector" in frame:
        frame = _reduced(frame)
    if "output_sha256" in frame:
        frame["output_sha256"] = frame["output_sha256"].where(frame["method"].isin(EXACT_OUTPUTS), "any")
    for column in frame:
        if frame[column].map(lambda value: isinstance(value, np.ndarray)).any():
            frame[column] = frame[column].map(lambda value: None if value is None else json.dumps(value.tolist()))
    return frame


def _reduced(frame: pd.DataFrame) -> pd.DataFrame:
    """Replace vectors by their length, norm and four projections that each component has a part in."""
    vectors = np.stack(frame["vector"].to_list()).astype(np.float64)
    waves = np.cos(np.outer(np.arange(vectors.shape[1]), (0.7, 1.9, 2.6, 3.0)))
    reduced = frame.drop(columns="vector").assign(length=vectors.shape[1], norm=np.linalg.norm(vectors, axis=1))
    for number, values in enumerate((vectors @ waves).T):
        reduced[f"projection_{number}"] = values
    return reduced


def to_csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV with nine digits."""
    return frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")


def differences(name: str, found: pd.DataFrame, expected_csv: Path) -> list[str]:
    """Return how a table differs from its snapshot, one line a column; empty if it does not."""
    expected = pd.read_csv(expected_csv, dtype=str, keep_default_na=False)
    if list(found.columns) != list(expected.columns):
        return [f"columns {list(found.columns)}, expected {list(expected.columns)}"]
    if len(found) != len(expected):
        return [f"{len(found)} rows, expected {len(expected)}"]
    texts = pd.read_csv(io.StringIO(to_csv(found)), dtype=str, keep_default_na=False)
    lines = []
    for column in found.columns:
        wrong = (texts[column] != expected[column]).to_numpy()
        if found[column].dtype.kind == "f" and wrong.any():
            wrong = _apart(name, column, found, pd.to_numeric(expected[column]).to_numpy(np.float64))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            pair = f"{texts[column][row]!r}, expected {expected[column][row]!r}"
            lines.append(f"{column}: {int(wrong.sum())} of {len(wrong)} rows, first row {row}: {pair}")
    return lines


def _apart(name: str, column: str, found: pd.DataFrame, expected: np.ndarray) -> np.ndarray:
    """Return in which rows a float is further from the expected one than another CPU explains.

    Measured between this code with AVX2 and with SSE2 only; allowed is about five times as much.
    """
    values = found[column].to_numpy(np.float64)
    rtol, atol = np.full(len(found), RTOL), np.zeros(len(found))
    if column == "distance":
        atol[:] = 5e-5  # of dlib's vectors
    if name == "embeddings":
        atol[:] = 1e-3  # a sum over 128 components
    if name in ("scores", "leaderboard"):
        rtol[found["metric"].isin(["ids", "ids_ref"])] = 1e-4  # dlib's network
        network = (found["method"] == "refldm-tiny").to_numpy()
        rtol[network] = 1e-4
        rtol[network & (found["metric"] == "niqe").to_numpy()] = 5e-3  # few flat blocks decide
    close: np.ndarray = np.isclose(values, expected, rtol=rtol, atol=atol, equal_nan=True)
    return ~close


def machine(root: Path) -> str:
    """Return a short hash of what can change the last bits of a float: the CPU's features and the packages."""
    cpu = Path("/proc/cpuinfo")
    flags = (
        next((line for line in cpu.read_text().splitlines() if line.startswith("flags")), "") if cpu.is_file() else ""
    )
    settings = {"flags": sorted(flags.split()), "packages": facts(root, "images")["packages"]}
    settings["packages"].pop("ffhqref", None)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
