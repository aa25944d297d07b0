"""FaceMe from images to scores: build, synthesize, prepare, train both stages, degrade, restore, score, report."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

from ffhqref.cli.main import launch
from ffhqref.config.context import Context, open_context
from ffhqref.training.faceme.chain import METHOD, NOISE, check_chain, describe_trained, wants_synthesis
from ffhqref.training.faceme.run import FaceMePlan, trained_restorer

from .build import build, check_build
from .degrade import check_benchmarks, degrade
from .prepare import check_prepare, prepare
from .report import report
from .restore import make_stages, restore
from .score import make_metrics, score
from .synthesize import check_synthesize, synthesize
from .train import check_train, train


def execute(config: Any) -> int:
    """Run every step, each skipping what is done; return the exit status: 1 when some row failed, 0 otherwise."""
    start = time.monotonic()
    with open_context(config) as context:
        options = context.config
        check_chain(options.train.faceme, options.restorer, merge=options.merge is not None, dry_run=options.dry_run)
        context = replace(context, config=context.config.model_copy(update={"model": "faceme"}))
        faceme, say = FaceMePlan.of(context.config.train, context.seed), context.reporter.say
        options.train.faces.read()  # refuses a wrong list before any work
        plan, benchmarks = check_build(context), check_benchmarks(context)
        make_stages(context)  # refuses wrong names and missing weights of the other restorers now
        metrics = make_metrics(context)
        if faceme.base_is_random:
            say(f"note: {NOISE}")
        status = build(context, plan)
        if wants_synthesis(faceme.options):
            status |= synthesize(context, check_synthesize(context))
            if context.config.synthesis.plan_only:
                return status
        else:
            say("synthesize: not needed, train.faceme has its references")
        status |= prepare(context, check_prepare(context))
        trained = check_train(context)
        train(context, trained)
        status |= degrade(context, benchmarks)
        context = _with_trained(context, faceme)
        status |= restore(context, make_stages(context))
        status |= score(context, metrics)
        status |= report(context, [context.workspace])
        say(f"done in {time.monotonic() - start:.1f} s")
        if faceme.base_is_random:
            say(f"note: {NOISE}")
    return status


def _with_trained(context: Context, plan: FaceMePlan) -> Context:
    """Return the context with the trained weights among the restorers, after those that the config names."""
    made = trained_restorer(plan, describe_trained(plan, context.workspace, context.config.train))
    chosen = {**context.config.restorer, METHOD: made}
    return replace(context, config=context.config.model_copy(update={"restorer": chosen}))


if __name__ == "__main__":
    sys.exit(launch("faceme"))
