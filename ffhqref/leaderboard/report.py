"""From tables to the files that people read: leaderboard, Markdown, LaTeX, CSV and the HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.images import write_atomic

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.leaderboard.aggregate import Analysis
    from ffhqref.leaderboard.html.page import HtmlOptions, HtmlSummary
    from ffhqref.leaderboard.published import BenchmarkInfo
    from ffhqref.restorers.base import RestorerInfo


@dataclass(frozen=True)
class ReportInput:
    """The tables of a workspace and what their metadata say."""

    scores: pd.DataFrame
    cases: pd.DataFrame
    restorations: pd.DataFrame
    references: pd.DataFrame
    degradations: pd.DataFrame
    directions: Mapping[str, bool]
    signatures: Mapping[str, str]
    infos: Mapping[str, RestorerInfo]
    benchmarks: Mapping[str, BenchmarkInfo]
    provenance: Mapping[str, Mapping[str, Any]]
    resolve: Callable[[str], Path]
    credit: str = ""
    title: str = "Face restoration leaderboard"


def make_report(
    given: ReportInput,
    folder: str | Path,
    *,
    failures: str = "worst",
    seed: int = 0,
    n_bootstrap: int = 2000,
    html: HtmlOptions | None = None,
) -> tuple[Analysis, HtmlSummary]:
    """Rank, and write ``leaderboard.md``, ``.tex``, ``.csv`` and ``index.html`` into a folder.

    Args:
        given: the tables.
        folder: where the files go.
        failures: see `ffhqref.leaderboard.aggregate.analyse`.
        seed: of the resampling.
        n_bootstrap: resamples.
        html: how many pictures the page holds.

    Returns:
        The analysis, whose leaderboard is the table of that name, and what is in the page.
    """
    from ffhqref.leaderboard.aggregate import analyse
    from ffhqref.leaderboard.html.page import ReportData, render_html
    from ffhqref.leaderboard.published import match_published
    from ffhqref.leaderboard.render import to_csv, to_latex, to_markdown
    from ffhqref.leaderboard.subgroups import bins, case_features, subgroup_means

    frames = (given.scores, given.cases, given.restorations)
    methods = {method: given.infos.get(method) for method in sorted(set(given.scores["method"]))}
    published = match_published(given.benchmarks, methods, given.signatures)
    analysis = analyse(
        *frames,
        given.directions,
        published=published,
        infos=given.infos,
        benchmarks=given.benchmarks,
        failures=failures,
        seed=seed,
        n_bootstrap=n_bootstrap,
    )
    features = case_features(given.cases, given.references, given.degradations)
    groups = bins(features)
    data = ReportData(
        analysis=analysis,
        scores=given.scores,
        cases=given.cases,
        restorations=given.restorations,
        directions=given.directions,
        resolve=given.resolve,
        signatures=given.signatures,
        benchmarks=given.benchmarks,
        infos=given.infos,
        features=features,
        subgroups=subgroup_means(*frames, groups, given.directions, seed=seed, n_bootstrap=n_bootstrap // 2),
        published=published,
        provenance=given.provenance,
        title=given.title,
        credit=given.credit,
    )
    folder = Path(folder)
    board = analysis.leaderboard
    for name, text in (("md", to_markdown(board)), ("tex", to_latex(board)), ("csv", to_csv(board))):
        write_atomic(folder / f"leaderboard.{name}", text.encode())
    return analysis, render_html(data, folder / "index.html", html)
