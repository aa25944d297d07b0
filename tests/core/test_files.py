"""Files are read and written whole, through no link, and with the rights that the user's umask leaves."""

from __future__ import annotations

import os
import stat

import pytest

from ffhqref.core import files
from ffhqref.core.errors import FfhqrefError, ImageError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_bytes


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    files.write_atomic(tmp_path / "x", b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(tmp_path / "x", b"new", lasting=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_get_the_rights_that_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        files.write_atomic(tmp_path / "x", b"1")
        files.open_own(tmp_path / "j", "a+b").close()
    finally:
        os.umask(before)
    for name in ("x", "j"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path):
    files.write_atomic(tmp_path / ("n" * 251 + ".png"), b"1")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_is_replaced_by_an_atomic_write_and_refused_by_an_appending_one(tmp_path):
    (tmp_path / "mine").write_bytes(b"private")
    for name in ("x", "j"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    files.write_atomic(tmp_path / "x", b"1")
    with pytest.raises(FfhqrefError, match="link"):
        files.open_own(tmp_path / "j", "a+b")
    assert (tmp_path / "mine").read_bytes() == b"private"
    assert (tmp_path / "x").read_bytes() == b"1"


def test_pipes_folders_and_devices_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "b.png", "/dev/zero"):
        with pytest.raises(OSError, match=r"no regular file|is a folder"):
            files.read_regular(path)
        with pytest.raises(OSError, match=r"no regular file|is a folder"):
            sha256_file(path)
        with pytest.raises(ImageError, match="cannot be read"):
            read_bytes(path)
    with pytest.raises(FfhqrefError, match="no regular file"):
        files.open_own(tmp_path / "a.png", "ab")


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    for name in ("a/.0123456789abcdef.ffhqref-tmp", ".x.ffhqref-tmp", "a/x.png", ".notes.tmp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert files.sweep(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".notes.tmp", "x.png"]


def test_a_folder_takes_its_place_once_it_is_whole(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").write_bytes(b"1")

    def broken():
        with files.new_folder(tmp_path / "x") as made:
            (made / "new").write_bytes(b"2")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        broken()
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "old"]
    with files.new_folder(tmp_path / "x") as made:
        (made / "new").write_bytes(b"2")
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "new"]


def test_folders_that_killed_processes_left_are_swept_and_links_are_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_bytes(b"1")
    (tmp_path / "w" / ".1.ffhqref-tmp" / "deep").mkdir(parents=True)
    (tmp_path / "w" / ".2.ffhqref-tmp").symlink_to(tmp_path / "mine")
    assert files.sweep(tmp_path / "w") == 2
    assert list((tmp_path / "w").iterdir()) == []
    assert (tmp_path / "mine" / "x").read_bytes() == b"1"


def test_a_sparse_file_that_is_larger_than_any_memory_is_one_line(tmp_path):
    with (tmp_path / "a.png").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ImageError, match="larger than 1024 MiB"):
        read_bytes(tmp_path / "a.png")
    with pytest.raises(OSError, match="larger than"):
        files.read_regular(tmp_path / "a.png")
