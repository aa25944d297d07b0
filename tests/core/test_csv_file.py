"""The one reader of CSV files loses no row in silence, and says in one line what is wrong and where."""

from __future__ import annotations

import gzip
import os

import pytest

from ffhqref.core import csv_file
from ffhqref.core.csv_file import parse_csv, read_csv
from ffhqref.core.errors import DatasetError


def test_lines_columns_and_quoted_line_ends_are_kept():
    table = parse_csv(b'\xef\xbb\xbfimage_id,note\r\na,"x, ""y""\nz"\r\n\r\nb,\n', "t.csv")
    assert table.columns == ("image_id", "note")
    assert [(row.line, dict(row.cells)) for row in table.rows] == [
        (2, {"image_id": "a", "note": 'x, "y"\nz'}),
        (5, {"image_id": "b", "note": ""}),
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file"),
        (b"\n\n", "empty file"),
        (b'image_id,age\na,1\nb,"he said\nc,3\nd,4\n', "line 3: no valid CSV"),  # a stray quote took three rows
        (b'image_id,age\na,"1"x\n', "line 2: no valid CSV"),
        (b"image_id,age\na,1\nb\n", "line 3: 1 cells, expected 2"),
        (b"image_id,age\na,1,2\n", "line 2: 3 cells, expected 2"),
        (b"image_id,age,age\na,1,2\n", "line 1: the column 'age' occurs twice"),
        (b"image_id,age\na,1\x00\n", "line 2: holds a NUL"),
        (b"image_id,age\na,\xe4\n", "line 2: not UTF-8"),
        ("image_id,age\na,1\n".encode("utf-16"), "line 1: not UTF-8"),
        (b"image_id,note\na," + b"x" * 131_073 + b"\n", "line 2: no valid CSV (field larger than field limit"),
    ],
)
def test_what_a_lax_reader_would_pass_over_is_refused(data, said):
    with pytest.raises(DatasetError) as caught:
        parse_csv(data, "t.csv")
    assert str(caught.value).startswith("t.csv")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        gzip.compress(b"image_id,age\na,1\n", mtime=0)[:-9],
        gzip.compress(b"a,b\n", mtime=0)[:-4] + b"\0\0\0\0",
    ],
)
def test_a_damaged_gzip_is_refused(tmp_path, data):
    (tmp_path / "x.csv.gz").write_bytes(data)
    with pytest.raises(DatasetError, match=r"x\.csv\.gz"):
        read_csv(tmp_path / "x.csv.gz")


def test_what_unpacks_to_more_than_fits_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file, "MAX_BYTES", 1 << 20)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"a,b\n" * 10_000_000))
    with pytest.raises(DatasetError, match="more than 1 MiB"):
        read_csv(tmp_path / "x.csv.gz")
    (tmp_path / "y.csv.gz").write_bytes(gzip.compress(b"a,b\n") + gzip.compress(b"1,2\n"))
    assert dict(read_csv(tmp_path / "y.csv.gz").rows[0].cells) == {"a": "1", "b": "2"}


def test_a_pipe_a_folder_and_nothing_are_refused(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    for path in (tmp_path / "x.csv", tmp_path, tmp_path / "none.csv"):
        with pytest.raises(DatasetError, match="cannot be read"):
            read_csv(path)
