"""The cases of a benchmark, one by one or as a frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ffhqref.api.case import Case
from ffhqref.cli.main import explained, pipeline_module
from ffhqref.config.context import open_context
from ffhqref.config.overrides import checked
from ffhqref.config.run import RunConfig, read_config
from ffhqref.config.source import compose, register
from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.progress import Reporter
from ffhqref.core.seeding import case_seed
from ffhqref.store.tables import read_metadata
from ffhqref.store.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    from torch.utils.data import Dataset

    from ffhqref.config.context import Context
    from ffhqref.training.dataset import Example


class Cases(Sequence[Case]):
    """The cases of a benchmark of a workspace, sorted by id; make one with `benchmark`.

    Args:
        name: of the benchmark.
        workspace: with cases.
    """

    def __init__(self, name: str, workspace: Workspace) -> None:
        self.name, self.workspace = name, workspace

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows of table ``cases`` (docs/tables.md)."""
        cases = self.workspace.read("cases")
        return cases[cases["benchmark"] == self.name].reset_index(drop=True)

    @cached_property
    def _cases(self) -> list[Case]:
        seed = int(read_metadata(self.workspace.root, "cases")["seed"])
        return [self._case(row, seed) for row in self.frame.to_dict("records")]

    def _case(self, row: dict[Any, Any], seed: int) -> Case:
        gt, age = row["gt_path"], row["age"]
        return Case(
            row["case_id"],
            self.name,
            self.workspace.file(row["lq_path"]),
            self.workspace.image(gt) if isinstance(gt, str) else None,
            tuple(self.workspace.image(path) for path in row["reference_paths"]),
            case_seed(seed, self.name, row["case_id"]),
            None if age is None or age != age else float(age),
        )

    def __len__(self) -> int:
        return len(self._cases)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> list[Case]: ...
    def __getitem__(self, index: int | slice) -> Case | list[Case]:
        return self._cases[index]

    def __iter__(self) -> Iterator[Case]:
        return iter(self._cases)

    def torch(self, references: int | None = None) -> Dataset[Example]:
        """Return the cases as a torch data set of examples, for a `DataLoader` with `ffhqref.collate`.

        Args:
            references: of a case, at most so many, best first; None: all.

        Raises:
            ConfigError: a case has no ground truth.
        """
        from ffhqref.api.examples import CaseExamples

        return CaseExamples(self._cases, references)


def benchmark(name: str, root: str | Path = "workspace", *, overrides: Sequence[str] = ()) -> Cases:
    """Return the cases of a benchmark; in a workspace without cases, make them first.

    Args:
        name: see `ffhqref.list_benchmarks`.
        root: of the workspace.
        overrides: what a command line says where the workspace has no cases yet: ``["dataset=folder",
            "dataset.path=album", "limit=20"]``. By default the embedded sample.

    Raises:
        FfhqrefError: an unknown name, or a workspace that has cases of other benchmarks only; one line.
    """
    root = Path(root).expanduser()
    if not (root / "tables" / "cases.parquet").is_file():
        config = config_of([*overrides, f"benchmark=[{name}]"])
        with open_context(config.model_copy(update={"root": str(root)}), Silent()) as context:
            make_cases(context)
    workspace = Workspace(root, read_only=True)
    there = list(read_metadata(root, "cases")["config"])
    if name not in there:
        raise ConfigError(
            f"benchmark '{name}': not in the workspace {root}.{did_you_mean(name, there)} It has {', '.join(there)}; "
            "choose another root, or run `ffhqref degrade`"
        )
    return Cases(name, workspace)


def config_of(words: Sequence[str]) -> RunConfig:
    """Return the config that a command line of these words composes.

    Raises:
        ConfigError: a wrong word; one line.
    """
    register([])
    given = checked(list(words))
    return read_config(explained(lambda: compose(given), given))


def make_cases(context: Context) -> None:
    """Build the reference set of a config and degrade its targets, as `ffhqref run` does.

    Raises:
        FfhqrefError: the config is wrong, or no case could be made.
    """
    build, degrade = pipeline_module("build"), pipeline_module("degrade")
    plan, benchmarks = build.check_build(context), degrade.check_benchmarks(context)
    build.build(context, plan)
    degrade.degrade(context, benchmarks)


class Silent(Reporter):
    """Keeps what is told in place of printing it."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def begin(self, stage: str) -> None:  # noqa: ARG002
        """Count work without rows."""
        self.computed += 1

    def say(self, message: str) -> None:
        """Keep one line."""
        self.messages.append(message)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tell nothing."""
