"""The golden set that travels with the repository is small, passes, and is what its program makes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

from .conftest import GOLDEN, REPOSITORY, SMALL_GOLDEN
from .golden.make import SETS
from .zoo.golden_tools import read_json, relative


def test_it_is_small_and_made_without_ours():
    assert sum(path.stat().st_size for path in SMALL_GOLDEN.rglob("*") if path.suffix != ".pyc") <= 3e6
    source = (SMALL_GOLDEN / "make.py").read_text(encoding="utf-8")
    assert re.findall(r"(?:from|import) (ffhqref\S*)", source) == ["ffhqref.core.compat"]


@pytest.mark.slow
@pytest.mark.skipif(GOLDEN.resolve() == SMALL_GOLDEN, reason="the golden tests of this run read it already")
def test_golden_tests_pass_with_it():
    environment = {**os.environ, "FFHQREF_GOLDEN": str(SMALL_GOLDEN)}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "golden and not slow", "-p", "no:cacheprovider"]
    command += [str(path) for path in (REPOSITORY / "tests").rglob("test_*.py") if "mark.golden" in path.read_text()]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 30, done.stdout


@pytest.mark.slow
def test_its_program_makes_it(tmp_path):
    command = [sys.executable, "-m", "tests.golden.make", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stored = sorted(path.relative_to(SMALL_GOLDEN) for name in SETS for path in (SMALL_GOLDEN / name).iterdir())
    assert stored == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for name in stored:
        path, again = SMALL_GOLDEN / name, tmp_path / name
        if path.suffix == ".safetensors":
            made, tensors = load_file(again), load_file(path)
            assert made.keys() == tensors.keys()
            for key, value in tensors.items():
                assert relative(made[key].double(), value.double()) < (0.01 if "u8" in key else 1e-4), key
        elif path.suffix == ".png":
            assert np.abs(cv2.imread(str(again)).astype(int) - cv2.imread(str(path))).max() <= 1
        elif path.name.startswith(("config", "keys", "weights")):
            assert again.read_text() == path.read_text()


def test_its_cases_name_files_that_are_there():
    for path in SMALL_GOLDEN.glob("*/cases.json"):
        cases = read_json(path)
        for case in cases if isinstance(cases, list) else cases["cases"]:
            for file in (case.get("file"), case.get("output")):
                assert file is None or (path.parent / file).is_file()
