"""Cases -> outputs of every restorer."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from ffhqref.cli.main import launch
from ffhqref.core.errors import ConfigError
from ffhqref.metrics.base import GROUND_TRUTH
from ffhqref.restorers.check import check_restorer
from ffhqref.restorers.runner import RestoreStage
from ffhqref.restorers.table import problems, restorations, restore_rows, restored_before, timing

from ._chosen import chosen_cases
from ._common import Context, open_context


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        stages = make_stages(context)
        return dry_run(stages) if context.config.dry_run else restore(context, stages)


def make_stages(context: Context) -> list[RestoreStage]:
    """Return one stage for each restorer of the config; a wrong name, option or weight file ends here."""
    chosen = context.config.parts("restorer")
    if not chosen:
        raise ConfigError("no restorer chosen: restorer=[lq,bicubic]")
    device = context.device if context.config.dry_run else context.stage_device  # a dry run is in this process
    stages = []
    for method, given in chosen.items():
        if method == GROUND_TRUTH:
            raise ConfigError(f"restorer '{method}': the name stands for the ground truth itself; choose another")
        options = dict(given)
        stage = RestoreStage(
            context.workspace.root,
            method,
            {key: value for key, value in options.items() if key != "name"},
            restorer=None if options.get("name") is None else str(options["name"]),
            device=device,
            retry_failed=context.config.retry_failed,
        )
        stages.append(stage)
    return stages


def dry_run(stages: list[RestoreStage]) -> int:
    """Run every restorer on synthetic cases and print what is wrong; needs no tables and writes none."""
    status = 0
    for stage in stages:
        found = check_restorer(stage.restorer)
        status |= int(bool(found))
        for problem in found or ["ok"]:
            sys.stdout.write(f"{stage.method}: {problem}\n")
    return status


def restore(context: Context, stages: list[RestoreStage]) -> int:
    """Write ``restorations``."""
    workspace, say = context.workspace, context.reporter.say
    workspace.check_current("cases")
    cases = chosen_cases(context, workspace, workspace.read("cases"))
    results = [
        result
        for stage in stages
        for result in context.map(stage, restore_rows(workspace, cases, stage.method, context.seed))
    ]
    made = restorations(results)
    infos = {stage.method: asdict(stage.restorer.info) for stage in stages}
    weights = {stage.method: dict(stage.restorer.weights_sha256) for stage in stages}
    workspace.write(
        "restorations",
        made,
        inputs=("cases", "degradations", "images"),
        config=context.config.restorer,
        infos=infos,
        weights=weights,
        seed=context.seed,
    )
    for line in (*timing(results), *problems(made)):
        say(line)
    bad = int((made["status"] != "ok").sum())
    say(f"restored: {len(made)} outputs of {len(stages)} methods, {bad} of them not ok")
    others = [name for name in restored_before(workspace) if name not in infos]
    if others:
        say(f"not named, so not in the tables: {', '.join(others)}; their outputs stay, and naming them takes them up")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(launch("restore"))
