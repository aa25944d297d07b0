"""The command restorer's program: an OpenCV script, run by an interpreter of another environment."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.restorers import PartialResult, RestorationBatch
from ffhqref.restorers.command.restorer import CommandRestorer

SIDE = 64

PROGRAM = '''
"""A published method's script, as they are: reads a folder, writes a folder, prints, and has its weak spots."""
import argparse, json, os, signal, subprocess, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--input", type=Path)
parser.add_argument("--output", type=Path)
args = parser.parse_args()

here = Path(__file__).parent
with open(here / "calls.txt", "a") as log:
    log.write(" ".join(sorted(path.stem for path in args.input.iterdir())) + "\\n")
(here / "seen.json").write_text(json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "prefix": sys.prefix}))
faults = json.loads((here / "faults.json").read_text())
print("loading weights")
if faults.get("start"):
    sys.exit("RuntimeError: no CUDA GPUs are available")

import cv2

paths = sorted(args.input.iterdir())
made = {}
for path in paths:
    picture = cv2.imread(str(path))
    fault = faults.get(str(picture[0, 0, 0]))
    print("restoring", path.name, flush=True)
    target = args.output / path.name
    if fault == "crash":
        print("\\r 10%|#         | 1/9", end="\\r", file=sys.stderr)
        raise ValueError(f"cannot find a face in {path}")
    if fault == "status":
        os._exit(3)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (here / "pids.txt").write_text(f"{os.getpid()} {child.pid}")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if fault == "skip":
        print(f"No face in {path.name}, continue", file=sys.stderr)
        continue
    restored = cv2.bilateralFilter(picture, 5, 20, 5)
    if fault == "same":
        restored = picture
    if fault == "small":
        restored = cv2.resize(restored, (32, 32))
    if fault == "text":
        target.write_text("no picture")
    elif fault == "half":
        data = cv2.imencode(".png", restored)[1].tobytes()
        target.write_bytes(data[: len(data) // 2])
    elif fault == "link":
        os.symlink("/etc/hostname", target)
    elif fault == "directory":
        target.mkdir()
    else:
        made[target] = restored
        if fault == "extra":
            made[args.output / "00077.png"] = restored
names = list(made)
if faults.get("one off"):
    names = [path.with_name(f"{int(path.stem) + 1:05d}.png") for path in names]
for name, picture in zip(names, made.values()):
    cv2.imwrite(str(name), picture)
'''


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory):
    """An environment of its own, with OpenCV and none of ffhqref."""
    folder = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    libraries = {str(Path(importlib.util.find_spec(name).origin).parents[1]) for name in ("cv2", "numpy")}
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text("\n".join(sorted(libraries)))
    return folder / "bin" / "python"


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "their code; $(touch never) 'and' more"
    folder.mkdir()
    (folder / "main.py").write_text(PROGRAM)
    faults(folder)
    return folder


def faults(checkout, **by_case):
    """Set what goes wrong: ``case_2="crash"`` with the case whose corner is 2, other words with the whole program."""
    (checkout / "faults.json").write_text(json.dumps({k.removeprefix("case_"): v for k, v in by_case.items()}))
    (checkout / "calls.txt").unlink(missing_ok=True)


def calls(checkout):
    path = checkout / "calls.txt"
    return [len(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


RECIPE = {
    "lq": "input/{id}.png",
    "commands": [["{python}", "main.py", "--input", "{run}/input", "--output", "{run}/output"]],
    "output": "output/{id}.png",
    "info": {"name": "theirs", "input_size": None, "summary": "bilateral filter"},
}


def pictures(count, side=SIDE):
    """Return images that differ, each with its number in a corner."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        picture = cv2.resize(rng.integers(30, 220, (8, 8, 3), dtype=np.uint8), (side, side))
        picture = np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
        picture[0, 0] = number
        made.append(picture)
    return made


def batch_of(count, references=(), ages=None, seeds=None):
    shown = [to_tensor(list(strip)) if len(strip) else torch.zeros(0, 3, SIDE, SIDE) for strip in references]
    return RestorationBatch(
        lq=to_tensor(pictures(count)),
        references=shown or [torch.zeros(0, 3, SIDE, SIDE)] * count,
        seeds=seeds or list(range(count)),
        case_ids=[str(number) for number in range(count)],
        ages=ages,
    )


@pytest.fixture
def theirs(checkout, interpreter, tmp_path):
    (tmp_path / "scratch").mkdir()

    def make(python=interpreter, folder=checkout, **options):
        recipe = {**RECIPE, **options.pop("recipe", {})}
        return CommandRestorer(recipe, folder, str(python), scratch=tmp_path / "scratch", **options)

    return make


def outcome(restorer, batch):
    """Return the 8-bit images and the reasons."""
    made = restorer.restore(batch)
    if isinstance(made, PartialResult):
        return to_uint8(made.images), dict(made.reasons)
    return to_uint8(made), {}


def expected(count):
    return [cv2.bilateralFilter(one[..., ::-1], 5, 20, 5)[..., ::-1] for one in pictures(count)]


def all_but(made, failed):
    for number, picture in enumerate(expected(len(made))):
        assert number in failed or np.array_equal(made[number], picture), number


def scratch_is_empty(tmp_path):
    return not list((tmp_path / "scratch").iterdir())
