"""Scores -> leaderboard, Markdown, LaTeX, CSV and the HTML page."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.cli import launch
from ffhqref.engine import Journal
from ffhqref.hashing import content_key, sha256_file
from ffhqref.identity.agesets import LABEL
from ffhqref.leaderboard.html import HtmlOptions
from ffhqref.leaderboard.merge import Workspace as ScoredWorkspace
from ffhqref.leaderboard.published import BenchmarkInfo
from ffhqref.leaderboard.report import build_report, write_report
from ffhqref.leaderboard.summary import IdentityGate
from ffhqref.restorers.base import RestorerInfo
from ffhqref.tables import read_metadata

from ._common import Context, open_context

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("images", "embeddings", "identities", "references", "degradations", "cases", "restorations", "scores")
VERSION = "2"
"""Of what the report shows; raised when the same tables give another page."""


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return report(context)


def report(context: Context) -> int:
    """Write ``leaderboard`` and the files of the folder ``report``, unless they are there for these very tables."""
    workspace, options = context.workspace, context.config["report"]
    facts = {name: read_metadata(workspace.root, name) for name in TABLES}
    folder = workspace.root / "report"
    key = content_key("report", VERSION, facts, options, context.seed)
    with Journal(workspace.journals / "report.jsonl") as journal:
        known = journal.get(key)
        if known is None or not all(_same(folder / name, sha256) for name, sha256 in known["files"].items()):
            context.reporter.begin("report")
            _write(context, facts)
            names = ("leaderboard.md", "leaderboard.tex", "leaderboard.csv", "report.html")
            journal.add({key: {"files": {name: sha256_file(folder / name) for name in names}}})
    _print(workspace.read("leaderboard"))
    sys.stdout.write(f"leaderboard: {workspace.root / 'tables' / 'leaderboard.parquet'}\n")
    sys.stdout.write(f"page: {folder / 'report.html'}\n")
    return 0


def _same(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _write(context: Context, facts: dict[str, dict[str, Any]]) -> None:
    workspace, options = context.workspace, context.config["report"]
    cases, dataset = workspace.read("cases"), facts["images"]["dataset"]
    scored = ScoredWorkspace(
        name=str(workspace.root),
        scores=workspace.read("scores"),
        cases=cases,
        restorations=workspace.read("restorations"),
        directions=facts["scores"]["directions"],
        signatures=facts["scores"]["signatures"],
        benchmarks=_benchmarks(cases, facts["cases"]["config"], dataset, facts["cases"]["inputs"]),
    )
    gate = options["gate"]
    data = build_report(
        scored,
        workspace.resolve,
        infos={name: _info(info) for name, info in facts["restorations"]["infos"].items()},
        references=workspace.read("references"),
        degradations=workspace.read("degradations"),
        gate=IdentityGate(**gate) if gate else None,
        quality=options["quality"],
        pairs=_pairs(cases, facts["cases"]["config"]),
        failures=options["failures"],
        seed=context.seed,
        n_bootstrap=options["n_bootstrap"],
        provenance=facts,
        title=f"Face restoration on {dataset['name']}",
        credit=dataset["attribution"] or dataset["licence"],
    )
    board = data.analysis.leaderboard
    workspace.write("leaderboard", board, inputs=("scores", "restorations", "cases"), config=options,
                    signatures=scored.signatures)  # fmt: skip
    html = HtmlOptions(max_embedded_cases=options["max_cases"], max_megabytes=options["max_megabytes"])
    made = write_report(data, workspace.root / "report", html)
    for path in made.html.unreadable[:5]:
        context.reporter.say(f"page: cannot show {path}")


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
            title=LABEL if options.get("ages") else "",
            max_references=options.get("references"),
            n_cases=len(mine),
            people_from="FFHQ" if dataset["name"] == "ffhq" else "",
            protocol_hash=content_key(options, inputs, sorted(mine["case_id"])),
        )
    return found


def _pairs(cases: pd.DataFrame, config: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return title to the two benchmarks of a same-age against cross-age comparison; they must share targets."""
    targets = cases.groupby("benchmark")["target_id"].agg(set).to_dict()
    sides = {
        side: {name: options for name, options in config.items() if options.get("ages") == side and name in targets}
        for side in ("same", "cross")
    }
    return {
        f"same-age against cross-age ({same} and {cross})": (same, cross)
        for (same, first), (cross, second) in product(sides["same"].items(), sides["cross"].items())
        if all(first.get(key) == second.get(key) for key in ("degradation", "lq_folder"))
        and targets[same] & targets[cross]
    }


def _print(board: pd.DataFrame) -> None:
    from rich.console import Console

    from ffhqref.leaderboard.render import to_rich

    Console(width=None if sys.stdout.isatty() else 160).print(to_rich(board))


if __name__ == "__main__":
    sys.exit(launch("report"))
