"""Run one external program: no shell, a time limit for it and its children, its last words."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ffhqref.core.errors import FfhqrefError

FOREIGN_TO_IT = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables of our own interpreter that would lead another one astray."""

LINE = 300
"""Characters kept of a program's last line."""

GRACE = 3.0
"""Seconds between asking a program to end and killing it."""


class ProgramError(FfhqrefError):
    """A program that did not end well, or did not do what it was run for; one line."""


def run_program(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], logs: Path, end: float, limit: float
) -> None:
    """Run a program to its end, in a process group of its own.

    Args:
        argv: the program and its arguments, as they are: there is no shell.
        cwd: its working directory.
        env: all of its environment.
        logs: folder; ``stdout.txt`` and ``stderr.txt`` there are appended to.
        end: value of `time.monotonic` at which all processes of the group are killed.
        limit: seconds that led to ``end``, for the message.

    Raises:
        ProgramError: it does not start, takes too long, or ends with another status than 0.
    """
    name = program_name(argv)
    try:
        with (logs / "stdout.txt").open("ab") as out, (logs / "stderr.txt").open("ab") as err:
            program = subprocess.Popen(
                list(argv), cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise ProgramError(f"{name} did not start: {error.strerror or error}: {error.filename or argv[0]}") from None
    try:
        status = program.wait(max(0.01, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{name} took longer than {limit:g} s and was ended" + _words(logs)) from None
    finally:
        _end(program)
    if status < 0:
        raise ProgramError(f"{name} was ended by signal {-status} ({signal.Signals(-status).name})" + _words(logs))
    if status:
        raise ProgramError(f"{name} ended with status {status}" + _words(logs))


def _end(program: subprocess.Popen[bytes]) -> None:
    """End a program if it runs, and everything it left behind."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGTERM)
            program.wait(GRACE)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()


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
