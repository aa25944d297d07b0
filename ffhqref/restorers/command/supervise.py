"""Stands between ffhqref and a foreign program, as a process of its own (run as a script, with nothing imported).

It starts the program in a process group of its own, and ends that whole group when the program has ended or when
standard input closes: because ffhqref closed it (time over, Ctrl-C), or because ffhqref is no more (``kill -9``). So
no program goes on working on a GPU for nobody.

Standard input: one line of JSON with ``argv``, ``cwd``, ``env``, ``stdout`` and ``stderr`` (files to append to).
Standard output: one line of JSON with ``status``, the program's exit status (negative: the signal that ended it), or
``error``, why it did not start.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

GRACE = 3.0
"""Seconds between asking a program to end and ending it."""


def main() -> None:
    """Run one program; see the module."""
    order = json.loads(sys.stdin.buffer.readline())
    try:
        with open(order["stdout"], "ab") as out, open(order["stderr"], "ab") as err:  # noqa: PTH123
            program = subprocess.Popen(
                order["argv"], cwd=order["cwd"], env=order["env"], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        report(error=f"{error.strerror or error}: {error.filename or order['argv'][0]}")
    threading.Thread(target=follow, args=(program,), daemon=True).start()
    while os.read(0, 4096):
        pass
    end(program, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(GRACE)
    end(program, signal.SIGKILL)
    report(status=program.wait())


def follow(program: "subprocess.Popen[bytes]") -> None:
    """Wait for the program's end, end what it left behind, and report."""
    status = program.wait()
    end(program, signal.SIGKILL)
    report(status=status)


def end(program: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
    """Send a signal to every process of the program's group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, how)


def report(**facts: Any) -> None:
    """Write the report and end this process, whatever its threads are at."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(facts).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    main()
