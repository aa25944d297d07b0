"""Small workspaces and the command line for the pipeline tests."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent


class Command:
    """Runs ``ffhqref`` as a user would, from this checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(
        self, *arguments: str, env: dict[str, str] | None = None, terminal: bool = False
    ) -> subprocess.Popen[str]:
        """Start the command and return the process; as a terminal would, at the head of a process group of its own."""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **(env or {})}
        return subprocess.Popen(
            [sys.executable, "-m", "ffhqref.cli.main", *arguments],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=terminal,
        )

    def __call__(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        process = self.start(*arguments, env=env)
        out, err = process.communicate(timeout=500)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def ffhqref(tmp_path: Path) -> Command:
    """The command line in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    return Command(folder)


@pytest.fixture(scope="session")
def few_faces(tmp_path_factory: pytest.TempPathFactory, sample_folder: Path) -> Path:
    """A folder with all pictures of six identities of the sample."""
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
