"""The record of hashes: files are read once, every change is noticed, nothing depends on being able to write it."""

import logging
import os

import pytest

from ffhqref.core.errors import WeightsError
from ffhqref.core.hashing import sha256_bytes
from ffhqref.weights import files as weights
from ffhqref.weights import recorded


@pytest.fixture
def hashed(monkeypatch):
    """Return the names of the files that were read for their hash."""
    read = []
    real = recorded.sha256_open
    monkeypatch.setattr(recorded, "sha256_open", lambda stream, path: read.append(path.name) or real(stream, path))
    return read


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "weights"


def test_a_file_is_read_once_and_again_when_anything_about_it_changed(tmp_path, home, hashed):
    file = tmp_path / "net.pth"
    file.write_bytes(b"first")
    stamp = file.stat().st_mtime_ns
    for _ in range(3):
        assert weights.file_sha256(file) == sha256_bytes(b"first")
    assert hashed == ["net.pth"]

    file.write_bytes(b"other")  # the same size, and the time set back as `cp -p` does
    os.utime(file, ns=(stamp, stamp))
    assert weights.require("gfpgan-1.3", path=file).sha256 == sha256_bytes(b"other")
    replacement = tmp_path / "new"
    replacement.write_bytes(b"third")
    os.utime(replacement, ns=(stamp, stamp))
    replacement.replace(file)
    assert weights.require("gfpgan-1.3", path=file).sha256 == weights.file_sha256(file) == sha256_bytes(b"third")
    assert hashed == ["net.pth"] * 3


def test_another_folder_records_where_the_weights_cannot(tmp_path, home, hashed, monkeypatch):
    home.write_bytes(b"no folder")  # nothing can be written below it, even by root
    file = tmp_path / "net.pth"
    file.write_bytes(b"first")
    for _ in range(2):
        assert weights.file_sha256(file) == sha256_bytes(b"first")
    assert hashed == ["net.pth"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    for _ in range(2):
        assert weights.file_sha256(file) == sha256_bytes(b"first")
    assert hashed == ["net.pth"] * 3, "recorded nowhere, and right all the same"


def test_a_large_file_is_announced_and_a_missing_one_is_one_line(tmp_path, home, monkeypatch, caplog):
    file = tmp_path / "net.pth"
    file.write_bytes(b"first")
    with caplog.at_level(logging.WARNING):
        weights.file_sha256(file)
        assert not caplog.records
        monkeypatch.setattr(recorded, "LARGE", 5)
        file.write_bytes(b"large")
        for _ in range(2):
            weights.file_sha256(file)
    assert [record.getMessage() for record in caplog.records] == [
        f"hashing {file} (0.0 GB); once, until the file changes"
    ]
    with pytest.raises(WeightsError, match=r"cannot read .*gone\.pth: No such file"):
        weights.file_sha256(tmp_path / "gone.pth")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"/x": 3}', '{"FILE": {"sha256": "aa"}}', '{"FILE": []}'])
def test_a_damaged_record_is_passed_over(tmp_path, home, text):
    file = tmp_path / "net.pth"
    file.write_bytes(b"first")
    home.mkdir()
    (home / "recorded_sha256.json").write_text(text.replace("FILE", str(file)))
    assert weights.file_sha256(file) == sha256_bytes(b"first")
