"""Tables: what is written comes back, what does not fit is refused in one line."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffhqref.core.errors import TableError
from ffhqref.store import tables
from ffhqref.store.sealed import check_size, sealed


def scores(**changes: object) -> pd.DataFrame:
    row = {
        "method": "lq",
        "benchmark": "moderate",
        "case_id": "00001",
        "metric": "psnr",
        "value": 20.5,
        "status": "ok",
    }
    return pd.DataFrame([{**row, **changes}])


def test_round_trip_keeps_values_and_nulls(tmp_path):
    frame = pd.DataFrame(
        {
            "image_id": ["b", "a", "c"],
            "identity_id": pd.Series([4, None, 7], dtype="Int32"),
            "size": [2, 1, 2],
            "split": ["test", None, "train"],
        }
    )
    tables.write_table(tmp_path, "identities", frame)
    back = tables.read_table(tmp_path, "identities")
    assert back["image_id"].tolist() == ["a", "b", "c"]  # sorted by key
    assert back["identity_id"].isna().tolist() == [True, False, False]
    assert back["identity_id"].dropna().tolist() == [4, 7]
    assert str(back["identity_id"].dtype) == "Int32"
    assert pd.isna(back["split"][0])


@settings(max_examples=20, deadline=None)
@given(dim=st.integers(1, 40), n=st.integers(1, 6), data=st.data())
def test_embeddings_come_back_bit_for_bit(tmp_path_factory, dim, n, data):
    values = data.draw(st.lists(st.floats(-1, 1, width=32), min_size=n * dim, max_size=n * dim))
    vectors = np.array(values, np.float32).reshape(n, dim)
    frame = pd.DataFrame({"image_id": [f"{i:03d}" for i in range(n)], "embedder": "e", "vector": list(vectors)})
    root = tmp_path_factory.mktemp("w")
    path = tables.write_table(root, "embeddings", frame)
    back = np.stack(tables.read_table(root, "embeddings")["vector"].tolist())
    assert back.dtype == np.float32
    assert np.array_equal(back, vectors)
    assert pa.types.is_fixed_size_list(pq.read_schema(path).field("vector").type)


def test_writing_the_same_rows_again_leaves_the_file_as_it_was(tmp_path):
    origin = tables.provenance(config={"a": 1}, device="cpu")
    path = tables.write_table(tmp_path, "scores", scores(), origin)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    tables.write_table(tmp_path, "scores", scores(), origin)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    tables.write_table(tmp_path, "scores", scores(value=1.0), origin)
    assert path.read_bytes() != before[0]
    tables.write_table(tmp_path, "scores", scores(value=1.0), tables.provenance(config={"a": 2}))
    assert tables.read_metadata(tmp_path, "scores")["config"] == {"a": 2}


def test_row_order_does_not_reach_the_file(tmp_path):
    frame = pd.concat([scores(case_id=f"{i:05d}", value=float(i)) for i in range(20)], ignore_index=True)
    hashes = set()
    for seed in range(3):
        root = tmp_path / str(seed)
        tables.write_table(root, "scores", frame.sample(frac=1, random_state=seed))
        hashes.add(tables.table_hash(root, "scores"))
    assert len(hashes) == 1


def test_provenance_is_complete(tmp_path):
    tables.write_table(tmp_path, "scores", scores(), tables.provenance(config={"x": [1]}, signatures={"psnr": "s"}))
    path = tables.table_path(tmp_path, "scores")
    facts = json.loads(pq.read_schema(path).metadata[b"ffhqref"])
    wanted = {"table", "version", "config", "config_hash", "inputs", "signatures", "packages", "created", "content"}
    assert wanted <= set(facts)
    assert facts["packages"]["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (scores().drop(columns="value"), "missing columns ['value']"),
        (scores().assign(extra=1), "unexpected columns ['extra']"),
        (pd.concat([scores(), scores()]), "occurs twice"),
        (scores(method=None), "missing"),
        (scores(value="high"), "column 'value'"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(tmp_path, frame, said):
    with pytest.raises(TableError) as caught:
        tables.write_table(tmp_path, "scores", frame)
    assert said in str(caught.value)
    assert not tables.table_path(tmp_path, "scores").exists()


def test_files_that_are_not_ours_are_refused_in_one_line(tmp_path):
    path = tables.table_path(tmp_path, "scores")
    with pytest.raises(TableError, match="does not exist yet"):
        tables.read_table(tmp_path, "scores")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no parquet at all")
    with pytest.raises(TableError, match="cannot be read"):
        tables.read_table(tmp_path, "scores")
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(TableError, match="not a table of ffhqref"):
        tables.read_table(tmp_path, "scores")
    tables.write_table(tmp_path, "scores", scores())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TableError, match="damaged"):
        tables.read_table(tmp_path, "scores")


def test_another_schema_version_is_refused_and_kept(tmp_path):
    path = tables.write_table(tmp_path, "scores", scores())
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"ffhqref"])
    facts["version"] += 1
    pq.write_table(table.replace_schema_metadata({b"ffhqref": json.dumps(facts).encode()}), path)
    before = path.read_bytes()
    with pytest.raises(TableError, match=r"version 2.*reads 'scores' version 1"):
        tables.read_table(tmp_path, "scores")
    assert path.read_bytes() == before


def test_unknown_table_gets_a_suggestion(tmp_path):
    with pytest.raises(TableError, match="Did you mean 'scores'"):
        tables.table_path(tmp_path, "score")


def small(root, name="scores"):
    """Two tables with times, nulls and nested columns, so that every kind of page is there."""
    if name == "scores":
        return tables.write_table(root, name, pd.concat([scores(case_id=f"{i:05d}", value=float(i)) for i in range(9)]))
    row = {"method": "lq", "benchmark": "moderate", "output_path": None, "output_sha256": None, "status": "ok"}
    row |= {"error": None, "seconds": 0.5, "peak_memory_bytes": 7, "device": "cpu"}
    return tables.write_table(root, name, pd.DataFrame([{**row, "case_id": f"{i:05d}"} for i in range(3)]))


@pytest.mark.parametrize("name", ["scores", "restorations"])
def test_a_flipped_bit_anywhere_in_a_table_is_told(tmp_path, name):
    path = small(tmp_path, name)
    whole = path.read_bytes()
    for byte in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << byte % 8
        path.write_bytes(damaged)
        with pytest.raises(TableError) as caught:
            tables.read_table(tmp_path, name)
        assert str(path) in str(caught.value)


def edited(path, **columns):
    """Change values with another program and keep the metadata, as an honest but careless user could."""
    table = pq.read_table(path)
    for name, value in columns.items():
        index = table.column_names.index(name)
        table = table.set_column(index, table.schema.field(name), pa.array([value] * len(table)))
    pq.write_table(table, path, compression="zstd")


def test_values_edited_under_the_old_metadata_are_refused_and_made_again(tmp_path, caplog):
    path = small(tmp_path)
    before = tables.read_table(tmp_path, "scores")
    edited(path, value=99.0)
    with pytest.raises(TableError, match=r"another program|damaged"):
        tables.read_table(tmp_path, "scores")
    with pytest.raises(TableError, match=r"another program|damaged"):
        tables.table_hash(tmp_path, "scores")
    assert small(tmp_path) == path
    assert "made again" in caplog.text
    pd.testing.assert_frame_equal(tables.read_table(tmp_path, "scores"), before)


def resealed(path, table):
    """Write a table as its author could who knows how the hash is made."""
    path.write_bytes(sealed(table))


def test_keys_and_nulls_of_a_well_hashed_table_are_checked(tmp_path):
    path = small(tmp_path)
    table = pq.read_table(path)
    table = table.replace_schema_metadata({b"ffhqref": table.schema.metadata[b"ffhqref"]})
    resealed(path, table)
    assert len(tables.read_table(tmp_path, "scores")) == 9
    resealed(path, pa.concat_tables([table, table.slice(8)]))
    with pytest.raises(TableError, match="occurs twice"):
        tables.read_table(tmp_path, "scores")
    missing = table.set_column(5, pa.field("status", pa.string()), pa.array(["ok"] * 8 + [None]))
    resealed(path, missing)
    with pytest.raises(TableError, match="'status': a value is missing"):
        tables.read_table(tmp_path, "scores")


@pytest.mark.parametrize(
    "facts", [b"[]", b"{}", b"null", b"[" * 100_000, b"\xff", b'{"table": "scores", "version": 1}']
)
def test_metadata_of_another_form_is_refused_in_one_line(tmp_path, facts):
    path = small(tmp_path)
    resealed(path, pq.read_table(path).replace_schema_metadata({b"ffhqref": facts}))
    with pytest.raises(TableError):
        tables.read_metadata(tmp_path, "scores")


def test_a_small_table_that_stands_for_more_than_there_is_memory_is_refused():
    rows = 20_000
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 1_000_000]))
    sink = io.BytesIO()
    pq.write_table(pa.table({"identity": texts}), sink, compression="zstd", store_schema=False)
    assert len(sink.getvalue()) < 1000
    with pytest.raises(ValueError, match="more than 4 GiB"):
        check_size(sink.getvalue())


def test_texts_that_rows_share_are_read_where_they_fit(monkeypatch):
    monkeypatch.setattr("ffhqref.store.sealed.MOST", 100_000)
    shared = pa.table({"a": ["x" * 100] * 500, "b": [["y" * 10] * 3] * 500})
    check_size(sealed(shared))
    for wide in (
        [["y" * 100] * 3] * 500,
        [{"bytes": b"y" * 300, "path": "p"}] * 500,
        [[{"bytes": b"y" * 100}] * 3] * 500,
    ):
        with pytest.raises(ValueError, match="stands for more"):
            check_size(sealed(pa.table({"b": wide})))
