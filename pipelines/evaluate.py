"""A folder of outputs -> scores and leaderboard, beside everything else that the workspace has."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ffhqref.cases.folders import empty_reference_set
from ffhqref.cli.main import launch
from ffhqref.config.context import Context, open_context
from ffhqref.config.evaluation import FOLDER, folder_benchmark, outputs_options, with_recorded
from ffhqref.config.memory import remember_parts
from ffhqref.restorers.table import check_new, restore_stages

from .degrade import check_benchmarks, degrade
from .report import report
from .restore import restore
from .score import make_metrics, score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ffhqref.restorers.runner import RestoreStage


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        config = context.config
        chosen = {config.name: outputs_options(config)}
        folders = folder_benchmark(context)
        stages = restore_stages(context.workspace.root, chosen, "cpu", retry_failed=config.retry_failed)
        if folders is None:
            return evaluate(context, chosen, stages)
        benchmarks = check_benchmarks(folders)
        empty_reference_set(context.workspace, folders.config.parts("benchmark")[FOLDER])
        return degrade(folders, benchmarks) | evaluate(folders, chosen, stages)


def evaluate(context: Context, chosen: Mapping[str, Mapping[str, Any]], stages: list[RestoreStage]) -> int:
    """Add methods to the workspace: their restorations, the scores of all methods, and the report.

    Args:
        context: of the command; it names the benchmarks and further metrics.
        chosen: options of the methods, for the table ``restorations``.
        stages: of the methods.
    """
    for method, options in chosen.items():
        check_new(context.workspace, method, str(options["name"]))
    whole = with_recorded(context)
    metrics = make_metrics(whole)  # refuses wrong names and options before any work
    update = {"restorer": chosen, "seed": whole.seed}
    status = restore(replace(context, config=context.config.model_copy(update=update)), stages, keep=True)
    remember_parts(context.workspace, "restorer", chosen)
    return status | score(whole, metrics) | report(whole, [context.workspace])


if __name__ == "__main__":
    sys.exit(launch("evaluate"))
