"""The command restorer as a stage of a run: checks, resuming, content keys."""

import subprocess

import cv2
import numpy as np
import pytest

from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import save_png
from ffhqref.engine import LocalEngine, run_stage
from ffhqref.restorers.runner import RestoreRow, RestoreStage

from .conftest import PROGRAM, RECIPE, calls, faults, pictures


@pytest.fixture
def rows(tmp_path):
    made = []
    for number, picture in enumerate(pictures(4, 512)):
        path = tmp_path / "lq" / f"{number}.png"
        save_png(path, picture)
        made.append(
            {
                "benchmark": "severe", "case_id": f"../odd name {number}", "lq_path": str(path),
                "lq_sha256": sha256_file(path), "reference_paths": [], "reference_sha256": [], "seed": 7, "age": None,
                "out_path": f"out/{number}.png",
            }
        )  # fmt: skip
    return made


def stage_of(checkout, interpreter, tmp_path, **options):
    recipe = {**RECIPE, **options.pop("recipe", {})}
    options = {"recipe": recipe, "checkout": str(checkout), "python": str(interpreter), **options}
    return RestoreStage(tmp_path, "theirs", options, restorer="command", device="cpu")


def test_results_go_through_the_checks_of_all_and_resume(checkout, interpreter, tmp_path, rows):
    faults(checkout, case_1="same", case_2="skip")

    def run(**options):
        stage = stage_of(checkout, interpreter, tmp_path, **options)
        return run_stage(
            stage, [RestoreRow(**row) for row in rows], engine=LocalEngine(2), journal_dir=tmp_path / "journal"
        )

    results = run()
    assert [result.status for result in results] == ["ok", "passthrough", "failed", "ok"]
    assert "equals the input" in results[1].error
    assert "No face in 00002.png" in results[2].error
    assert {result.peak_memory_bytes for result in results} == {None}
    for number in (0, 3):
        wanted = cv2.bilateralFilter(cv2.imread(rows[number]["lq_path"]), 5, 20, 5)
        assert np.array_equal(cv2.imread(str(tmp_path / "out" / f"{number}.png")), wanted)
    assert calls(checkout) == [4], "one program at a time, however many processes"

    assert run() == results
    assert calls(checkout) == [4], "nothing is done twice"
    assert run(recipe={"case_seconds": 9.0}, keep=True) == results, "a time limit changes no result"
    run(recipe={"env": {"MODE": "other"}})
    assert calls(checkout) == [4, 4]
    (checkout / "main.py").write_text(PROGRAM + "# edited\n")
    run()
    assert calls(checkout) == [4, 4, 4]


def test_key_follows_weights_watched_files_and_commit(checkout, interpreter, tmp_path, rows):
    weights = checkout / "net.pth"
    weights.write_bytes(b"1")
    (checkout / "lib").mkdir()
    (checkout / "lib" / "net.py").write_text("1")

    def key():
        recipe = {"weights": {"net.pth": "nowhere"}, "watch": ["lib/*.py"]}
        return stage_of(checkout, interpreter, tmp_path, recipe=recipe).key(RestoreRow(**rows[0]))

    keys = [key()]
    weights.unlink()
    (checkout / "lib" / "net.py").write_text("2")
    weights.write_bytes(b"1")
    keys.append(key())
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a"]
    for command in (["git", "init", "-q"], commit):
        subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    keys.append(key())
    subprocess.run(["git", "pack-refs", "--all"], cwd=checkout, check=True)
    assert key() == keys[-1]
    subprocess.run(commit, cwd=checkout, check=True, capture_output=True)
    keys.append(key())
    subprocess.run(["git", "checkout", "-q", "--detach", "HEAD~1"], cwd=checkout, check=True)
    assert key() == keys[2], "the same commit, detached"
    assert len(set(keys)) == len(keys)
