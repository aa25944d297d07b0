"""A server that forks processes of the command line, so that torch is imported once and not by each.

``python -m tests.forked FD`` listens on a socket. Each message starts one command; `tests.command` sends them.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys

LIBRARIES = (
    "cv2", "dlib", "hydra", "jinja2", "numpy", "omegaconf", "pandas", "PIL.Image", "pyarrow.dataset", "pyarrow.parquet",
    "pydantic", "safetensors.torch", "scipy.ndimage", "scipy.sparse.csgraph", "scipy.spatial", "torch", "yaml",
    "ffhqref.config.run", "ffhqref.config.source", "ffhqref.metrics", "ffhqref.reference_sets.plan",
)  # fmt: skip
"""What most commands import; nothing in it reads the environment while it is imported."""


def serve(connection: socket.socket) -> None:
    """Start a command for each message until the other end closes."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            return
        if os.fork() == 0:
            connection.close()
            keep(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def keep(order: dict[str, object], out: int, err: int, status: int) -> None:
    """Run the command in a child; write its process id and then its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(status)
        run(order, out, err)
    for descriptor in (out, err):
        os.close(descriptor)
    os.write(status, f"{child}\n".encode())
    _, ended = os.waitpid(child, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os._exit(0)


def run(order: dict[str, object], out: int, err: int) -> None:
    """Become the command: as after exec, but for the libraries."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if order["terminal"]:
        os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(str(order["folder"]))
    environment = order["environment"]
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    path = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = ["", *path, *(entry for entry in sys.path if entry not in path and entry)]
    sys.argv = ["ffhqref", *order["arguments"]]  # type: ignore[misc]
    command = importlib.import_module("ffhqref.cli.main")
    sys.modules["__main__"] = command  # what the engine's workers import
    sys.exit(command.main())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name in LIBRARIES:
        importlib.import_module(name)
    serve(socket.socket(fileno=int(sys.argv[1])))
