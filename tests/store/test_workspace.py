"""A workspace from a stranger writes nothing outside it and shows no file that its maker does not have."""

from __future__ import annotations

import os

import pytest

from ffhqref.core.errors import ConfigError, FfhqrefError, TableError
from ffhqref.store.workspace import Workspace, inside, owned


@pytest.mark.parametrize("path", ["../x.png", "/etc/passwd", "a/../../x.png", "lq/../../x"])
def test_paths_that_leave_the_root_by_their_text_are_refused(tmp_path, path):
    for place in (inside, owned):
        with pytest.raises(TableError, match="leaves its root"):
            place(tmp_path, path)


def test_a_link_that_leads_out_is_refused_and_one_that_stays_is_not(tmp_path):
    root, outside = tmp_path / "w", tmp_path / "outside"
    outside.mkdir()
    (outside / "diary.png").write_bytes(b"private")
    workspace = Workspace(root)
    (root / "outputs").mkdir()
    (root / "outputs" / "a.png").write_bytes(b"1")
    (root / "outputs" / "b.png").symlink_to("a.png")
    (root / "outputs" / "c.png").symlink_to(outside / "diary.png")
    (root / "outputs" / "folder").symlink_to(outside)
    assert workspace.file("outputs/b.png").read_bytes() == b"1"
    for path in ("outputs/c.png", "outputs/folder/diary.png", "outputs/folder/new.png"):
        with pytest.raises(TableError, match="through a link"):
            workspace.file(path)
    (tmp_path / "linked").symlink_to(root)  # the root itself is the user's word
    assert Workspace(tmp_path / "linked").file("outputs/a.png").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["tables", "journal", "report", "outputs", "embeddings", "FFHQ-Ref"])
def test_a_linked_folder_of_a_workspace_is_not_written_through(tmp_path, name):
    (tmp_path / "w").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "w" / name).symlink_to(tmp_path / "outside")
    with pytest.raises(TableError, match="through a link"):
        Workspace(tmp_path / "w")
    assert not list((tmp_path / "outside").iterdir())


def test_a_linked_lock_is_not_written_through(tmp_path):
    (tmp_path / "mine").write_bytes(b"private")
    workspace = Workspace(tmp_path / "w")
    (tmp_path / "w" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(FfhqrefError, match="link"):
        workspace.lock()
    assert (tmp_path / "mine").read_bytes() == b"private"


def test_the_lock_sweeps_what_killed_processes_left(tmp_path):
    workspace = Workspace(tmp_path)
    (tmp_path / "tables" / ".0123456789abcdef.ffhqref-tmp").write_bytes(b"half")
    workspace.lock()
    assert not list((tmp_path / "tables").iterdir())
    assert int((tmp_path / ".lock").read_text()) == os.getpid()
    with pytest.raises(FfhqrefError, match=f"in use by process {os.getpid()}"):
        Workspace(tmp_path).lock()


def test_a_file_in_place_of_a_workspace_is_told(tmp_path):
    (tmp_path / "w").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot write"):
        Workspace(tmp_path / "w")
