"""From the tables of a workspace to everything a report shows, and the files it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.images import write_atomic
from ffhqref.leaderboard.aggregate import analyse
from ffhqref.leaderboard.html import HtmlOptions, HtmlSummary, ReportData, render_html
from ffhqref.leaderboard.published import match_published
from ffhqref.leaderboard.render import to_csv, to_latex, to_markdown
from ffhqref.leaderboard.subgroups import bins, case_features, paired_benchmarks, subgroup_means
from ffhqref.leaderboard.summary import identity_gate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from ffhqref.leaderboard.merge import Workspace
    from ffhqref.leaderboard.summary import IdentityGate
    from ffhqref.restorers.base import RestorerInfo


@dataclass(frozen=True)
class ReportFiles:
    """What `write_report` wrote."""

    markdown: Path
    latex: Path
    csv: Path
    html: HtmlSummary


def build_report(
    workspace: Workspace,
    resolve: Callable[[str], Path],
    *,
    infos: Mapping[str, RestorerInfo] | None = None,
    references: pd.DataFrame | None = None,
    degradations: pd.DataFrame | None = None,
    attributes: pd.DataFrame | None = None,
    gate: IdentityGate | None = None,
    quality: Sequence[str] = (),
    pairs: Mapping[str, tuple[str, str]] | None = None,
    failures: str = "worst",
    seed: int = 0,
    n_bootstrap: int = 2000,
    provenance: Mapping[str, Mapping[str, Any]] | None = None,
    title: str = "Face restoration leaderboard",
    credit: str = "",
) -> ReportData:
    """Compute everything a report shows. The table ``leaderboard`` is ``.analysis.leaderboard`` of what is returned.

    Args:
        workspace: scores, cases, restorations and what they were made of, of one workspace or of several
            (`ffhqref.leaderboard.merge.merge_leaderboards`).
        resolve: finds on disk a path of the tables.
        infos: method to its description; gives leak marks and the list of methods.
        references: table ``references``, for the distance of the best reference.
        degradations: table ``degradations``, for the strength of the degradation.
        attributes: table ``attributes``, for sub-groups by pose and other numbers.
        gate: identity gate; left out where its metric has no scores.
        quality: metrics that rank the methods behind the gate.
        pairs: title to two benchmarks over the same targets, such as same-age and cross-age references; left out
            where one of them was not scored.
        failures: ``"worst"`` or ``"excluded"``, see `ffhqref.leaderboard.aggregate.analyse`.
        seed: of all resampling.
        n_bootstrap: resamples.
        provenance: table name to its metadata.
        title: of the page.
        credit: whose pictures are shown and under what licence.
    """
    tables = (workspace.scores, workspace.cases, workspace.restorations)
    scored = workspace.scores[workspace.scores["status"] == "ok"]
    known = infos or {}
    methods = {method: known.get(method) for method in sorted(workspace.scores["method"].unique())}
    published = match_published(workspace.benchmarks, methods, workspace.signatures)
    analysis = analyse(
        *tables,
        workspace.directions,
        published=published,
        infos=known,
        benchmarks=workspace.benchmarks,
        failures=failures,
        seed=seed,
        n_bootstrap=n_bootstrap,
    )
    features = case_features(workspace.cases, references, degradations, attributes)
    gated = None
    if gate is not None and gate.metric in set(scored["metric"]):
        gated = identity_gate(*tables, analysis.leaderboard, gate, quality)
    benchmarks = set(scored["benchmark"])
    compared = {
        name: paired_benchmarks(*tables, first, second, workspace.directions, seed=seed, n_bootstrap=n_bootstrap)
        for name, (first, second) in (pairs or {}).items()
        if {first, second} <= benchmarks
    }
    return ReportData(
        analysis=analysis,
        scores=workspace.scores,
        cases=workspace.cases,
        restorations=workspace.restorations,
        directions=workspace.directions,
        resolve=resolve,
        signatures=workspace.signatures,
        benchmarks=workspace.benchmarks,
        unavailable=workspace.unavailable,
        notes=workspace.notes,
        infos=known,
        features=features,
        subgroups=subgroup_means(*tables, bins(features), workspace.directions, seed=seed),
        published=published,
        gate=gated,
        pairs=compared,
        provenance=provenance or {},
        failures=failures,
        title=title,
        credit=credit,
    )


def write_report(report: ReportData, folder: str | Path, options: HtmlOptions | None = None) -> ReportFiles:
    """Write ``leaderboard.md``, ``leaderboard.tex``, ``leaderboard.csv`` and ``report.html`` into a folder.

    Args:
        report: from `build_report`.
        folder: made if it does not exist.
        options: how many pictures the page carries.
    """
    folder = Path(folder)
    board = report.analysis.leaderboard
    written = {}
    texts = {
        "md": to_markdown(board, report.notes, failures=report.failures),
        "tex": to_latex(board, notes=report.notes, failures=report.failures),
        "csv": to_csv(board),
    }
    for name, text in texts.items():
        written[name] = folder / f"leaderboard.{name}"
        write_atomic(written[name], text.encode())
    return ReportFiles(
        written["md"], written["tex"], written["csv"], render_html(report, folder / "report.html", options)
    )
