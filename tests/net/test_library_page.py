"""Every Python block of docs/library.md, the five lines of the README and the notebooks run as they stand."""

from __future__ import annotations

import json
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


NOTEBOOKS = sorted((REPOSITORY / "examples").glob("*.ipynb"))


def cells(notebook):
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def test_notebooks_were_executed_and_name_no_place_of_their_author():
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        counts = [cell["execution_count"] for cell in cells(notebook)]
        assert counts == list(range(1, len(counts) + 1))
        assert not re.search(r"/(home|tmp|root|work|Users)/", notebook.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(here, notebook):
    shutil.rmtree(here / "results")
    names: dict[str, object] = {}
    for cell in cells(notebook):
        exec(compile("".join(cell["source"]), notebook.name, "exec"), names)
