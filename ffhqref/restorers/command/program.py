"""Running one foreign program: no shell, a time limit for it and all its children, its last words."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ffhqref.core.errors import FfhqrefError
from ffhqref.restorers.command.supervise import GRACE

FOREIGN_TO_IT = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables of our own interpreter that would lead another one astray."""

LINE = 300
"""Characters kept of a program's last line."""


class ProgramError(FfhqrefError):
    """A program that did not end well, or did not do what it was run for; one line."""


class Clock:
    """A time limit in seconds, shared by the programs of one call."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, never less than a little."""
        return max(0.01, self._end - time.monotonic())


def run_program(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], logs: Path, clock: Clock) -> None:
    """Run a program to its end.

    Args:
        argv: the program and its arguments, as they are: there is no shell.
        cwd: its working directory.
        env: all of its environment.
        logs: folder; ``stdout.txt`` and ``stderr.txt`` there are appended to.
        clock: when its time is over, the program and all processes of its group are ended.

    Raises:
        ProgramError: it does not start, takes too long, or ends with another status than 0.
    """
    order = {
        "argv": list(argv), "cwd": str(cwd), "env": dict(env),
        "stdout": str(logs / "stdout.txt"), "stderr": str(logs / "stderr.txt"),
    }  # fmt: skip
    supervisor = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervise.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    try:
        supervisor.stdin.write(json.dumps(order).encode() + b"\n")
        supervisor.stdin.flush()
        supervisor.wait(clock.left)
    except subprocess.TimeoutExpired:
        raise ProgramError(
            f"{program_name(argv)} took longer than {clock.seconds:g} s and was ended" + _words(logs)
        ) from None
    finally:
        with contextlib.suppress(OSError):
            supervisor.stdin.close()  # which ends the program where it still runs
        with contextlib.suppress(subprocess.TimeoutExpired):
            supervisor.wait(2 * GRACE)
        report = supervisor.stdout.read() if supervisor.poll() is not None else b""
        supervisor.stdout.close()
    _judge(program_name(argv), report, logs)


def _judge(name: str, report: bytes, logs: Path) -> None:
    facts = json.loads(report) if report.strip() else {"error": "its supervising process was ended"}
    if "error" in facts:
        raise ProgramError(f"{name} did not start: {facts['error']}")
    status = int(facts["status"])
    if status < 0:
        raise ProgramError(f"{name} was ended by signal {-status} ({signal.Signals(-status).name})" + _words(logs))
    if status:
        raise ProgramError(f"{name} ended with status {status}" + _words(logs))


def program_name(argv: Sequence[str]) -> str:
    """Return what to call a program: its script where an interpreter runs one.

    >>> program_name(["/env/bin/python", "-u", "/code/inference.py", "--input", "a.py"]), program_name(["/bin/true"])
    ('inference.py', 'true')
    """
    script = next((argument for argument in argv[1:] if argument.endswith((".py", ".sh"))), argv[0])
    return Path(script).name


def last_words(logs: Path) -> str:
    """Return the last line that a program wrote to standard error, or else to standard output; empty: none."""
    for name in ("stderr.txt", "stdout.txt"):
        path = logs / name
        if not path.is_file():
            continue
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 65536))
            text = stream.read().decode("utf-8", "replace")
        # progress bars end their lines with a carriage return, and colour them
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        lines = [" ".join(line.split()) for line in re.split(r"[\r\n]+", plain)]
        for line in reversed(lines):
            if any(character.isalnum() for character in line):
                return "".join(character for character in line if character.isprintable())[:LINE]
    return ""


def _words(logs: Path) -> str:
    words = last_words(logs)
    return f": {words}" if words else ""


def environment(python: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a foreign program: ours without what is our interpreter's own.

    Args:
        python: its interpreter, whose folder comes first in ``PATH``, as in an activated environment.
        given: variables of the recipe.
    """
    made = {name: value for name, value in os.environ.items() if name not in FOREIGN_TO_IT}
    if python is not None:
        made["PATH"] = os.pathsep.join([str(Path(python).parent), made.get("PATH", os.defpath)])
    return {**made, **given}
