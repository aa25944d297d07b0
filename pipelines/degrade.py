"""References -> low-quality images of every benchmark, and its cases."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ffhqref.cases import make
from ffhqref.cases.make import CaseMaker, ids_at_stake, named_benchmarks
from ffhqref.cli.main import launch
from ffhqref.config.context import Context, open_context

if TYPE_CHECKING:
    from ffhqref.cases.benchmark import Benchmark


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return degrade(context, check_benchmarks(context))


def check_benchmarks(context: Context) -> list[Benchmark]:
    """Return the benchmarks of the config; a wrong name or value ends here."""
    return make.check_benchmarks(context.config.parts("benchmark"))


def degrade(context: Context, benchmarks: list[Benchmark]) -> int:
    """Write ``degradations``, ``imports`` and ``cases``."""
    import pandas as pd

    workspace, settings = context.workspace, context.config
    workspace.check_current("references")
    maker = CaseMaker(
        workspace,
        context.map,
        context.reporter.say,
        context.seed,
        settings.age_sets,
        limit=context.limit,
        exclusions=settings.exclusions,
        retry_failed=settings.retry_failed,
    )
    config = {
        name: {**options, "age_sets": settings.age_sets.given()} if options.get("ages") else options
        for name, options in settings.parts("benchmark").items()
    }
    origin: dict[str, Any] = {"config": config, "seed": context.seed, "limit": context.limit}
    whole = context.limit is None
    if ids_at_stake(workspace, benchmarks, origin):  # what is refused must not have overwritten the images before
        planned = replace(maker, run=context.rehearse, say=_nothing, writes=False).make(benchmarks)
        named_benchmarks(workspace, benchmarks, planned, whole=whole, say=_nothing)
    made = maker.make(benchmarks)
    known = named_benchmarks(workspace, benchmarks, made, whole=whole, say=context.reporter.say)
    workspace.write("degradations", made.degradations, inputs=("references", "images"), **origin)
    workspace.write("imports", made.imports, **origin)
    made.check()
    inputs = ("degradations", "imports", "references", "ages")
    workspace.write("cases", pd.concat(made.cases.values()), inputs=inputs, **origin, **known, origins=made.origins)
    counts = ", ".join(f"{name} {len(frame)}" for name, frame in made.cases.items())
    context.reporter.say(f"cases: {counts}")
    return int(made.failed)


def _nothing(line: str) -> None:
    """Tell nothing: what is rehearsed is told when it is done."""


if __name__ == "__main__":
    sys.exit(launch("degrade"))
