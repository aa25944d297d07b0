"""``kill -9`` at random moments inside writes: a rerun ends with what an unbroken run ends with, and sweeps up."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ffhqref.store import tables
from ffhqref.store.workspace import Workspace

from ..command import REPOSITORY

TABLES = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from ffhqref.core.hashing import content_key
from ffhqref.core.images import save_png
from ffhqref.engine import LocalEngine, Stage, run_stage
from ffhqref.faces.store import EmbeddingStore
from ffhqref.store.workspace import Workspace

class Make(Stage):
    name, batch_size = "make", 4
    def __init__(self, root): self.root = root
    def key(self, row): return content_key(row)
    def process(self, rows):
        for row in rows:
            image = np.full((256, 256, 3), row["x"] % 256, np.uint8)
            save_png(self.root / "outputs" / f"{row['x']}.png", image)
        return [{"y": row["x"] ** 2, "v": np.full(2000, row["x"], np.float32)} for row in rows]

workspace = Workspace(sys.argv[1])
workspace.lock()
print("go", flush=True)
for part in range(12):
    rows = [{"x": part * 20 + x} for x in range(20)]
    found = run_stage(Make(workspace.root), rows, engine=LocalEngine(1), journal_dir=workspace.journals)
    ids = [f"{row['x']:05d}" for row in rows]
    with EmbeddingStore(workspace.root / "embeddings", "s", 2000) as store:
        new = [name for name in ids if name not in store]
        if new: store.append(new, new, np.stack([result["v"] for name, result in zip(ids, found) if name in new]))
        vectors = list(store.gather(sorted(store.hashes)))
        names = sorted(store.hashes)
    workspace.write("embeddings", pd.DataFrame({"image_id": names, "embedder": "s", "vector": vectors}))
    workspace.write("truth", pd.DataFrame({"image_id": names, "identity": names}), inputs=("embeddings",))
print("done", flush=True)
"""

TRAINING = """
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
import torch
from ffhqref.training.files import save_whole
from ffhqref.training.loop import train

@dataclass(frozen=True)
class Settings:
    size: int = 300_000

class Task:
    run = SimpleNamespace(steps=150, seed=1, rate=lambda step: 0.1, sample_every=0, save_every=1, accumulate=1)
    runtime = SimpleNamespace(processes=1, rank=0, is_main=True, wait=lambda: None)
    runtime.state_dict, runtime.load_state_dict = dict, lambda state: None
    curve, settings, config = ("loss",), Settings(), SimpleNamespace(to_tree=dict)
    def __init__(self): self.weights = torch.zeros(300_000)
    def step(self, batches, rate, generator):
        self.weights += torch.randn(self.weights.shape, generator=generator) * batches[0]
        return {"loss": float(self.weights.square().mean()) + 1}
    def state_dict(self): return {"weights": self.weights}
    def load_state_dict(self, state): self.weights = state["weights"].clone()
    def export(self, folder):
        save_whole(folder / "made.ckpt", {"weights": self.weights})
        return [folder / "made.ckpt"]

print("go", flush=True)
train(Task(), lambda index, rank, processes: index + 1, Path(sys.argv[1]), key="k")
print("done", flush=True)
"""


def run(program: Path, folder: Path, kill_after: float | None) -> tuple[bool, float]:
    """Run a program, and kill it some time after it is ready; return whether it was killed, and the seconds it had."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(program), str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    start = time.monotonic()
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    left = process.stdout.read()
    process.wait()
    assert kill_after is not None or left == "done\n"
    return left != "done\n", time.monotonic() - start


def killed_and_rerun(text: str, tmp_path: Path, kills: int) -> tuple[Path, Path, int]:
    program = tmp_path / "program.py"
    program.write_text(text)
    _, seconds = run(program, tmp_path / "whole", None)
    draws = random.Random(3)
    count = sum(run(program, tmp_path / "parts", draws.uniform(0.0, seconds / 15))[0] for _ in range(kills))
    run(program, tmp_path / "parts", None)
    return tmp_path / "whole", tmp_path / "parts", count


@pytest.mark.slow
def test_tables_after_kills_are_those_of_an_unbroken_run(tmp_path, record_property):
    whole, parts, count = killed_and_rerun(TABLES, tmp_path, 20)
    record_property("kills", count)
    assert count >= 15
    for name in ("embeddings", "truth"):
        assert tables.table_hash(whole, name) == tables.table_hash(parts, name)
    Workspace(parts).lock()
    one, other = ({path.name: path.read_bytes() for path in (root / "outputs").iterdir()} for root in (whole, parts))
    assert one == other
    assert not [path for path in parts.rglob("*") if "tmp" in path.name]


@pytest.mark.slow
def test_a_training_after_kills_is_an_unbroken_one(tmp_path, record_property):
    import torch

    whole, parts, count = killed_and_rerun(TRAINING, tmp_path, 20)
    record_property("kills", count)
    assert count >= 15
    one, other = (torch.load(root / "made.ckpt", weights_only=True)["weights"] for root in (whole, parts))
    assert torch.equal(one, other)
    assert (whole / "curve.csv").read_text() == (parts / "curve.csv").read_text()
