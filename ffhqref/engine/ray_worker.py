"""What runs inside Ray's processes.

Ray starts them anywhere in the cluster, with an environment and a search path of their own, in which ffhqref may not be
found. So both parts are made inside a function, which sends them by value, and import nothing of ours before they have
taken over the path, the environment and the folder of the process that hands out the work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PREFIXES = (
    "FFHQREF_", "TORCH", "PYTORCH_", "HF_", "TRANSFORMERS_", "INSIGHTFACE_", "XDG_CACHE_HOME", "ORT_", "PYTHONPATH",
)  # fmt: skip
"""Of environment variables that say where weights lie and what may be fetched; a local worker inherits them."""


@dataclass(frozen=True)
class Site:
    """What a worker on another machine must share with the process that hands out the work."""

    path: list[str]
    """Modules are searched here first, in this order: the checkout, its environment, plug-ins."""
    environment: dict[str, str]
    folder: str
    """Relative paths of options start here."""
    places: list[str]
    """Files and folders that each node must see."""
    threads: int

    @classmethod
    def here(cls, places: Sequence[str | Path], threads: int) -> Site:
        """Return that of this process."""
        return cls(
            path=[str(Path(entry or ".").absolute()) for entry in sys.path],
            environment={name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)},
            folder=str(Path.cwd()),
            places=[str(place) for place in places],
            threads=threads,
        )

    def plain(self) -> dict[str, Any]:
        """Return it for a process that does not know this class yet."""
        return asdict(self)


def remote_parts() -> tuple[Callable[[dict[str, Any]], dict[str, Any]], type]:
    """Return the function that makes a process at home, and the class of the actors; both are sent by value."""

    def settle(site: dict[str, Any]) -> dict[str, Any]:
        """Return the ``node``, what is ``absent`` on it, and else the versions of its ``packages`` or an ``error``."""
        import os
        import sys

        import ray

        absent = [place for place in site["places"] if not os.path.exists(place)]  # noqa: PTH110
        node = ray.get_runtime_context().get_node_id()
        found = {"node": node, "absent": absent, "packages": {}, "error": None}
        if absent:
            return found
        sys.path[:] = list(dict.fromkeys([*site["path"], *sys.path]))
        os.environ.update(site["environment"])
        if os.path.isdir(site["folder"]):  # noqa: PTH112
            os.chdir(site["folder"])
        try:
            from ffhqref.engine.worker import prepare
            from ffhqref.store.tables import package_versions

            prepare(site["threads"])
            return {**found, "packages": package_versions()}
        except ImportError as error:
            return {**found, "error": f"{type(error).__name__}: {error}"}

    class Worker:
        """One process of the cluster: settled once, then a stage at a time."""

        def settle(self, site: dict[str, Any]) -> dict[str, Any]:
            """Make this process at home."""
            return settle(site)

        def begin(self, packed: bytes) -> None:
            """Set up a stage."""
            from ffhqref.engine.worker import stage_of

            self.stage = stage_of(packed)

        def process(self, rows: list[Any]) -> list[dict[str, Any]]:
            """Process a batch."""
            return self.stage.process(rows)

    return settle, Worker
