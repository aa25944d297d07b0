"""Scores -> leaderboard, Markdown, LaTeX, CSV and the HTML page; of one workspace or of several (``merge=[A,B]``)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.cli import launch
from ffhqref.engine import Journal
from ffhqref.errors import ConfigError
from ffhqref.hashing import content_key, sha256_file
from ffhqref.leaderboard.aggregate import FAILURE_POLICIES
from ffhqref.leaderboard.html import HtmlOptions
from ffhqref.leaderboard.report import build_report, write_report
from ffhqref.leaderboard.sources import Source, merge_sources, read_facts, read_source
from ffhqref.leaderboard.summary import IdentityGate
from ffhqref.leaderboard.version import renderer_version
from ffhqref.workspace import Workspace

from ._common import Context, check_integer, group_of, open_context

if TYPE_CHECKING:
    import pandas as pd


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        check_report(context)
        merged = context.config["merge"]
        if merged is None:
            return report(context, [context.workspace])
        if not isinstance(merged, list) or not merged:
            raise ConfigError(f"merge={merged}: expected the folders of workspaces, merge=[FIRST,SECOND]")
        return report(context, [Workspace(str(folder), read_only=True) for folder in merged])


def check_report(context: Context) -> None:
    """Refuse wrong values of the report's options before any work."""
    options = context.config["report"]
    if not isinstance(options, dict):
        raise ConfigError(f"report={options}: expected the options of the report; leave it out for the defaults")
    if options["failures"] not in FAILURE_POLICIES:
        raise ConfigError(f"report.failures={options['failures']}: expected one of {', '.join(FAILURE_POLICIES)}")
    for key, least in (("n_bootstrap", 10), ("max_cases", 0)):
        check_integer(options, key, least, prefix="report.")
    if not isinstance(options["max_megabytes"], (int, float)) or options["max_megabytes"] < 0:
        raise ConfigError(f"report.max_megabytes={options['max_megabytes']}: expected a number of at least 0")
    if not isinstance(options["quality"], list):
        raise ConfigError(f"report.quality={options['quality']}: expected a list of metrics, report.quality=[niqe]")
    gate = options["gate"]
    if gate is not None:
        if not isinstance(gate, dict) or not {"metric", "threshold"} <= set(gate):
            raise ConfigError(f"report.gate={gate}: expected null or {{metric: ids, threshold: 0.5}}")
        if gate["metric"] not in group_of(context.config, "metric"):
            raise ConfigError(f"report.gate.metric={gate['metric']}: not among the metrics of this run")


def report(context: Context, workspaces: list[Workspace]) -> int:
    """Write ``leaderboard`` and the files of the folder ``report``, unless they are there for these very tables."""
    own, options = context.workspace, context.config["report"]
    for workspace in workspaces:
        workspace.check_current("scores")
    facts = [read_facts(workspace) for workspace in workspaces]
    names = [str(workspace.root) for workspace in workspaces] if workspaces != [own] else []  # the page shows them
    folder = own.root / "report"
    key = content_key("report", [renderer_version(), sha256_file(__file__)], facts, names, options, context.seed)
    with Journal(own.journals / "report.jsonl") as journal:
        known = journal.get(key)
        table = own.root / "tables" / "leaderboard.parquet"
        if known is None or not all(_same(own.root / name, sha256) for name, sha256 in known["files"].items()):
            context.reporter.begin("report")
            _write(context, merge_sources([read_source(workspace) for workspace in workspaces]))
            written = ("leaderboard.md", "leaderboard.tex", "leaderboard.csv", "report.html")
            files = [table, *(folder / name for name in written)]
            journal.add({key: {"files": {path.relative_to(own.root).as_posix(): sha256_file(path) for path in files}}})
    _print(own.read("leaderboard"), options["failures"])
    sys.stdout.write(f"leaderboard: {table}\npage: {folder / 'report.html'}\n")
    return 0


def _same(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _write(context: Context, source: Source) -> None:
    workspace, options = context.workspace, context.config["report"]
    gate = options["gate"]
    data = build_report(
        source.scored,
        Path,
        infos=source.infos,
        references=source.references,
        degradations=source.degradations,
        attributes=source.attributes,
        gate=IdentityGate(**gate) if gate else None,
        quality=options["quality"],
        pairs=source.pairs,
        failures=options["failures"],
        seed=context.seed,
        n_bootstrap=options["n_bootstrap"],
        provenance=source.facts,
        title=f"Face restoration on {' and '.join(source.datasets)}",
        credit="; ".join(source.credits),
    )
    used = {name: facts["content"] for name, facts in source.facts.items()}
    workspace.write(
        "leaderboard", data.analysis.leaderboard, inputs=used, config=options, signatures=source.scored.signatures
    )
    html = HtmlOptions(max_embedded_cases=options["max_cases"], max_megabytes=options["max_megabytes"])
    made = write_report(data, workspace.root / "report", html)
    for path in made.html.unreadable[:5]:
        context.reporter.say(f"page: cannot show {path}")


def _print(board: pd.DataFrame, failures: str) -> None:
    from rich.console import Console

    from ffhqref.leaderboard.render import to_rich

    Console(width=None if sys.stdout.isatty() else 160).print(to_rich(board, failures=failures))


if __name__ == "__main__":
    sys.exit(launch("report"))
