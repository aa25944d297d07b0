"""Evaluate a function, a module, a pipeline, or a folder of outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.api.benchmarks import Silent, config_of, make_cases
from ffhqref.api.restorers import FUNCTION, FunctionRestorer
from ffhqref.cli.main import pipeline_module
from ffhqref.config.context import open_context
from ffhqref.config.evaluation import outputs_options
from ffhqref.config.run import MatchOptions, RunConfig
from ffhqref.core.errors import ConfigError
from ffhqref.core.options import read_options
from ffhqref.core.progress import Reporter
from ffhqref.restorers.runner import RestoreStage
from ffhqref.store.tables import read_metadata
from ffhqref.store.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.config.context import Context


@dataclass(frozen=True)
class Evaluation:
    """A method's place in a workspace."""

    name: str
    """Of the method in the tables."""
    root: Path
    """Of the workspace."""
    messages: tuple[str, ...]
    """What a user must know: cases without a file, failures and the like, one line each."""

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """Table ``leaderboard``: this method beside all others of the workspace."""
        return self._workspace.read("leaderboard")

    @property
    def rows(self) -> pd.DataFrame:
        """This method's rows of the leaderboard: mean, interval and rank of each benchmark and metric."""
        mine = self.leaderboard[self.leaderboard["method"] == self.name]
        return mine[["benchmark", "method", "metric", "mean", "ci_low", "ci_high", "n", "n_failed", "rank"]]

    @cached_property
    def scores(self) -> pd.DataFrame:
        """This method's rows of table ``scores``: a value for each case and metric."""
        return self._mine("scores")

    @cached_property
    def restorations(self) -> pd.DataFrame:
        """This method's rows of table ``restorations``: what became of each case."""
        return self._mine("restorations")

    def mean(self, metric: str) -> pd.Series:
        """Return the mean of a metric by benchmark, as the leaderboard has it."""
        return self.rows[self.rows["metric"] == metric].set_index("benchmark")["mean"]

    def worst(self, metric: str, n: int = 10) -> pd.DataFrame:
        """Return the worst cases of a metric, failures first, with the path of each output.

        Cases that the metric leaves out, or for which it has nothing to compare with, are neither.

        Args:
            metric: its name.
            n: at most this many.

        Raises:
            ConfigError: it was not scored.
        """
        higher = read_metadata(self.root, "scores")["directions"]
        if metric not in higher:
            raise ConfigError(f"metric '{metric}' was not scored here; scored: {', '.join(higher)}")
        mine = self.scores[(self.scores["metric"] == metric) & self.scores["status"].isin(["ok", "failed"])]
        mine = mine.drop(columns=["method", "metric"])
        made = self.restorations[["benchmark", "case_id", "output_path", "error"]]
        found = mine.merge(made, on=["benchmark", "case_id"], how="inner")
        found["output_path"] = [
            str(self._workspace.file(path)) if isinstance(path, str) else None for path in found["output_path"]
        ]
        return found.sort_values("value", ascending=higher[metric], na_position="first", ignore_index=True).head(n)

    def report(self, path: str | Path) -> Path:
        """Write the workspace's page, one HTML file that needs nothing else, and return its path."""
        from ffhqref.leaderboard.html import render_html
        from ffhqref.leaderboard.reading import read_report

        seed = int(read_metadata(self.root, "cases").get("seed", 0))
        render_html(read_report(self._workspace, seed=seed), path)
        return Path(path)

    @property
    def _workspace(self) -> Workspace:
        return Workspace(self.root, read_only=True)

    def _mine(self, table: str) -> pd.DataFrame:
        frame = self._workspace.read(table)
        return frame[frame["method"] == self.name].reset_index(drop=True)


def evaluate(
    method: Callable[..., Any] | str | Path,
    benchmark: str | Sequence[str] | None = None,
    *,
    metrics: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    root: str | Path = "workspace",
    name: str | None = None,
    gt: str | Path | None = None,
    lq: str | Path | None = None,
    references: str | Path | None = None,
    batch_size: int | None = None,
    version: str | None = None,
    info: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    verbose: bool = False,
    **match: Any,
) -> Evaluation:
    """Run a method on the cases of a benchmark, or take its outputs, and rank it beside all that the workspace has.

    A function is called as ``method(lq, references)``, or ``method(lq)``: ``lq`` is float32 [3, 512, 512] in 0..1 RGB,
    ``references`` float32 [N, 3, 512, 512], best first. It returns an image of the size of ``lq``, in any form of
    `ffhqref.api.images`. Parameters called ``seed``, ``age`` (years or None) and ``case_id`` are given too. A
    ``torch.nn.Module`` gets tensors on its device; a pipeline of diffusers gets ``image`` and a generator of the case's
    seed.

    Args:
        method: a function, a module, a pipeline, or a folder of images that are its outputs.
        benchmark: one or several; None: all that the workspace has. A workspace without cases is made first, of the
            embedded sample unless ``overrides`` say otherwise.
        metrics: names, or options by name, on top of those that the workspace was scored with; None: these, or the
            default ones.
        root: of the workspace.
        name: in the tables; None: the function's or folder's own.
        gt: folder of ground truths, for folders of one's own in place of a benchmark; see `ffhqref evaluate`.
        lq: folder of low-quality images beside ``gt``.
        references: folder of references beside them.
        batch_size: cases of one call; ``lq`` then has a batch dimension, and the other arguments are lists.
        version: where given, outputs are kept as long as it stays (and the cases do); None: the function is called
            again.
        info: what is known of the method, fields of `RestorerInfo`: ``{"trained_on": ["FFHQ"], "licence": "MIT"}``.
        overrides: more of a command line, such as ``["device=cuda", "engine.workers=8"]``.
        verbose: print progress and the leaderboard.
        match: how files are matched to cases: ``pattern``, ``pairs``, ``resize``, ``missing`` (docs/restorers.md).

    Raises:
        FfhqrefError: the line that the command line prints.
    """
    if match and not isinstance(method, (str, os.PathLike)):
        raise ConfigError(f"{next(iter(match))}=…: for folders of outputs only; a function takes none")
    label = name or _own_name(method)
    names = (benchmark,) if isinstance(benchmark, str) else tuple(benchmark or ())
    config = _config(names, metrics, overrides, Path(root).expanduser())
    given = {"gt": gt, "lq": lq, "references": references}
    update: dict[str, Any] = {key: None if path is None else Path(path) for key, path in given.items()}
    config = config.model_copy(update={**update, "root": str(root), "name": label})
    reporter = Reporter() if verbose else Silent()
    with open_context(config, reporter) as context:
        if gt is None and lq is None and not context.workspace.has("cases"):
            make_cases(context)
        if isinstance(method, (str, os.PathLike)):
            options = outputs_options(_with_outputs(config, Path(method), match, info))
            stage = RestoreStage(context.workspace.root, label, _without_name(options), restorer="outputs")
        else:
            if lq is None and gt is not None:
                raise ConfigError("a function restores low-quality images: give lq=FOLDER beside gt=FOLDER")
            made = FunctionRestorer(method, batch_size, version, info)
            options = {"name": FUNCTION}
            stage = RestoreStage(context.workspace.root, label, restorer=FUNCTION, made=made)
        _run(context, label, options, stage, verbose)
        return Evaluation(
            label, context.workspace.root, tuple(reporter.messages if isinstance(reporter, Silent) else ())
        )


def _run(context: Context, label: str, options: Mapping[str, Any], stage: RestoreStage, verbose: bool) -> None:
    pipeline_module("evaluate").evaluate(context, {label: options}, [stage], show=verbose)


def _config(
    names: Sequence[str],
    metrics: Sequence[str] | Mapping[str, Mapping[str, Any]] | None,
    overrides: Sequence[str],
    root: Path,
) -> RunConfig:
    """Return the config of a run, as a command line of these words would compose it."""
    there = read_metadata(root, "cases")["config"] if (root / "tables" / "cases.parquet").is_file() else {}
    words, update = list(overrides), dict[str, Any]()
    if names and set(names) <= set(there):  # a benchmark of the workspace's own has no file
        update["benchmark"] = {name: {} for name in names}
    elif names:
        words.append(f"benchmark=[{','.join(names)}]")
    if not any(word.startswith("engine.workers=") for word in words):
        words.append("engine.workers=0")  # a script need not be safe to import
    config = config_of([*words, "report.formats=[]"])
    if metrics is not None:
        update["metric"] = dict(metrics) if isinstance(metrics, Mapping) else {name: {} for name in metrics}
    return config.model_copy(update={**update, "unnamed": tuple({*config.unnamed} - {*update})})


def _with_outputs(
    config: RunConfig, folder: Path, match: Mapping[str, Any], info: Mapping[str, Any] | None
) -> RunConfig:
    rules = read_options(MatchOptions, {**match, "info": dict(info or {})}, "match")
    return config.model_copy(update={"outputs": folder, "match": rules})


def _without_name(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "name"}


def _own_name(method: Any) -> str:
    if isinstance(method, (str, os.PathLike)):
        return Path(method).expanduser().resolve().name
    found = getattr(method, "__name__", type(method).__name__)
    return "function" if found == "<lambda>" else str(found)
