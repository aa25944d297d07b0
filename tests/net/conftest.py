"""The net: one small run of the main job, and snapshots of what it makes and of what the command line says.

``FFHQREF_UPDATE_SNAPSHOTS=1 pytest tests/net`` writes the snapshots again. Read the difference before you commit it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..command import Command

SNAPSHOTS = Path(__file__).parent / "snapshots"
UPDATE = os.environ.get("FFHQREF_UPDATE_SNAPSHOTS") == "1"

JOB = ("run", "root=w", "experiment=quick", "limit=4", "restorer=[lq,bicubic,nlm,tv,reference,refldm-tiny]")
"""The main job with its restorers, on four test targets."""


def check_text(name: str, text: str) -> None:
    """Compare a text with its snapshot, or write the snapshot."""
    path = SNAPSHOTS / name
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"no snapshot {name}: FFHQREF_UPDATE_SNAPSHOTS=1 pytest tests/net"
    assert text == path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Finished:
    """A workspace after the run."""

    root: Path


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, dict[str, str]]:
    """The command line of a user without weight files, on a terminal of fixed width."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "net"  # one for all workers
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    env = dict.fromkeys(("HOME", "TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME", "FFHQREF_WEIGHTS"), str(home))
    return Command(folder), {**env, "COLUMNS": "100", "NO_COLOR": "1", "FFHQREF_OFFLINE": "1"}


@pytest.fixture(scope="session")
def finished(bare: tuple[Command, dict[str, str]]) -> Finished:
    """The main job, done once for all tests of the net. Copy it before changing it."""
    command, env = bare
    with (command.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (command.folder / "done").exists():
            done = command(*JOB, env=env)
            assert done.returncode == 0, done.stderr
            (command.folder / "done").touch()
    return Finished(command.folder / "w")


@pytest.fixture
def workspace_copy(finished: Finished, bare: tuple[Command, dict[str, str]], tmp_path: Path) -> Command:
    """The command line in a folder with a copy of the finished workspace."""
    shutil.copytree(finished.root, tmp_path / "w")
    return Command(tmp_path)
