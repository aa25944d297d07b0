"""Outputs -> scores of every metric."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ffhqref.cli import launch
from ffhqref.errors import ConfigError
from ffhqref.metrics import LOWER_IS_BETTER
from ffhqref.metrics.base import Runtime
from ffhqref.metrics.scoring import GROUND_TRUTH, MetricSet, ScoreRow, resolve_metrics
from ffhqref.metrics.scoring import score as score_rows

from ._common import Context, embedder_options, open_context, rows_of


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return score(context, make_metrics(context))


def make_metrics(context: Context) -> MetricSet:
    """Return the metrics of the config; a wrong name or option ends here, absent weights are set aside."""
    chosen = context.config["metric"]
    if not chosen:
        raise ConfigError("no metric chosen: metric=[psnr,ids]")
    folder = context.config["weights_dir"]
    runtime = Runtime(context.device, Path(folder) if folder else None, bool(context.config["download"]))
    requests = [{"name": name, "label": name, **(options or {})} for name, options in chosen.items()]
    name, crop, options = embedder_options(context.config)
    return resolve_metrics(requests, runtime, {"name": name, "crop": crop, **options})


def score(context: Context, metrics: MetricSet) -> int:
    """Write ``scores``."""
    workspace, say = context.workspace, context.reporter.say
    for name, reason in metrics.unavailable.items():
        say(f"metric {name} unavailable: {reason}")
    sha256 = workspace.picture_hashes()
    rows = []
    cases = {(case.benchmark, case.case_id): case for case in rows_of(workspace.read("cases"))}
    for case in cases.values():
        if case.gt_path is not None:
            gt = str(workspace.image(case.gt_path))
            rows.append(_row(context, GROUND_TRUTH, case, gt, sha256(case.gt_path), sha256))
    for made in rows_of(workspace.read("restorations")):
        case = cases[made.benchmark, made.case_id]
        output = None if made.output_path is None else str(workspace.file(made.output_path))
        rows.append(_row(context, made.method, case, output, made.output_sha256, sha256))
    found = score_rows(rows, metrics, engine=context.engine, journal_dir=workspace.journals, progress=context.reporter)
    directions = {name: metric.higher_is_better for name, metric in metrics.available.items()}
    directions.update({name: name not in LOWER_IS_BETTER for name in metrics.unavailable})
    workspace.write("scores", found.frame, inputs=("restorations", "cases"), signatures=metrics.signatures,
                    directions=directions, unavailable=dict(metrics.unavailable))  # fmt: skip
    for (name, reason), count in found.reasons.items():
        say(f"metric {name}: {count} values failed: {reason}")
    return int(bool(found.reasons))


def _row(
    context: Context, method: str, case: Any, output: str | None, output_sha256: str | None, sha256: Any
) -> ScoreRow:
    image = context.workspace.image
    return ScoreRow(
        method=method,
        benchmark=case.benchmark,
        case_id=case.case_id,
        output_path=output,
        output_sha256=output_sha256,
        gt_path=None if case.gt_path is None else str(image(case.gt_path)),
        gt_sha256=None if case.gt_path is None else sha256(case.gt_path),
        reference_paths=tuple(str(image(path)) for path in case.reference_paths),
        reference_sha256=tuple(sha256(path) for path in case.reference_paths),
    )


if __name__ == "__main__":
    sys.exit(launch("score"))
