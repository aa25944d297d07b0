"""Sweeps: each job's outcome reaches the exit status, whichever process or machine it ran on."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from .test_cli import one_line

DRY = ("dry_run=true", "restorer=[lq],[bicubic]", "root=r${hydra:job.num}")

SBATCH = """#!{python}
# What submitit needs of Slurm's sbatch: the tasks of the array run at once, here, while the command goes on.
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
for task in range(int(re.search(r"--array=0-(\\d+)", script).group(1)) + 1):
    environment = {{**os.environ, "SLURM_JOB_ID": str(70 + task), "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": str(task), "SLURM_NTASKS": "1", "SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "node"}}
    subprocess.Popen(["bash", sys.argv[-1]], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job 7")
"""

SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do
  case $1 in --output) out=$2; shift 2;; --error) err=$2; shift 2;; *) shift;; esac
done
place() {
  local path=${1//%A/7}; path=${path//%a/$SLURM_ARRAY_TASK_ID}; path=${path//%t/0}
  mkdir -p "$(dirname "$path")"; echo "$path"
}
exec "$@" >"$(place "$out")" 2>"$(place "$err")"
"""

SACCT = """#!/bin/bash
echo 'JobID|State|NodeList'; for task in 0 1; do echo "7_$task|RUNNING|node"; done
"""


@pytest.fixture
def slurm(tmp_path):
    """A folder with programs that stand in for Slurm's."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH.format(python=sys.executable), "srun": SRUN, "sacct": SACCT}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def printed(folder: Path) -> str:
    """Return what the jobs of a sweep printed."""
    return "".join(path.read_text() for path in sorted(folder.rglob("*.out")))


def test_slurm_jobs_run_as_the_config_says(ffhqref, slurm):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    path = {"PATH": f"{slurm}:{os.environ['PATH']}"}
    done = ffhqref("restore", "--multirun", "hydra/launcher=slurm", "hydra.launcher.partition=gpus", *DRY, env=path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\w+): ok$", printed(ffhqref.folder / "multirun" / "jobs"), re.MULTILINE) == ["lq", "bicubic"]
    script = next((ffhqref.folder / "multirun" / "jobs").rglob("*.sh")).read_text()
    for option in ("partition=gpus", "gpus-per-node=1", "cpus-per-task=8", "mem=32GB", "time=720"):
        assert f"#SBATCH --{option}\n" in script
    assert sorted(path.name for path in ffhqref.folder.iterdir()) == ["multirun", "r0", "r1"]


def test_slurm_is_missing(ffhqref):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    assert "no Slurm here" in one_line(ffhqref("restore", "--multirun", "hydra/launcher=slurm", *DRY))


@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_a_job_that_goes_wrong_is_told_and_the_others_are_done(ffhqref, launcher):
    if launcher != "basic":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    command = ("restore", "--multirun", f"hydra/launcher={launcher}", *DRY)
    done = ffhqref(*command, "seed=1,-1")
    assert "seed=-1: expected a whole number of at least 0" in one_line(done)
    said = done.stdout + printed(ffhqref.folder)
    assert re.findall(r"^(\w+): ok$", said, re.MULTILINE) == ["lq", "bicubic"]


def test_failed_rows_of_a_job_elsewhere_give_the_status_of_failed_rows(ffhqref):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (ffhqref.folder / "their.py").write_text(
        "from ffhqref.restorers.base import RestorerInfo\n"
        "class Broken:\n"
        "    info = RestorerInfo(name='broken')\n"
        "    def restore(self, batch): raise RuntimeError('no')\n"
    )
    done = ffhqref(
        "restore", "--multirun", "hydra/launcher=submitit_local", "seed=1,2", "dry_run=true", "restorer=[lq]",
        "+restorer.mine={_target_: their.Broken}", "root=r${hydra:job.num}",
    )  # fmt: skip
    assert "some rows of this job failed" in one_line(done, status=1)
