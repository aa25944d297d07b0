"""What every pipeline needs: the checked config, the workspace, the engine and the reporter."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.progress import Reporter
from ffhqref.engine import Engine, LocalEngine, RayEngine, Stage, run_stage
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store.workspace import Workspace, plain

from ._kinds import check_kinds

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.engine.base import ResultT, RowT


THRESHOLD_KEYS = ("max_distance", "min_distance", "grouping", "grouping_threshold")


@dataclass(frozen=True)
class Context:
    """One run of one or more pipelines."""

    config: dict[str, Any]
    workspace: Workspace
    engine: Engine
    reporter: Reporter

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config["seed"])

    @property
    def limit(self) -> int | None:
        """At most this many test targets, or None."""
        return self.config["limit"]

    @property
    def device(self) -> str:
        """The device networks run on, ``auto`` resolved."""
        wanted = str(self.config["device"])
        if wanted != "auto":
            return wanted
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def stage_device(self) -> str:
        """The device of networks inside stages: on a cluster, what its nodes have."""
        wanted = str(self.config["device"])
        if not isinstance(self.engine, RayEngine) or self.engine.address is None or wanted not in ("auto", "cuda"):
            return self.device
        if wanted == "cuda" and not self.engine.gpus:
            raise ConfigError("device=cuda: no node of the cluster has a GPU; use device=auto or device=cpu")
        return "cuda" if self.engine.gpus else "cpu"

    @property
    def workers(self) -> int:
        """How many threads or processes of this machine may work at once."""
        return max(1, self.engine.workers)

    def map(self, stage: Stage[RowT, ResultT], rows: Sequence[RowT]) -> list[ResultT]:
        """Run a stage over rows with this run's engine, journal and progress."""
        return run_stage(stage, rows, engine=self.engine, journal_dir=self.workspace.journals, progress=self.reporter)


@contextlib.contextmanager
def open_context(config: Any) -> Iterator[Context]:
    """Check the common keys and open the workspace, before any work starts."""
    settings = plain(config)
    check_integer(settings, "seed", 0)
    if settings["limit"] is not None:
        check_integer(settings, "limit", 1)
    for key in ("download", "retry_failed", "dry_run"):
        _boolean(settings, key)
    for group in ("dataset", "embedder", "engine", "build", "age_sets", "audit", "synthesis"):
        if not isinstance(settings[group], dict):
            raise ConfigError(f"{group}={settings[group]}: expected a name or options, see ffhqref run --cfg job")
    check_kinds(settings)
    if "aligned" in settings["dataset"]:
        _boolean(settings["dataset"], "aligned", "dataset.")
    if settings["weights_dir"] is not None and not Path(str(settings["weights_dir"])).expanduser().is_dir():
        raise ConfigError(f"weights_dir={settings['weights_dir']}: no such folder")
    if not isinstance(settings["root"], (str, int)) or not str(settings["root"]).strip():
        raise ConfigError(f"root={settings['root']}: expected a folder, for instance root=workspace")
    engine = make_engine(settings)
    _device(str(settings["device"]), engine)
    workspace = Workspace(str(settings["root"]))
    if os.environ.get("RANK", "0") == "0":  # the processes of one training share the first one's lock
        workspace.lock()
    with Reporter() as reporter, contextlib.closing(engine):
        if isinstance(engine, RayEngine) and engine.address is not None:
            engine.connect()  # a wrong address, and nodes that will not do, end here
        yield Context(settings, workspace, engine, reporter)


def embedder_options(config: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Return name, crop and constructor options of the run's embedder; thresholds belong to the builder."""
    options = {key: value for key, value in config["embedder"].items() if key not in THRESHOLD_KEYS}
    if "device" in options and options["device"] is None:  # the run's, which was named for torch
        device = str(config["device"])
        options |= {"device": device if device.startswith(("cpu", "cuda")) else "auto", "fall_back": True}
    return options.pop("name"), options.pop("crop"), options


def embeddings_of(workspace: Workspace) -> Embeddings:
    """Return the vectors of the table ``embeddings``, checked."""
    return Embeddings.of_table(workspace.read("embeddings"))


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """Return the rows as named tuples, None where a value is missing."""
    plain_values = frame.astype(object)
    return list(plain_values.where(plain_values.notna(), None).itertuples(index=False))


def make_engine(settings: dict[str, Any]) -> Engine:
    """Return the engine that the config names."""
    options = dict(settings["engine"])
    name = options.pop("name", "local")
    if name == "ray":
        return RayEngine(**options, root=str(settings["root"]), places=_named_files(settings))
    if name != "local":
        raise ConfigError(f"unknown engine '{name}'.{did_you_mean(name, ['local', 'ray'])} Known: local, ray")
    workers = options.pop("workers", None)
    if workers is not None and (not isinstance(workers, int) or workers < 0):
        raise ConfigError(f"engine.workers={workers}: expected a number of processes, 0 or more, or null")
    return LocalEngine(workers)


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


def _boolean(settings: dict[str, Any], key: str, prefix: str = "") -> None:
    if not isinstance(settings[key], bool):
        raise ConfigError(f"{prefix}{key}={settings[key]}: expected true or false")


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


def group_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a config group of named parts (benchmark, restorer, metric), each with a mapping of options."""
    chosen = config.get(name) or {}
    if not isinstance(chosen, dict):
        raise ConfigError(f"{name}={chosen}: expected a list of names, {name}=[first,second]")
    for part, options in chosen.items():
        if options is not None and not isinstance(options, dict):
            raise ConfigError(f"{name}.{part}={options}: expected options, {name}.{part}.KEY=VALUE")
    return {part: options or {} for part, options in chosen.items()}


def check_integer(settings: dict[str, Any], key: str, least: int, prefix: str = "") -> None:
    """Refuse a value that is no whole number of at least ``least``."""
    value = settings[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{prefix}{key}={value}: expected a whole number of at least {least}")
