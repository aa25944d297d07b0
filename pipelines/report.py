"""Scores -> leaderboard, Markdown, LaTeX, CSV and the HTML page; of one workspace or of several (``merge=[A,B]``)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.config.context import Context, open_context
from ffhqref.config.selection import named
from ffhqref.leaderboard.publish import publish
from ffhqref.leaderboard.reading import Scored, scored_parts
from ffhqref.leaderboard.render import means, print_leaderboard
from ffhqref.metrics.dataset_metrics import DATASET_METRICS
from ffhqref.metrics.jury import JURY_METRICS
from ffhqref.store.workspace import Workspace

if TYPE_CHECKING:
    from ffhqref.leaderboard.options import ReportOptions

STEPS = {
    "restorer": "`ffhqref restore` and `score`",
    "benchmark": "`ffhqref degrade`, `restore` and `score`",
    "metric": "`ffhqref score`",
}
"""What makes a part that is not there."""


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        merged = context.config.merge
        if merged is None:
            return report(context, [context.workspace])
        return report(context, [Workspace(folder, read_only=True) for folder in merged])


def report(context: Context, workspaces: list[Workspace], *, show: bool = True) -> int:
    """Write ``leaderboard`` and the files of the folder ``report``; print the leaderboard unless ``show`` is False."""
    own, options = context.workspace, context.config.report
    shown = _shown(context, options, scored_parts(workspaces, context.limit))
    publish(own, workspaces, shown, options, context.seed, context.reporter)
    if context.config.trackers:
        context.trackers.log(means(own.read("leaderboard")))
    if show:
        print_leaderboard(own, options)
    return 0


def _shown(context: Context, options: ReportOptions, there: Scored) -> dict[str, list[str]]:
    """Return the methods, benchmarks and metrics that the command names, all where it names none."""
    chosen = {group: named(context, group, names, STEPS[group]) for group, names in there.items()}
    gate = [options.gate.metric, *options.quality] if options.gate else []
    lost = [name for name in gate if name not in there["metric"]]
    if lost:
        known = ", ".join(there["metric"])
        context.reporter.say(f"report: {', '.join(lost)} not scored, so the gate does without; scored: {known}")
    whole = (*DATASET_METRICS, *JURY_METRICS, *gate)
    more = [name for name in whole if name in there["metric"] and name not in chosen["metric"]]
    chosen["metric"] += more  # of whole sets, and those of the gate, are shown though not named
    left = {group: [name for name in names if name not in chosen[group]] for group, names in there.items()}
    if any(left.values()):
        told = "; ".join(f"{group} {', '.join(names)}" for group, names in left.items() if names)
        context.reporter.say(f"report: in the tables, not named and so not shown: {told}")
    return {"methods": chosen["restorer"], "benchmarks": chosen["benchmark"], "metrics": chosen["metric"]}


if __name__ == "__main__":
    sys.exit(launch("report"))
