"""Small workspaces and the command line for the pipeline tests."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from ..command import Command


@pytest.fixture
def ffhqref(tmp_path: Path) -> Command:
    """The command line in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    return Command(folder)


@pytest.fixture(scope="session")
def few_faces(tmp_path_factory: pytest.TempPathFactory, sample_folder: Path) -> Path:
    """A folder with all images of six identities of the sample."""
    folder = tmp_path_factory.mktemp("few")
    with (sample_folder / "metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    groups = [row["identity"] for row in rows if row["kind"] == "older"]
    for row in rows:
        if row["identity"] in sorted(groups)[:6]:
            shutil.copy(sample_folder / row["file"], folder)
    return folder


FEW = (
    "dataset=folder",
    "dataset.test=2",
    "dataset.val=1",
    "metric=[psnr,ids]",
    "restorer=[lq,bicubic,reference]",
    "limit=4",
)
"""A run of half a minute at most over `few_faces` (with ``dataset.path``)."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, few_faces: Path, sample_folder: Path) -> Path:
    """A workspace in which the reference set of `few_faces` was built, ages known. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("built")
    done = Command(folder)("build", "root=w", *build_arguments(few_faces, sample_folder))
    assert done.returncode == 0, done.stderr
    return folder / "w"


def build_arguments(faces: Path, sample_folder: Path) -> tuple[str, ...]:
    """Return the arguments that `built` was made with."""
    ages = f"dataset.ages={sample_folder}/metadata.csv"
    return ("dataset=folder", f"dataset.path={faces}", ages, "dataset.test=3", "dataset.val=1")


@pytest.fixture
def workspace(built: Path, tmp_path: Path) -> Path:
    """A copy of `built` to do with as one likes."""
    root = tmp_path / "w"
    shutil.copytree(built, root)
    return root
