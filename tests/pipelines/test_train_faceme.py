"""``ffhqref prepare`` and ``train model=faceme``: nobody tested is trained on, and a killed run ends as unbroken."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ffhqref.store import tables
from ffhqref.training.faceme.lists import read_samples

from .test_cli import one_line

MICRO = (
    "device=cpu", "model=faceme", "train.threads=1", "train.save_every=4", "train.sample_every=0",
    "train.faceme.common.batch_size=2", "train.faceme.stage1.steps=10", "train.faceme.stage2.steps=5",
)  # fmt: skip


@pytest.mark.slow
def test_prepared_killed_and_resumed_equals_unbroken(ffhqref, workspace):
    made = ffhqref("prepare", f"root={workspace}", "device=cpu", "engine=serial", "train.folder=whole")
    assert made.returncode == 0, made.stderr
    identities = tables.read_table(workspace, "identities")
    test = set(identities.loc[identities["split"] == "test", "image_id"])
    person = dict(zip(identities["image_id"], identities["identity_id"], strict=True))
    samples = read_samples(workspace / "faceme" / "train.json")
    assert samples
    assert test
    for sample in samples:
        used = [sample.name, *(Path(reference.identity).stem for reference in sample.references)]
        assert not test & set(used)
        assert len({person[name] for name in used}) == 1
        assert Path(sample.target).stem == sample.name
    features = tables.read_table(workspace, "faceme_features")
    assert set(features["image_id"]) == {sample.name for sample in samples}
    assert features["error"].isna().all()

    whole = ffhqref("train", f"root={workspace}", "train.folder=whole", *MICRO)
    assert whole.returncode == 0, whole.stderr
    shutil.copytree(ffhqref.folder / "whole" / "faceme" / "base", ffhqref.folder / "parts" / "faceme" / "base")
    arguments = ("train", f"root={workspace}", "train.folder=parts", *MICRO)
    process = ffhqref.start(*arguments)
    curve = ffhqref.folder / "parts" / "faceme" / "stage1" / "curve.csv"
    while process.poll() is None and not (curve.is_file() and len(curve.read_text().splitlines()) > 6):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (curve.parent / "checkpoint-10").exists(), "killed too late to test anything"
    again = ffhqref(*arguments)
    assert again.returncode == 0, again.stderr
    for name in ("stage1/checkpoint-10", "stage2/checkpoint-5"):
        one, other = (ffhqref.folder / run / "faceme" / name for run in ("whole", "parts"))
        files = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
        assert len(files) == (2 if "stage1" in name else 1)
        for file in files:
            first, second = load_file(one / file), load_file(other / file)
            assert all((value == second[key]).all() for key, value in first.items())


@pytest.mark.slow
def test_launched_processes_share_a_workspace(ffhqref, workspace):
    """As ``accelerate launch`` starts them, with its environment; stage 2 waits for what stage 1 wrote."""
    made = ffhqref("prepare", f"root={workspace}", "device=cpu", "engine=serial", "limit=2")
    assert made.returncode == 0, made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = ("train", f"root={workspace}", *MICRO, "train.faceme.stage1.steps=3", "train.faceme.stage2.steps=2")
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [ffhqref.start(*given, env={**common, "RANK": str(n), "LOCAL_RANK": str(n)}) for n in (0, 1)]
    told = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    folder = workspace / "train-tiny" / "faceme"
    assert len((folder / "stage2" / "curve.csv").read_text().splitlines()) == 1 + 2
    assert (folder / "stage1" / "checkpoint-3" / "mix").is_dir()
    assert (folder / "stage2" / "checkpoint-2" / "controlnet").is_dir()
    assert "checkpoint-2" in told[0]
    assert "checkpoint" not in told[1], "one process writes"


def test_what_is_missing_is_told(ffhqref, workspace):
    done = ffhqref("train", f"root={workspace}", *MICRO)
    assert done.returncode == 2
    assert "ffhqref prepare" in one_line(done)
    done = ffhqref("train", f"root={workspace}", *MICRO, "+train.faceme.common.own_embeding=false")
    assert done.returncode == 2
    assert "Did you mean 'own_embedding'" in one_line(done)
    done = ffhqref("prepare", f"root={workspace}", "device=cpu", "train.splits=[train,test]")
    assert done.returncode == 2
    assert "test split" in one_line(done)
