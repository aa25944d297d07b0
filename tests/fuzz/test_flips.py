"""Single-bit flips over every table, journal and store of vectors of a finished workspace: all told, none silent."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ffhqref.core.errors import TableError
from ffhqref.core.lines import parse_line
from ffhqref.engine import Journal
from ffhqref.faces.store import EmbeddingStore
from ffhqref.store import tables

from ..net.conftest import bare, finished  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from ..net.conftest import Finished


def flips(data: bytes, places: list[int], seed: int) -> Iterator[bytes]:
    draws = random.Random(seed)
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << draws.randrange(8)
        yield bytes(damaged)


def some(size: int, count: int | None, seed: int) -> list[int]:
    """Return every place, or the ends and a sample."""
    if count is None:
        return list(range(size))
    drawn = random.Random(seed).sample(range(size), min(count, size))
    return sorted({*drawn, 0, size - 1, *range(max(0, size - 12), size)})


def silent_in_table(path: Path, damaged: bytes) -> bool:
    path.write_bytes(damaged)
    try:
        tables.read_table(path.parents[1], path.stem)
    except TableError as error:
        return str(path) not in str(error)
    return True


def contents(path: Path) -> dict[str, Any]:
    with Journal(path, dict) as journal:
        return {key: repr(journal.get(key)) for key in journal._rows}


def silent_in_journal(path: Path, damaged: bytes, before: dict[str, Any], caplog: pytest.LogCaptureFixture) -> bool:
    path.write_bytes(damaged)
    caplog.clear()
    found = contents(path)
    return "computed again" not in caplog.text or any(before.get(key) != value for key, value in found.items())


def count_flips(root: Path, count: int | None, caplog: pytest.LogCaptureFixture) -> tuple[int, list[str]]:
    """Flip bits of every table and journal; return how many, and those of which nothing was told."""
    done, silent = 0, []
    for path in sorted((root / "tables").glob("*.parquet")):
        whole = path.read_bytes()
        places = some(len(whole), count, len(whole))
        for place, damaged in zip(places, flips(whole, places, 1), strict=True):
            done += 1
            if silent_in_table(path, damaged):
                silent.append(f"{path.name}, byte {place}")
        path.write_bytes(whole)
    for path in sorted((root / "journal").glob("*.jsonl")):
        whole, before = path.read_bytes(), contents(path)
        places = some(len(whole), count, len(whole))
        for place, damaged in zip(places, flips(whole, places, 2), strict=True):
            done += 1
            if silent_in_journal(path, damaged, before, caplog):
                silent.append(f"{path.name}, byte {place}")
        path.write_bytes(whole)
    return done, silent


@pytest.mark.parametrize("count", [12, pytest.param(None, marks=pytest.mark.slow)])
def test_no_flipped_bit_of_a_workspace_is_silent(finished: Finished, tmp_path, caplog, record_property, count):  # noqa: F811
    for folder in ("tables", "journal"):
        shutil.copytree(finished.root / folder, tmp_path / "w" / folder)
    done, silent = count_flips(tmp_path / "w", count, caplog)
    record_property("flips", done)
    assert done > 500
    assert not silent


@pytest.mark.parametrize("count", [40, pytest.param(None, marks=pytest.mark.slow)])
def test_no_flipped_bit_of_the_vectors_is_silent(finished: Finished, tmp_path, caplog, record_property, count):  # noqa: F811
    (folder,) = (finished.root / "embeddings").iterdir()
    header = parse_line((folder / "manifest.jsonl").read_bytes().splitlines(keepends=True)[0])
    assert header is not None
    facts = (header["signature"], header["dim"])
    with EmbeddingStore(finished.root / "embeddings", *facts) as store:
        before = {sha256: store.gather([sha256]).tobytes() for sha256 in store.hashes}
    done = 0
    for name in ("manifest.jsonl", "vectors.f32"):
        whole = (folder / name).read_bytes()
        places = some(len(whole), count, 3)[:: 1 if count or name == "manifest.jsonl" else 16]
        for damaged in flips(whole, places, 4):
            done += 1
            caplog.clear()
            shutil.rmtree(tmp_path / "e", ignore_errors=True)
            shutil.copytree(finished.root / "embeddings", tmp_path / "e")
            (tmp_path / "e" / folder.name / name).write_bytes(damaged)
            with EmbeddingStore(tmp_path / "e", *facts) as store:
                found = {sha256: store.gather([sha256]).tobytes() for sha256 in store.hashes}
            assert "computed again" in caplog.text
            assert all(before[sha256] == vector for sha256, vector in found.items())
    record_property("flips", done)
