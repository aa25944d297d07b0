"""The report's cache key sees every edited file that makes the page."""

import shutil
from pathlib import Path

import pytest

import ffhqref.leaderboard
from ffhqref.leaderboard.publish import renderer_version

PACKAGE = Path(ffhqref.leaderboard.__file__).parent


PARTS = ["html/report.html.j2", "html/core.js", "html/report.css", "html/page.py", "aggregate.py", "data/published.csv"]


@pytest.mark.parametrize("name", PARTS)
def test_an_edit_changes_it_and_a_copy_elsewhere_does_not(name, tmp_path):
    folder = tmp_path / "leaderboard"
    shutil.copytree(PACKAGE, folder)
    (folder / "__pycache__" / "notes.txt").parent.mkdir(exist_ok=True)
    (folder / "__pycache__" / "notes.txt").write_text("no part of it")
    assert renderer_version(folder) == renderer_version()
    (folder / name).write_text((folder / name).read_text() + "\n")
    assert renderer_version(folder) != renderer_version()
