"""Outputs -> scores of every metric."""

from __future__ import annotations

import sys
from typing import Any

from ffhqref.cli.main import launch
from ffhqref.config.context import Context, embedder_options, open_context
from ffhqref.config.evaluation import scored_config
from ffhqref.config.selection import chosen_cases, named
from ffhqref.core.errors import ConfigError
from ffhqref.faces.crops import check_crop
from ffhqref.metrics.base import MetricRuntime
from ffhqref.metrics.dataset_scoring import check_dataset_metrics
from ffhqref.metrics.jury import JURY_METRICS
from ffhqref.metrics.scoring import MetricSet, resolve_metrics
from ffhqref.metrics.workspace import restored_cases, score_workspace


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return score(context, make_metrics(context))


def make_metrics(context: Context) -> MetricSet:
    """Return the metrics of the config; a wrong name or option ends here, absent weights make a metric unavailable."""
    chosen = context.config.parts("metric")
    if not chosen:
        raise ConfigError("no metric chosen: metric=[psnr,ids]")
    twice = [name for name in (*check_dataset_metrics(context.config.set_metric), *JURY_METRICS) if name in chosen]
    if twice:
        raise ConfigError(f"metric.{twice[0]}: a value of the whole set has that name; give the metric another")
    name, crop, options = embedder_options(context.config)
    check_crop(crop)
    requests = [{"name": name, "label": name, **options} for name, options in chosen.items()]
    return resolve_metrics(requests, _runtime(context), {"name": name, "crop": crop, **options})


def score(context: Context, metrics: MetricSet) -> int:
    """Write ``scores``."""
    workspace, say = context.workspace, context.reporter.say
    there = sorted(workspace.read("restorations")["method"].unique())
    methods = named(context, "restorer", there, "`ffhqref restore`")
    for name, reason in metrics.unavailable.items():
        say(f"metric {name} unavailable: {reason}")
    found = score_workspace(
        workspace,
        chosen_cases(context, workspace, restored_cases(workspace)),
        metrics,
        check_dataset_metrics(context.config.set_metric),
        methods=methods,
        engine=context.engine,
        runtime=_runtime(context),
        seed=context.seed,
        progress=context.reporter,
    )
    found.write(workspace, scored_config(context.config))
    for line in found.messages():
        say(line)
    if len(methods) < len(there):
        say(f"not named, so not in the table: {', '.join(name for name in there if name not in methods)}")
    return int(found.failed)


def _runtime(context: Context) -> MetricRuntime:
    return MetricRuntime(context.stage_device, context.config.weights_dir, context.config.download)


if __name__ == "__main__":
    sys.exit(launch("score"))
