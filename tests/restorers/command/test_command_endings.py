"""How the command restorer's program ends: time limit, Ctrl-C, a killed run, and its last words."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ffhqref.restorers.command.program import last_words

from .conftest import RECIPE, batch_of, faults, outcome, scratch_is_empty


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def gone(checkout, seconds=10.0):
    pids = [int(pid) for pid in (checkout / "pids.txt").read_text().split()]
    assert len(pids) == 2
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


@pytest.mark.slow
def test_time_limit_ends_the_program_and_its_children(theirs, checkout, tmp_path):
    faults(checkout, case_0="hang")
    restorer = theirs(recipe={"start_seconds": 19.5, "case_seconds": 0.5})  # time to start on a busy machine
    _, reasons = outcome(restorer, batch_of(1))
    assert reasons == {0: "main.py took longer than 20 s and was ended: restoring 00000.png"}
    assert gone(checkout)
    assert scratch_is_empty(tmp_path)


def interrupted(checkout, how, code):
    """Run a program of ours until theirs hangs, send it a signal, and return what it said."""
    ours = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while not (checkout / "pids.txt").exists() and time.monotonic() < end and ours.poll() is None:
            time.sleep(0.05)
        ours.send_signal(how)
        return ours.communicate(timeout=30)[1]
    finally:
        ours.kill()


def test_ctrl_c_ends_the_program_and_leaves_nothing(checkout, interpreter, tmp_path):
    faults(checkout, case_0="hang")
    code = f"""
        import torch
        from ffhqref.restorers import RestorationBatch
        from ffhqref.restorers.command.restorer import CommandRestorer
        restorer = CommandRestorer({RECIPE!r}, {str(checkout)!r}, {str(interpreter)!r}, scratch={str(tmp_path)!r})
        restorer.restore(RestorationBatch(torch.zeros(1, 3, 8, 8), [torch.zeros(0, 3, 8, 8)], [1], ["a"]))
        """
    assert "KeyboardInterrupt" in interrupted(checkout, signal.SIGINT, code)
    assert gone(checkout)
    assert not list(tmp_path.glob("ffhqref-*"))


def test_last_words_are_the_last_line_with_words(tmp_path):
    assert last_words(tmp_path) == ""
    (tmp_path / "stdout.txt").write_text("hello\n")
    (tmp_path / "stderr.txt").write_text(" \n---\n")
    assert last_words(tmp_path) == "hello"
    (tmp_path / "stderr.txt").write_bytes(b"10%\r100%|####|\r\x1b[31mKeyError:\x1b[0m 'a\xff'\n\n----\n")
    assert last_words(tmp_path) == "KeyError: 'a�'"
    (tmp_path / "stderr.txt").write_text("x" * 10**5)
    assert last_words(tmp_path) == "x" * 300
