"""Every Python block of docs/library.md, and the five lines of the README, run as they stand."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

import ffhqref

from ..conftest import REPOSITORY

if TYPE_CHECKING:
    from .conftest import Finished

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def here(finished: Finished, tmp_path, monkeypatch):
    shutil.copytree(finished.root, tmp_path / "workspace", ignore=shutil.ignore_patterns("report"))
    shutil.copytree(finished.root / "outputs" / "nlm" / "severe", tmp_path / "results" / "mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(page: str) -> None:
    blocks = BLOCK.findall((REPOSITORY / page).read_text(encoding="utf-8"))
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


@pytest.mark.slow
def test_the_page(here, capsys):
    run("docs/library.md")
    assert (here / "page.html").is_file()
    assert "from_folder" in set(ffhqref.read("workspace", "restorations")["method"])


def test_the_readme(here, capsys):
    run("README.md")
    assert "mine" in capsys.readouterr().out
