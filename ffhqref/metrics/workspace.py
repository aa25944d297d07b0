"""From the tables of a workspace to table ``scores``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ffhqref.metrics.base import GROUND_TRUTH, WHOLE_SET, MetricRuntime
from ffhqref.metrics.copied import copied_outputs
from ffhqref.metrics.dataset_metrics import dataset_metric_class
from ffhqref.metrics.dataset_scoring import dataset_notes, dataset_reasons, score_datasets
from ffhqref.metrics.judges import JudgeIDS
from ffhqref.metrics.jury import MEAN_RANK, score_jury
from ffhqref.metrics.scoring import MetricSet, ScoreRow, score
from ffhqref.store.tables import read_metadata

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.engine import Engine
    from ffhqref.engine.run import Progress
    from ffhqref.store.workspace import Workspace

_CASE = ["benchmark", "case_id"]


@dataclass(frozen=True)
class ScoreTable:
    """Table ``scores`` and its metadata."""

    frame: pd.DataFrame
    signatures: Mapping[str, str]
    directions: Mapping[str, bool]
    unavailable: Mapping[str, str]
    """Metric to why it could not run."""
    notes: Mapping[str, Mapping[str, str]]
    """Benchmark to dataset-level metric to what a reader must know of that column."""
    copied: Mapping[str, Mapping[str, str]]
    """Benchmark to method to how many of its outputs are a ground truth or a reference."""
    reasons: Mapping[tuple[str, str], int]
    """How often each (metric, reason) made a value fail."""
    undefined: Mapping[tuple[str, str], int]
    """How often each (metric, reason) left a value out because of the ground truth or a reference."""

    def write(self, workspace: Workspace, config: Mapping[str, Any]) -> None:
        """Write the table with its metadata.

        Args:
            workspace: to write to.
            config: metrics and embedder, from which they can be made again.
        """
        workspace.write(
            "scores",
            self.frame,
            inputs=("restorations", "cases", "images"),
            config=config,
            signatures=self.signatures,
            directions=self.directions,
            unavailable=self.unavailable,
            notes={
                name: {**self.notes.get(name, {}), **self.copied.get(name, {})}
                for name in sorted({*self.notes, *self.copied})
            },
        )

    def messages(self) -> list[str]:
        """Return what a user must know after scoring, a line each."""
        whole = set(self.frame.loc[self.frame["case_id"] == WHOLE_SET, "metric"])
        lines = [f"metric {name} unavailable: {reason}" for name, reason in self.unavailable.items() if name in whole]
        lines += [
            f"metric {name} on {benchmark}: {note}"
            for benchmark, notes in self.notes.items()
            for name, note in notes.items()
        ]
        lines += [
            f"{method} on {benchmark}: {told}"
            for benchmark, copied in self.copied.items()
            for method, told in copied.items()
        ]
        lines += [f"metric {name}: {count} values failed: {reason}" for (name, reason), count in self.reasons.items()]
        lines += [f"metric {name}: {count} values left out: {told}" for (name, told), count in self.undefined.items()]
        count = self.frame["status"].value_counts()
        left_out = f", {count['left_out']} left out by rule" if "left_out" in count else ""
        return [*lines, f"scored: {count.get('ok', 0)} values, {count.get('failed', 0)} failed{left_out}"]

    @property
    def failed(self) -> bool:
        """Return whether a metric failed, on a case or on a whole set."""
        whole = self.frame[self.frame["case_id"] == WHOLE_SET]
        return bool(self.reasons) or bool((whole["status"] == "failed").any())


def restored_cases(workspace: Workspace) -> pd.DataFrame:
    """Return the cases that have restorations.

    Raises:
        TableError: a table is missing or stale.
    """
    workspace.check_current("restorations")
    return workspace.read("cases").merge(workspace.read("restorations")[_CASE].drop_duplicates(), on=_CASE)


def score_rows(workspace: Workspace, cases: pd.DataFrame) -> list[ScoreRow]:
    """Return the outputs of some cases, and their ground truths as outputs of the method `GROUND_TRUTH`.

    Args:
        workspace: with restorations.
        cases: rows of its table ``cases``.
    """
    sha256, image = workspace.picture_hashes(), workspace.image
    rows = []
    known: dict[tuple[str, str], ScoreRow] = {}
    for case in cases.to_dict("records"):
        gt = case["gt_path"] if isinstance(case["gt_path"], str) else None
        path, digest = (None, None) if gt is None else (str(image(gt)), sha256(gt))
        truth = ScoreRow(
            method=GROUND_TRUTH,
            benchmark=str(case["benchmark"]),
            case_id=str(case["case_id"]),
            output_path=path,
            output_sha256=digest,
            gt_path=path,
            gt_sha256=digest,
            reference_paths=tuple(str(image(path)) for path in case["reference_paths"]),
            reference_sha256=tuple(sha256(path) for path in case["reference_paths"]),
        )
        known[truth.benchmark, truth.case_id] = truth
        if path is not None:
            rows.append(truth)
    for made in workspace.read("restorations").to_dict("records"):
        case_row = known.get((made["benchmark"], made["case_id"]))
        if case_row is None:
            continue
        written = isinstance(made["output_path"], str)
        rows.append(
            replace(
                case_row,
                method=made["method"],
                output_path=str(workspace.file(made["output_path"])) if written else None,
                output_sha256=made["output_sha256"] if isinstance(made["output_sha256"], str) else None,
                usable=made["status"] == "ok",
            )
        )
    return rows


def score_workspace(
    workspace: Workspace,
    cases: pd.DataFrame,
    metrics: MetricSet,
    dataset_metrics: Sequence[str] = (),
    *,
    methods: Sequence[str] | None = None,
    engine: Engine,
    runtime: MetricRuntime | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ScoreTable:
    """Score the outputs of some cases.

    Args:
        workspace: with restorations.
        cases: rows of its table ``cases``, see `restored_cases`.
        metrics: from `ffhqref.metrics.scoring.resolve_metrics`.
        dataset_metrics: names of `ffhqref.metrics.dataset_metrics.DATASET_METRICS`.
        methods: whose outputs are scored; None: all that the workspace has.
        engine: where the work runs.
        runtime: where weights of dataset-level metrics lie and their networks run.
        seed: of what dataset-level metrics draw.
        progress: called as work goes on.

    Raises:
        ConfigError: unknown dataset-level metric.
    """
    import pandas as pd

    rows, journals = score_rows(workspace, cases), workspace.journals
    if methods is not None:
        rows = [row for row in rows if row.method in (GROUND_TRUTH, *methods)]
    found = score(rows, metrics, engine=engine, journal_dir=journals, progress=progress)
    frame, signatures, directions = found.frame, dict(found.signatures), metrics.directions
    unavailable, notes = dict(metrics.unavailable), {}
    where: dict[str, Any] = {"engine": engine, "journal_dir": journals, "progress": progress}
    parts = []
    if dataset_metrics:
        parts.append(score_datasets(rows, dataset_metrics, runtime=runtime, seed=seed, **where))
        directions |= {name: dataset_metric_class(name).higher_is_better for name in parts[0]["metric"].unique()}
    judges = {name: metric for name, metric in metrics.available.items() if isinstance(metric, JudgeIDS)}
    if judges:
        infos = read_metadata(workspace.root, "restorations")["infos"]
        known = {method: info.get("recognisers", ()) for method, info in infos.items()}
        parts.append(score_jury(rows, frame, judges, _people(cases), known, **where))
        directions |= {name: name != MEAN_RANK for name in parts[-1]["metric"].unique()}
    if parts:
        whole = pd.concat(parts, ignore_index=True)
        frame = pd.concat([frame, whole.assign(case_id=WHOLE_SET)[list(frame.columns)]], ignore_index=True)
        signatures |= dict(whole.dropna(subset="signature")[["metric", "signature"]].itertuples(index=False))
        unavailable |= dataset_reasons(whole)
        notes = dataset_notes(whole)
    copied = copied_outputs(rows, engine=engine, journal_dir=journals, progress=progress)
    return ScoreTable(frame, signatures, directions, unavailable, notes, copied, found.reasons, found.undefined)


def _people(cases: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return the person of each (benchmark, case); a target whose person is not known is one of its own."""
    alone = "target " + cases["target_id"].astype(str)
    who = ("person " + cases["identity_id"].astype(str)).where(cases["identity_id"].notna(), alone)
    return dict(zip(zip(cases["benchmark"], cases["case_id"], strict=True), who, strict=True))
