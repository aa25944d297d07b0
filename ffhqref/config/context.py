"""What every pipeline needs: the checked config, the workspace, the engine and the reporter."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.config.inputs import check_inputs
from ffhqref.config.parts import check_parts
from ffhqref.config.run import RunConfig, read_config
from ffhqref.core.errors import ConfigError
from ffhqref.core.options import options_of
from ffhqref.core.progress import Reporter
from ffhqref.core.trackers import Trackers
from ffhqref.engine import ENGINES, Engine, RayEngine, Stage, rehearse_stage, run_stage
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store.workspace import Workspace

if TYPE_CHECKING:
    from ffhqref.engine.base import ResultT, RowT


@dataclass(frozen=True)
class Context:
    """One run of one or more pipelines."""

    config: RunConfig
    workspace: Workspace
    engine: Engine
    reporter: Reporter
    trackers: Trackers

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    @property
    def limit(self) -> int | None:
        """At most this many test targets, or None."""
        return self.config.limit

    @property
    def device(self) -> str:
        """The device networks run on, ``auto`` resolved."""
        wanted = self.config.device
        if wanted != "auto":
            return wanted
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def stage_device(self) -> str:
        """The device of networks inside stages: on a cluster, what its nodes have."""
        wanted = self.config.device
        if not isinstance(self.engine, RayEngine) or self.engine.address is None or wanted not in ("auto", "cuda"):
            return self.device
        if wanted == "cuda" and not self.engine.gpus:
            raise ConfigError("device=cuda: no node of the cluster has a GPU; use device=auto or device=cpu")
        return "cuda" if self.engine.gpus else "cpu"

    @property
    def workers(self) -> int:
        """How many threads or processes of this machine may work at once."""
        return max(1, self.engine.workers)

    def rehearse(self, stage: Stage[RowT, ResultT], rows: Sequence[RowT]) -> list[ResultT]:
        """Return what `map` would, and write nothing."""
        return rehearse_stage(stage, rows, engine=self.engine, journal_dir=self.workspace.journals)

    def map(self, stage: Stage[RowT, ResultT], rows: Sequence[RowT]) -> list[ResultT]:
        """Run a stage over rows with this run's engine, journal and progress."""
        return run_stage(stage, rows, engine=self.engine, journal_dir=self.workspace.journals, progress=self.reporter)


@contextlib.contextmanager
def open_context(config: Any, reporter: Reporter | None = None) -> Iterator[Context]:
    """Check the common keys and open the workspace, before any work starts.

    Args:
        config: of a run.
        reporter: told of messages and progress; one for people by default.
    """
    settings = read_config(config)
    check_parts(settings)
    check_inputs(settings)
    engine = make_engine(settings)
    _device(settings.device, engine)
    workspace = Workspace(settings.root)
    trackers = Trackers(settings.trackers, Path(settings.root) / "trackers", settings.given())
    if os.environ.get("RANK", "0") == "0":  # the processes of one training share the first one's lock
        workspace.lock()
    with (
        reporter or Reporter() as told,
        contextlib.closing(engine),
        contextlib.closing(workspace),
        contextlib.closing(trackers),
    ):
        if isinstance(engine, RayEngine) and engine.address is not None:
            engine.connect()  # a wrong address, and nodes that will not do, end here
        yield Context(settings, workspace, engine, told, trackers)


def embedder_options(config: RunConfig) -> tuple[str, str, dict[str, Any]]:
    """Return name, crop and constructor options of the run's embedder; thresholds belong to the builder."""
    options = config.embedder.options
    if "device" in options and options["device"] is None:  # the run's, which was named for torch
        device = config.device if config.device.startswith(("cpu", "cuda")) else "auto"
        options |= {"device": device, "fall_back": True}
    return config.embedder.name, config.embedder.crop, options


def embeddings_of(workspace: Workspace) -> Embeddings:
    """Return the vectors of the table ``embeddings``, checked."""
    return Embeddings.of_table(workspace.read("embeddings"))


def make_engine(config: RunConfig) -> Engine:
    """Return the engine that the config names."""
    factory = ENGINES.get(config.engine.name)
    own = {"root": config.root, "places": _named_files(config.given())}  # what the nodes of a cluster must see
    taken = options_of(factory).model_fields
    return factory(**{**config.engine.options, **{name: value for name, value in own.items() if name in taken}})


def _named_files(value: Any) -> list[Path]:
    """Return the files and folders that a config names and that are there, absolute, each once."""
    if isinstance(value, dict):
        value = [item for key, item in value.items() if key not in ("root", "merge")]
    if isinstance(value, list):
        return list(dict.fromkeys(path for item in value for path in _named_files(item)))
    if not isinstance(value, str) or "/" not in value:
        return []
    path = Path(value).expanduser()
    return [path.absolute()] if path.exists() else []


def _device(name: str, engine: Engine) -> None:
    if name in ("auto", "cpu"):
        return
    if isinstance(engine, RayEngine):
        if name.startswith("cuda:"):
            raise ConfigError(f"device={name}: engine=ray gives each worker a GPU of its own; use device=cuda")
        if engine.address is not None:
            return  # this machine's devices say nothing about the cluster's
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device={name}: not usable here ({reason}); use device=auto or device=cpu") from None
