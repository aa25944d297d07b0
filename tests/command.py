"""The command line as tests run it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
STAGED = ("run", "build", "audit", "degrade", "restore", "score", "report", "synthesize", "prepare", "faceme")
"""Pipelines that start a worker for each core if not told otherwise; each worker imports torch."""


@functools.cache
def server() -> socket.socket:
    """Start the server of this process; it ends when this process does."""
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return ours


class Process:
    """A started command, with what tests need of `subprocess.Popen`."""

    def __init__(
        self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str], *, terminal: bool
    ) -> None:
        self.args = ["ffhqref", *arguments]
        self.returncode: int | None = None
        self._files = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115 read at the end
        order = {"folder": str(folder), "arguments": arguments, "environment": environment, "terminal": terminal}
        reader, writer = os.pipe()
        self._status = os.fdopen(reader, "rb", buffering=0)
        socket.send_fds(server(), [json.dumps(order).encode()], [*(file.fileno() for file in self._files), writer])
        os.close(writer)
        self.pid = int(self._line())

    def _line(self) -> bytes:
        line = self._status.readline()
        assert line, "the server of tests/forked.py has ended"
        return line

    def poll(self) -> int | None:
        """Return the exit status, None while the command runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._line())
            self._status.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end and return all that the command wrote."""
        self.wait(timeout)
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode())
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Send a signal to the command if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the command if it still runs."""
        self.send_signal(signal.SIGKILL)


class Command:
    """Runs ``ffhqref`` as a user would, from this checkout; without workers unless told of an engine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: str, env: dict[str, str] | None = None, terminal: bool = False) -> Process:
        """Start the command and return the process; as a terminal would, at the head of a process group of its own."""
        if arguments and arguments[0] in STAGED and not any(given.startswith(("engine", "-")) for given in arguments):
            arguments = (*arguments, "engine.workers=0")
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **(env or {})}
        return Process(self.folder, arguments, environment, terminal=terminal)

    def __call__(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        process = self.start(*arguments, env=env)
        out, err = process.communicate(timeout=500)
        assert process.returncode is not None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
