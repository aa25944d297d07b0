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
from ffhqref.restorers import RESTORERS
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
        stages = restore_stages(context.workspace.root, chosen, "cpu", retry_failed=config.retry_failed)
        return evaluate(context, chosen, stages)


def evaluate(
    context: Context, chosen: Mapping[str, Mapping[str, Any]], stages: list[RestoreStage], *, show: bool = True
) -> int:
    """Add methods to the workspace: their restorations, the scores of all methods, and the report.

    Args:
        context: of the command; it names the benchmarks or folders, and further metrics.
        chosen: options of the methods, for the table ``restorations``.
        stages: of the methods.
        show: print the leaderboard.
    """
    workspace, status, folders = context.workspace, 0, folder_benchmark(context)
    for method, options in chosen.items():
        check_new(workspace, method, str(options["name"]))
    if folders is not None:
        context, benchmarks = folders, check_benchmarks(folders)
        empty_reference_set(workspace, context.config.parts("benchmark")[FOLDER])
        status = degrade(context, benchmarks)
    whole = with_recorded(context)
    metrics = make_metrics(whole)  # refuses wrong names and options before any work
    update = {"restorer": chosen, "seed": whole.seed}
    status |= restore(replace(context, config=context.config.model_copy(update=update)), stages, keep=True)
    remember_parts(workspace, "restorer", {name: one for name, one in chosen.items() if one["name"] in RESTORERS})
    return status | score(whole, metrics) | report(whole, [workspace], show=show)


if __name__ == "__main__":
    sys.exit(launch("evaluate"))
