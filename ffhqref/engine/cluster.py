"""The Ray engine: batches on the machines of a Ray cluster, with the results that one machine would give.

Nodes share a file system: each must see the workspace, the files that options name and ffhqref itself under the same
paths. That is checked when the cluster is first used, as is that all have the same versions of packages. Journals are
written by this process alone, so a run may go on with another engine at any time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ffhqref
from ffhqref.core.errors import ConfigError, DependencyError, EngineError, one_line
from ffhqref.engine.base import Results, Stage
from ffhqref.engine.ray_crew import Crew
from ffhqref.engine.ray_worker import Site, remote_parts
from ffhqref.engine.worker import usable_cores

if TYPE_CHECKING:
    from ffhqref.engine.base import Results, ResultT, RowT, Stage

OBJECT_STORE = 128 * 2**20
"""Bytes of shared memory of a cluster that is started here: rows and results are small, images travel as files."""

_MARKER = ".ray-sees-"


class RayEngine:
    """Batches on a Ray cluster.

    Workers that end abruptly are replaced and their batches tried again; see `ffhqref.engine.ray_crew`. Nothing is
    started before there is work. Where this process is connected to a cluster already (a notebook), that one is used
    and stays.

    Args:
        address: ``auto``: the cluster that this machine belongs to; ``HOST:PORT``: that of a head node; None: a cluster
            of this machine alone, which ends with the engine.
        workers: at most so many at once; None: one for each CPU of the cluster, and for stages with networks on GPUs
            one for each GPU (or part of one, as `Stage` says).
        cpus_per_worker: CPUs, and threads, of a worker.
        retries: times that a batch is tried again after it ended its worker.
        root: the workspace, which every node must see.
        places: other files and folders that every node must see.

    Raises:
        ConfigError: a number out of range, or an address of Ray's client.
    """

    distributed = True

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        *,
        cpus_per_worker: int = 1,
        retries: int = 3,
        root: str | Path | None = None,
        places: Sequence[str | Path] = (),
    ) -> None:
        numbers = {"workers": (workers, 1), "cpus_per_worker": (cpus_per_worker, 1), "retries": (retries, 0)}
        for name, (value, least) in numbers.items():
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ConfigError(f"engine.{name}={value}: expected a whole number of at least {least}")
        if address is not None and (not isinstance(address, str) or "://" in address or not address):
            raise ConfigError(
                f"engine.address={address}: expected null, auto or HOST:PORT, on a machine of the cluster itself"
            )
        self.address, self.workers = address, usable_cores()
        self._most, self._cpus, self._retries = workers, cpus_per_worker, retries
        self._root = None if root is None else Path(root).expanduser().absolute()
        self._places = [Path(ffhqref.__file__).parent, *places]
        self._marker: Path | None = None
        self._connected = self._ours = False
        self._crew: tuple[tuple[float, bool], Crew] | None = None

    def imap(
        self, stage: Stage[RowT, ResultT], batches: Sequence[Sequence[RowT]]
    ) -> Iterator[tuple[int, Results[ResultT]]]:
        """Yield (index of the batch, its results) as they finish.

        Raises:
            EngineError: the cluster is not there, has no room, does not see the workspace, or rows ended their workers
                again and again; the last only after all other rows are done.
        """
        if not batches:
            return
        self.connect()
        gpus = stage.gpus
        # a GPU stage already has one worker for each GPU; others that go one at a time get one worker in all
        alone = not gpus and stage.one_at_a_time
        if self._crew is None or self._crew[0] != (gpus, alone):
            self._dismiss()
            self._crew = ((gpus, alone), self._new_crew(gpus, alone))
        yield from self._crew[1].imap(stage, batches)

    def connect(self) -> None:
        """Join the cluster, or start one, and check its nodes; done once.

        Raises:
            DependencyError: Ray is not installed.
            EngineError: see `imap`.
        """
        if self._connected:
            return
        close_token()
        if self.address is None:
            stay_private()  # before Ray is imported
        ray = _ray()
        if not ray.is_initialized():
            self._join(ray)
            self._ours = True
        self._connected = True
        if self._root is not None:
            for stale in self._root.glob(f"{_MARKER}*"):
                stale.unlink(missing_ok=True)
            handle, marker = tempfile.mkstemp(prefix=_MARKER, dir=self._root)
            os.close(handle)
            self._marker = Path(marker)
        if self.address is not None:  # a cluster of this machine is checked well enough by its workers
            self._check_nodes(ray)

    @property
    def gpus(self) -> int:
        """How many GPUs the cluster has."""
        self.connect()
        return int(_ray().cluster_resources().get("GPU", 0))

    def close(self) -> None:
        """End the workers, leave the cluster, and end it when it was started here."""
        if not self._connected:
            return
        self._dismiss()
        if self._marker is not None:
            self._marker.unlink(missing_ok=True)
        if self._ours:
            _ray().shutdown()
        self._connected = self._ours = False

    def _join(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "include_dashboard": None}
        if self.address is None:
            count = usable_cores() if self._most is None else self._most * self._cpus
            options |= {
                "address": "local",
                "num_cpus": count,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE,
                "_temp_dir": str(session_folder()),
            }
        else:
            options["address"] = self.address
            _knock(self.address)
        try:
            ray.init(**options)
        except Exception as error:  # noqa: BLE001 - Ray raises its own and the system's
            if self.address is None:
                raise EngineError(f"engine=ray: no cluster could be started here ({one_line(error)})") from None
            raise EngineError(
                f"engine.address={self.address}: no Ray cluster could be joined ({one_line(error)}); start one with "
                "'ray start --head', or leave engine.address=null for this machine alone"
            ) from None

    def _check_nodes(self, ray: Any) -> None:
        """Ask every node whether it will do."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        settle, _ = remote_parts()
        probe = ray.remote(settle)
        nodes = [node["NodeID"] for node in _nodes(ray)]
        if not nodes:
            raise EngineError("engine=ray: the cluster has no node with CPUs")
        asked = [
            probe.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                self._site().plain()
            )
            for node in nodes
        ]
        for reference in asked:
            with suppress(ray.exceptions.RayError):  # a node that just left
                self._check(ray.get(reference))

    def _check(self, found: Mapping[str, Any]) -> None:
        """Refuse a node on which results would differ or fail."""
        from ffhqref.store.tables import package_versions

        if found["absent"]:
            lost = found["absent"][0]
            name = f"the workspace {self._root}" if lost == str(self._marker) else lost
            raise EngineError(
                f"engine=ray: node {self._host(found['node'])} does not see {name}; put it on a file system that all "
                "nodes share under the same path"
            )
        if found["error"]:
            raise EngineError(
                f"engine=ray: node {self._host(found['node'])} cannot import ffhqref ({found['error']}); the same "
                "environment is needed on every node"
            )
        for name, version in package_versions().items():
            there = found["packages"].get(name, "no")
            if there.partition("+")[0] != version.partition("+")[0]:
                raise EngineError(
                    f"engine=ray: node {self._host(found['node'])} has {there} {name}, this process {version}; results "
                    "could differ, so the same versions are needed on every node"
                )

    def _host(self, node_id: str) -> str:
        nodes = {node["NodeID"]: node for node in _ray().nodes()}
        found = nodes.get(node_id, {})
        return f"{found.get('NodeManagerHostname', '?')} ({found.get('NodeManagerAddress', node_id)})"

    def _site(self) -> Site:
        places = [*([] if self._marker is None else [self._marker]), *self._places]
        return Site.here(places, self._cpus)

    def _new_crew(self, gpus: float, alone: bool) -> Crew:
        ray = _ray()
        _, worker = remote_parts()
        # on a GPU node the GPUs are what is short: each is used, however few CPUs there are
        resources = {"num_gpus": gpus, "num_cpus": 0} if gpus else {"num_cpus": self._cpus}
        actor = ray.remote(worker).options(max_restarts=0, **resources)
        room = self._room(gpus, 1 if alone else self._most)
        if not room():
            needs = f"{gpus:g} GPUs" if gpus else f"engine.cpus_per_worker={self._cpus} CPUs"
            raise EngineError(f"engine=ray: no node of the cluster has {needs}, which every worker needs")
        return Crew(actor, self._site(), self._check, room, self._retries)

    def _room(self, gpus: float, most: int | None) -> Callable[[], int]:
        kind, share = ("GPU", gpus) if gpus else ("CPU", float(self._cpus))

        def room() -> int:
            count = sum(int(node["Resources"].get(kind, 0) / share) for node in _nodes(_ray()))
            return count if most is None else min(count, most)

        return room

    def _dismiss(self) -> None:
        if self._crew is not None:
            self._crew[1].dismiss()
            self._crew = None


def close_token() -> None:
    """Take the rights of others from Ray's token file, which Ray writes with the user's umask."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    with contextlib.suppress(OSError):  # none there, or somebody else's
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def stay_private() -> None:
    """Have a cluster of this machine listen on the loopback alone, and ask for a token that lies in no file."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # despite its name: no other machine may join
    if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token" and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def session_folder() -> Path:
    """Return a folder for Ray's sessions below one that only this user may enter: Ray opens its own to everybody.

    Raises:
        EngineError: somebody else made it.
    """
    base = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())  # noqa: S108 - sockets need short paths
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = base / f"ffhqref-{user}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != user):
        raise EngineError(f"engine=ray: {folder} is not this user's folder; have its owner remove it")
    folder.chmod(0o700)
    return folder / "ray"


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reports the use of clusters to its makers otherwise
    try:
        import ray
    except ImportError:
        raise DependencyError("engine=ray needs Ray: pip install 'ffhqref[ray]'") from None
    return ray


def _nodes(ray: Any) -> list[dict[str, Any]]:
    """Return the living nodes that take work."""
    return [node for node in ray.nodes() if node["Alive"] and {"CPU", "GPU"} & set(node["Resources"])]


def _knock(address: str) -> None:
    """Refuse an address at which no one listens; Ray itself would try for minutes.

    Raises:
        EngineError: with the reason.
    """
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = named.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except OSError as error:
        raise EngineError(
            f"engine.address={address}: no Ray cluster at {named} ({error.strerror or error}); start one with "
            "'ray start --head', or leave engine.address=null for this machine alone"
        ) from None
