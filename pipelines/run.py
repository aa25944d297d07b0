"""The main job: build, degrade, restore, score and report."""

from __future__ import annotations

import sys
import time
from typing import Any

from ffhqref.cli.main import launch
from ffhqref.config.context import open_context
from ffhqref.core.errors import ConfigError

from .build import build, check_build
from .degrade import check_benchmarks, degrade
from .report import report
from .restore import dry_run, make_stages, restore
from .score import make_metrics, score


def execute(config: Any) -> int:
    """Run everything; return the exit status: 1 when some row failed, 0 otherwise."""
    start = time.monotonic()
    with open_context(config) as context:
        if context.config.merge is not None:
            raise ConfigError("merge=… joins workspaces that are there already: ffhqref report merge=[FIRST,SECOND]")
        plan = check_build(context)  # every mistake in the config ends here, before any work
        benchmarks = check_benchmarks(context)
        stages = make_stages(context)
        metrics = make_metrics(context)
        if context.config.dry_run:
            return dry_run(stages)
        status = build(context, plan)
        status |= degrade(context, benchmarks)
        status |= restore(context, stages)
        status |= score(context, metrics)
        status |= report(context, [context.workspace])
        seconds = time.monotonic() - start
        done = "done" if context.reporter.computed else "nothing to do: all of it was done before, checked"
        context.reporter.say(f"{done} in {seconds:.1f} s")
    return status


if __name__ == "__main__":
    sys.exit(launch("run"))
