"""Outputs -> scores of every metric."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.core.errors import ConfigError
from ffhqref.faces.crops import check_crop
from ffhqref.leaderboard.case_values import CASE
from ffhqref.metrics.base import GROUND_TRUTH, WHOLE_SET, MetricRuntime
from ffhqref.metrics.dataset_metrics import dataset_metric_class
from ffhqref.metrics.dataset_scoring import check_dataset_metrics, dataset_notes, dataset_reasons, score_datasets
from ffhqref.metrics.scoring import MetricSet, ScoreRow, resolve_metrics
from ffhqref.metrics.scoring import score as score_rows

from ._chosen import chosen_cases
from ._common import Context, embedder_options, open_context, rows_of

if TYPE_CHECKING:
    import pandas as pd


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return score(context, make_metrics(context))


def make_metrics(context: Context) -> MetricSet:
    """Return the metrics of the config; a wrong name or option ends here, absent weights are set aside."""
    chosen = context.config.parts("metric")
    if not chosen:
        raise ConfigError("no metric chosen: metric=[psnr,ids]")
    _set_metrics(context)
    runtime = _runtime(context)
    requests = [{"name": name, "label": name, **options} for name, options in chosen.items()]
    name, crop, options = embedder_options(context.config)
    check_crop(crop)
    metrics = resolve_metrics(requests, runtime, {"name": name, "crop": crop, **options})
    for label, reason in metrics.unavailable.items():  # a file that was named is a mistake, others are just not here
        for named in (chosen[label].get("path"), options.get("path")):
            if named is not None and named in reason:
                raise ConfigError(f"metric '{label}': {reason}")
    return metrics


def _runtime(context: Context) -> MetricRuntime:
    return MetricRuntime(context.stage_device, context.config.weights_dir, context.config.download)


def _set_metrics(context: Context) -> list[str]:
    return check_dataset_metrics(context.config.set_metric)


def score(context: Context, metrics: MetricSet) -> int:
    """Write ``scores``."""
    import pandas as pd

    workspace, say = context.workspace, context.reporter.say
    for name, reason in metrics.unavailable.items():
        say(f"metric {name} unavailable: {reason}")
    workspace.check_current("restorations")
    sha256 = workspace.picture_hashes()
    rows = []
    restorations = workspace.read("restorations")
    restored = workspace.read("cases").merge(restorations[CASE].drop_duplicates(), on=CASE)
    cases = {(case.benchmark, case.case_id): case for case in rows_of(chosen_cases(context, workspace, restored))}
    for case in cases.values():
        if case.gt_path is not None:
            gt = str(workspace.image(case.gt_path))
            rows.append(_row(context, GROUND_TRUTH, case, gt, sha256(case.gt_path), sha256))
    for made in rows_of(restorations):
        case = cases.get((made.benchmark, made.case_id))
        if case is None:
            continue
        output = None if made.output_path is None else str(workspace.file(made.output_path))
        row = _row(context, made.method, case, output, made.output_sha256, sha256)
        rows.append(replace(row, usable=made.status == "ok"))
    found = score_rows(rows, metrics, engine=context.engine, journal_dir=workspace.journals, progress=context.reporter)
    directions = metrics.directions
    frame, signatures, unavailable = found.frame, dict(found.signatures), dict(metrics.unavailable)
    whole = _score_sets(context, rows)
    if whole is not None:
        frame = pd.concat([frame, whole.assign(case_id=WHOLE_SET)[list(frame.columns)]], ignore_index=True)
        directions |= {name: dataset_metric_class(name).higher_is_better for name in whole["metric"].unique()}
        signatures |= dict(whole.dropna(subset="signature")[["metric", "signature"]].itertuples(index=False))
        unavailable |= dataset_reasons(whole)
    notes = {} if whole is None else dataset_notes(whole)
    workspace.write(
        "scores",
        frame,
        inputs=("restorations", "cases", "images"),
        signatures=signatures,
        directions=directions,
        unavailable=unavailable,
        notes=notes,
    )
    for (name, reason), count in found.reasons.items():
        say(f"metric {name}: {count} values failed: {reason}")
    say(f"scored: {int((frame['status'] == 'ok').sum())} values, {int((frame['status'] == 'failed').sum())} failed")
    return int(bool(found.reasons) or (whole is not None and bool((whole["status"] == "failed").any())))


def _score_sets(context: Context, rows: list[ScoreRow]) -> pd.DataFrame | None:
    """Return what `score_sets` found, or None where no set metric is asked for; its warnings are said."""
    names, say = _set_metrics(context), context.reporter.say
    if not names:
        return None
    found = score_datasets(rows, names, engine=context.engine, journal_dir=context.workspace.journals,
                       runtime=_runtime(context), seed=context.seed, progress=context.reporter)  # fmt: skip
    for name, reason in dataset_reasons(found).items():
        say(f"metric {name} unavailable: {reason}")
    for benchmark, notes in dataset_notes(found).items():
        for name, note in notes.items():
            say(f"metric {name} on {benchmark}: {note}")
    return found


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
