"""Cases -> outputs of every restorer."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.config.context import Context, open_context
from ffhqref.config.selection import chosen_cases
from ffhqref.core.escape import plain
from ffhqref.restorers.cache_key import code_of
from ffhqref.restorers.check import check_restorer
from ffhqref.restorers.table import beside, not_named, problems, restorations, restore_rows, restore_stages, timing

if TYPE_CHECKING:
    from ffhqref.restorers.runner import RestoreStage


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        stages = make_stages(context)
        return dry_run(stages) if context.config.dry_run else restore(context, stages)


def make_stages(context: Context) -> list[RestoreStage]:
    """Return one stage for each restorer of the config; a wrong name, option or weight file ends here."""
    config = context.config
    device = context.device if config.dry_run else context.stage_device  # a dry run is in this process
    return restore_stages(context.workspace.root, config.parts("restorer"), device, retry_failed=config.retry_failed)


def dry_run(stages: list[RestoreStage]) -> int:
    """Run every restorer on synthetic cases and print what is wrong; needs no tables and writes none."""
    status = 0
    for stage in stages:
        found = check_restorer(stage.restorer)
        status |= int(bool(found))
        sys.stdout.writelines(f"{plain(f'{stage.method}: {problem}')}\n" for problem in found or ["ok"])
    return status


def restore(context: Context, stages: list[RestoreStage], *, keep: bool = False) -> int:
    """Write ``restorations``; with ``keep``, the rows of other methods stay."""
    workspace, say = context.workspace, context.reporter.say
    workspace.check_current("cases")
    cases = chosen_cases(context, workspace, workspace.read("cases"))
    results = []
    for stage in stages:
        rows = stage.matched(restore_rows(workspace, cases, stage.method, context.seed), say)
        results += context.map(stage, rows)
    made = restorations(results)
    facts: dict[str, Any] = {
        "config": context.config.restorer,
        "infos": {stage.method: asdict(stage.restorer.info) for stage in stages},
        "weights": {stage.method: dict(stage.restorer.weights_sha256) for stage in stages},
        "code": {stage.method: code_of(stage.restorer) for stage in stages},
    }
    table, facts = beside(workspace, made, facts) if keep else (made, facts)
    workspace.write("restorations", table, inputs=("cases", "degradations", "images"), seed=context.seed, **facts)
    for line in (*timing(results), *problems(made)):
        say(line)
    bad = int((made["status"] != "ok").sum())
    say(f"restored: {len(made)} outputs of {len(stages)} methods, {bad} of them not ok")
    for line in not_named(workspace, [] if keep else cases["benchmark"], facts["infos"]):
        say(line)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(launch("restore"))
