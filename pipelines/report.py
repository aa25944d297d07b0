"""Scores -> leaderboard, Markdown, LaTeX, CSV and the HTML page; of one workspace or of several (``merge=[A,B]``)."""

from __future__ import annotations

import sys
from typing import Any

from ffhqref.cli.main import launch
from ffhqref.core.errors import ConfigError
from ffhqref.core.options import read_options
from ffhqref.leaderboard.options import ReportOptions
from ffhqref.leaderboard.publish import publish
from ffhqref.leaderboard.reading import Scored, scored_parts
from ffhqref.leaderboard.render import print_leaderboard
from ffhqref.metrics.dataset_metrics import DATASET_METRICS
from ffhqref.store.workspace import Workspace

from ._chosen import named
from ._common import Context, group_of, open_context

STEPS = {
    "restorer": "`ffhqref restore` and `score`",
    "benchmark": "`ffhqref degrade`, `restore` and `score`",
    "metric": "`ffhqref score`",
}
"""What makes a part that is not there."""


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        check_report(context)
        merged = context.config["merge"]
        if merged is None:
            return report(context, [context.workspace])
        if not isinstance(merged, list) or not merged or not all(isinstance(one, (str, int)) for one in merged):
            raise ConfigError(f"merge={merged}: expected the folders of workspaces, merge=[FIRST,SECOND]")
        return report(context, [Workspace(str(folder), read_only=True) for folder in merged])


def check_report(context: Context) -> ReportOptions:
    """Return the report's options; refuse wrong values before any work."""
    options = read_options(ReportOptions, context.config["report"], "report")
    if options.gate is not None and options.gate.metric not in group_of(context.config, "metric"):
        raise ConfigError(f"report.gate.metric={options.gate.metric}: not among the metrics of this run")
    return options


def report(context: Context, workspaces: list[Workspace]) -> int:
    """Write ``leaderboard`` and the files of the folder ``report``, and print the leaderboard."""
    own, options = context.workspace, check_report(context)
    shown = _shown(context, options, scored_parts(workspaces, context.limit))
    publish(own, workspaces, shown, options, context.seed, context.reporter)
    print_leaderboard(own, options)
    return 0


def _shown(context: Context, options: ReportOptions, there: Scored) -> dict[str, list[str]]:
    """Return the methods, benchmarks and metrics that the command names, all where it names none."""
    chosen = {group: named(context, group, names, STEPS[group]) for group, names in there.items()}
    gate = [options.gate.metric, *options.quality] if options.gate else []
    more = [name for name in (*DATASET_METRICS, *gate) if name in there["metric"] and name not in chosen["metric"]]
    chosen["metric"] += more  # of whole sets, and those of the gate, are shown though not named
    left = {group: [name for name in names if name not in chosen[group]] for group, names in there.items()}
    if any(left.values()):
        told = "; ".join(f"{group} {', '.join(names)}" for group, names in left.items() if names)
        context.reporter.say(f"report: in the tables, not named and so not shown: {told}")
    return {"methods": chosen["restorer"], "benchmarks": chosen["benchmark"], "metrics": chosen["metric"]}


if __name__ == "__main__":
    sys.exit(launch("report"))
