"""What the command restorer makes of what its program leaves: good, bad and missing outputs, crashes."""

import json
import os
import sys

import pytest

from .conftest import all_but, batch_of, calls, faults, outcome, scratch_is_empty


def test_one_call_restores_all_cases_exactly(theirs, checkout, tmp_path):
    made, reasons = outcome(theirs(), batch_of(5))
    assert reasons == {}
    assert calls(checkout) == [5]
    all_but(made, set())
    assert scratch_is_empty(tmp_path)


def test_program_has_its_own_environment_and_no_shell(theirs, checkout, interpreter, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/of/ours")
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/of/ours")
    outcome(theirs(recipe={"env": {"MODE": "{steps} in {checkout}"}}, parameters={"steps": 7}), batch_of(1))
    seen = json.loads((checkout / "seen.json").read_text())
    assert seen["prefix"] == str(interpreter.parents[1]) != sys.prefix
    assert seen["cwd"] == str(checkout)
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & seen["env"].keys()
    assert seen["env"]["MODE"] == f"7 in {checkout}"
    assert seen["env"]["PATH"].split(os.pathsep)[0] == str(interpreter.parent)
    assert not (checkout / "never").exists()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("crash", "main.py ended with status 1: ValueError: cannot find a face in {run}/input/00000.png"),
        ("status", "main.py ended with status 3: restoring 00000.png"),
        ("kill", "main.py was ended by signal 9 (SIGKILL): restoring 00000.png"),
    ],
)
def test_a_crash_takes_no_neighbour_along(theirs, checkout, tmp_path, fault, words):
    faults(checkout, case_2=fault)
    made, reasons = outcome(theirs(), batch_of(6 if fault == "crash" else 3))
    assert reasons == {2: words}
    all_but(made, {2})
    assert calls(checkout) == ([6] + [1] * 6 if fault == "crash" else [3, 1, 1, 1]), "each alone"
    assert scratch_is_empty(tmp_path)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("skip", "wrote no output/00002.png; its last line: No face in 00002.png, continue"),
        ("small", "wrote output/00002.png with 32x32 pixels, expected 64x64"),
        ("text", "wrote what cannot be used: not an image: output/00002.png"),
        ("half", "wrote what cannot be used: cannot be read"),
        ("link", "wrote output/00002.png as a link that leaves the folder of the call"),
        ("directory", "wrote no output/00002.png"),
    ],
)
def test_a_bad_output_after_a_good_end_is_told_and_not_tried_again(theirs, checkout, fault, words):
    faults(checkout, case_2=fault)
    made, reasons = outcome(theirs(), batch_of(4))
    assert list(reasons) == [2]
    assert reasons[2].startswith(words)
    all_but(made, {2})
    assert calls(checkout) == [4]


def test_names_of_no_case_make_a_call_suspect(theirs, checkout):
    faults(checkout, case_2="extra")
    made, reasons = outcome(theirs(), batch_of(4))
    assert list(reasons) == [2]
    assert "wrote output/00077.png, which belongs to no case" in reasons[2]
    all_but(made, {2})

    faults(checkout, **{"one off": True})  # every output under its neighbour's name
    _, reasons = outcome(theirs(), batch_of(2))
    assert len(reasons) == 2
    assert all("names cannot be trusted" in reason for reason in reasons.values())


def test_what_never_works_is_given_up_soon(theirs, checkout):
    faults(checkout, start=True)
    _, reasons = outcome(theirs(), batch_of(40))
    assert len(reasons) == 40
    assert calls(checkout) == [40, 1, 1, 1, 1, 1]
    told = "main.py ended with status 1: RuntimeError: no CUDA GPUs are available"
    assert all(reason.startswith(told) for reason in reasons.values())
    assert sum("not tried alone" in reason for reason in reasons.values()) >= 30


def test_a_good_case_among_many_bad_ones_is_found(theirs, checkout):
    faults(checkout, **{f"case_{number}": "crash" for number in range(6) if number != 5})
    made, reasons = outcome(theirs(), batch_of(6))
    assert sorted(reasons) == list(range(5))
    all_but(made, set(range(5)))


def test_logs_of_failed_calls_can_be_kept(theirs, checkout, tmp_path):
    faults(checkout, case_0="skip")
    _, reasons = outcome(theirs(keep=True), batch_of(2))
    (folder,) = (tmp_path / "scratch").iterdir()
    assert str(folder) in reasons[0]
    assert "No face" in (folder / "logs" / "stderr.txt").read_text()
    assert (folder / "run" / "input" / "00000.png").is_file()
