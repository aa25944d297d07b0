"""The main job on a Ray cluster: the tables of a run on this machine, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from ..command import REPOSITORY, Command, Process
from .test_cli import one_line
from .test_run import assert_same

SMALL = (
    "dataset=folder", "dataset.test=2", "dataset.val=1", "benchmark=[severe]", "limit=3", "restorer=[lq]",
    "metric=[psnr,ids]", "report.n_bootstrap=50",
)  # fmt: skip

RESTORER = """
import os, time
from pathlib import Path
from ffhqref.restorers.base import RestorerInfo

class Patient:
    info = RestorerInfo(name="patient")
    def __init__(self, folder): self.folder = Path(folder)
    def restore(self, batch):
        with (self.folder / "pids").open("a") as stream: stream.write(f"{os.getpid()}\\n")
        calls = len((self.folder / "pids").read_text().split())
        end = time.monotonic() + 100
        while int((self.folder / "free").read_text() or 0) < calls and time.monotonic() < end: time.sleep(0.05)
        return batch.lq * 0.9
"""


class Patient:
    """What the restorer above leaves behind, and how many of its calls may end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.let(0)

    def let(self, calls: int) -> None:
        """Let so many calls end."""
        (self.folder / "free").write_text(str(calls))

    def forget(self) -> None:
        """Begin to count anew."""
        (self.folder / "pids").unlink(missing_ok=True)

    @property
    def pids(self) -> list[int]:
        """The process of each call."""
        path = self.folder / "pids"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def wait(self, process: Process, calls: int) -> None:
        """Wait until it was called so often."""
        deadline = time.monotonic() + 200
        while len(self.pids) < calls:
            if time.monotonic() > deadline or process.poll() is not None:
                process.kill()
                raise AssertionError(process.communicate())
            time.sleep(0.05)


@pytest.fixture(scope="module")
def here(tmp_path_factory, few_faces):
    """A command, its arguments, and the restorer they name; a run on this machine has made the workspace ``w``."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "patient.py").write_text(RESTORER)  # beside the user: modules of the working folder are found
    patient = Patient(folder)
    patient.let(99)
    mine = f"+restorer.mine={{_target_: patient.Patient, folder: '{folder}'}}"
    arguments = (f"dataset.path={few_faces}", *SMALL, mine)
    done = Command(folder)("run", *arguments, "root=w", "engine.workers=1")
    assert done.returncode == 0, done.stderr
    return Command(folder), arguments, patient


@pytest.mark.slow
def test_a_run_on_two_nodes_that_loses_a_worker_gives_the_same_tables(here, ray_cluster):
    command, arguments, patient = here
    patient.forget()
    patient.let(0)
    process = command.start("run", *arguments, "root=on_ray", "engine=ray", f"engine.address={ray_cluster}")
    patient.wait(process, 1)
    first = patient.pids[0]
    os.kill(first, signal.SIGKILL)
    patient.let(99)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert len(patient.pids) == 3 + 1  # cases, and one twice
    assert patient.pids.count(first) == 1
    assert_same(command.folder / "w", command.folder / "on_ray")
    assert not list((command.folder / "on_ray").glob(".ray*"))


@pytest.mark.slow
def test_ctrl_c_ends_the_cluster_and_the_rest_is_done_here(here):
    """As on a terminal, which sends the signal to all processes; the cluster is of this run alone."""
    command, arguments, patient = here
    root = command.folder / "cut"
    shutil.copytree(command.folder / "w", root)
    shutil.rmtree(root / "outputs" / "mine")
    (root / "journal" / "restore-mine.jsonl").unlink()
    patient.forget()
    patient.let(1)
    process = command.start("restore", *arguments, "root=cut", "engine=ray", "engine.workers=1", terminal=True)
    patient.wait(process, 2)
    started = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _of(path, process.pid)]
    assert patient.pids[0] in started
    head = next(pid for pid in started if "gcs_server" in Path(f"/proc/{pid}/cmdline").read_text())
    assert "RAY_USAGE_STATS_ENABLED=0" in Path(f"/proc/{head}/environ").read_text().split("\0")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    patient.let(99)
    assert process.returncode == 130, err
    assert [line for line in err.splitlines() if line.startswith("ffhqref: ")] == [
        "ffhqref: interrupted; what was finished is kept, the same command goes on from there"
    ]
    assert "Traceback" not in err
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    done = command("restore", *arguments, "root=cut", "engine.workers=1")
    assert done.returncode == 0, done.stderr
    assert len(patient.pids) == 2 + 2  # what the cluster had finished was not done again
    assert_same(command.folder / "w", root)


def _of(process: Path, leader: int) -> bool:
    """Return whether a process descends from another, or is in its session."""
    try:
        fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    parent, session = int(fields[1]), int(fields[3])
    return session == leader or (parent > 1 and _of(Path(f"/proc/{parent}"), leader))


@pytest.mark.slow
def test_a_finished_run_starts_no_cluster(here, tmp_path):
    """So it does not need Ray, either; one with something to do says how to get it."""
    command, arguments, _ = here
    (tmp_path / "ray.py").write_text("raise ImportError('not installed')")
    path = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    done = command("run", *arguments, "root=w", "engine=ray", env=path)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stderr
    refused = command("run", *arguments, "root=new", "engine=ray", env=path)
    assert "engine=ray needs Ray: pip install 'ffhqref[ray]'" in one_line(refused)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["engine=ray", "engine.address=localhost:9"], "no Ray cluster at localhost:9"),
        (["engine=ray", "engine.workers=0"], "engine.workers=0: expected a whole number of at least 1"),
        (["engine=ray", "device=cuda:1"], "device=cuda:1: engine=ray gives each worker a GPU of its own"),
        (["engine=ray", "engine.worker=2"], "unknown key 'engine.worker'. Did you mean 'workers'?"),
        (["engine=rat"], "Did you mean 'ray'?"),
    ],
)
def test_mistakes_get_one_clear_line(ffhqref, options, said):
    assert said in one_line(ffhqref("run", *options))
