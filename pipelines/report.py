"""Scores -> leaderboard, Markdown, LaTeX, CSV and the HTML page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ffhqref.cli import launch
from ffhqref.hashing import content_key
from ffhqref.leaderboard.html.page import HtmlOptions
from ffhqref.leaderboard.published import BenchmarkInfo
from ffhqref.leaderboard.report import ReportInput, make_report
from ffhqref.restorers.base import RestorerInfo
from ffhqref.tables import read_metadata

from ._common import Context, open_context

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("images", "embeddings", "identities", "references", "degradations", "cases", "restorations", "scores")


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return report(context)


def report(context: Context) -> int:
    """Write ``leaderboard`` and the files of the folder ``report``."""
    workspace, options = context.workspace, context.config["report"]
    facts = {name: read_metadata(workspace.root, name) for name in TABLES}
    cases = workspace.read("cases")
    dataset = facts["images"]["dataset"]
    given = ReportInput(
        scores=workspace.read("scores"),
        cases=cases,
        restorations=workspace.read("restorations"),
        references=workspace.read("references"),
        degradations=workspace.read("degradations"),
        directions={**dict.fromkeys(facts["scores"]["unavailable"], True), **facts["scores"]["directions"]},
        signatures=facts["scores"]["signatures"],
        infos={name: _info(info) for name, info in facts["restorations"]["infos"].items()},
        benchmarks=_benchmarks(cases, facts["cases"]["config"], dataset, facts["cases"]["inputs"]),
        provenance=facts,
        resolve=workspace.resolve,
        credit=dataset["attribution"] or dataset["licence"],
        title=f"Face restoration on {dataset['name']}",
    )
    analysis, page = make_report(
        given,
        workspace.root / "report",
        failures=options["failures"],
        seed=context.seed,
        n_bootstrap=options["n_bootstrap"],
        html=HtmlOptions(max_embedded_cases=options["max_cases"], max_megabytes=options["max_megabytes"]),
    )
    workspace.write("leaderboard", analysis.leaderboard, inputs=("scores", "restorations", "cases"), config=options,
                    signatures=given.signatures)  # fmt: skip
    _print(analysis.leaderboard)
    sys.stdout.write(f"leaderboard: {workspace.root / 'tables' / 'leaderboard.parquet'}\n")
    sys.stdout.write(f"page: {page.path}\n")
    return int(bool(page.unreadable))


def _info(stored: dict[str, Any]) -> RestorerInfo:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    return RestorerInfo(**fields)


def _benchmarks(
    cases: pd.DataFrame, config: dict[str, Any], dataset: dict[str, Any], inputs: dict[str, str]
) -> dict[str, BenchmarkInfo]:
    found = {}
    for name, options in config.items():
        mine = cases[cases["benchmark"] == name]
        found[name] = BenchmarkInfo(
            name=name,
            dataset=options.get("published_set") or f"{dataset['name']} {options.get('split') or ''}".strip(),
            degradation=options.get("published_degradation") or options.get("degradation") or "",
            max_references=options.get("references"),
            n_cases=len(mine),
            people_from="FFHQ" if dataset["name"] == "ffhq" else "",
            protocol_hash=content_key(options, inputs, sorted(mine["case_id"])),
        )
    return found


def _print(board: pd.DataFrame) -> None:
    from rich.console import Console

    from ffhqref.leaderboard.render import to_rich

    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(to_rich(board))


if __name__ == "__main__":
    sys.exit(launch("report"))
