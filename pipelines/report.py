"""Scores -> leaderboard, Markdown, LaTeX, CSV and the HTML page; of one workspace or of several (``merge=[A,B]``)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import content_key, sha256_file
from ffhqref.engine import Journal
from ffhqref.leaderboard.aggregate import FAILURE_POLICIES
from ffhqref.leaderboard.html import HtmlOptions
from ffhqref.leaderboard.report import build_report, write_report
from ffhqref.leaderboard.sources import CASE, Source, merge_sources, read_facts, read_source, restrict
from ffhqref.leaderboard.summary import IdentityGate
from ffhqref.leaderboard.version import renderer_version
from ffhqref.metrics.set_scoring import SET_METRICS
from ffhqref.store.workspace import Workspace

from ._chosen import named
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
        if not isinstance(merged, list) or not merged or not all(isinstance(one, (str, int)) for one in merged):
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
    if not isinstance(options["quality"], list) or not all(isinstance(name, str) for name in options["quality"]):
        raise ConfigError(f"report.quality={options['quality']}: expected a list of metrics, report.quality=[niqe]")
    gate = options["gate"]
    if gate is not None:
        number = isinstance(gate, dict) and isinstance(gate.get("threshold"), (int, float))
        if not number or set(gate) != {"metric", "threshold"}:
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
    shown = _shown(context, workspaces, facts)
    key = content_key("report", [renderer_version(), sha256_file(__file__)], facts, names, options, context.seed, shown)
    with Journal(own.journals / "report.jsonl", dict) as journal:
        known = journal.get(key)
        table = own.root / "tables" / "leaderboard.parquet"
        if known is None or not all(_same(own.root / name, sha256) for name, sha256 in known["files"].items()):
            context.reporter.begin("report")
            _write(context, restrict(merge_sources([read_source(workspace) for workspace in workspaces]), **shown))
            written = ("leaderboard.md", "leaderboard.tex", "leaderboard.csv", "report.html")
            files = [table, *(folder / name for name in written)]
            journal.add({key: {"files": {path.relative_to(own.root).as_posix(): sha256_file(path) for path in files}}})
    _print(own.read("leaderboard"), options["failures"])
    sys.stdout.write(f"leaderboard: {table}\npage: {folder / 'report.html'}\n")
    return 0


def _shown(
    context: Context, workspaces: list[Workspace], facts: list[dict[str, dict[str, Any]]]
) -> dict[str, list[str]]:
    """Return the methods, benchmarks and metrics that the command names, all where it names none; say what is left out.

    Raises:
        ConfigError: a name that was not scored, or a limit below what was.
    """
    there: dict[str, dict[str, None]] = {"restorer": {}, "benchmark": {}, "metric": {}}
    for workspace, of in zip(workspaces, facts, strict=True):
        scored = workspace.read("scores")[CASE].drop_duplicates()
        cases = workspace.read("cases").merge(scored, on=CASE)
        there["restorer"] |= dict.fromkeys(of["restorations"]["infos"])
        there["benchmark"] |= {name: None for name in of["cases"]["config"] if name in set(cases["benchmark"])}
        there["metric"] |= dict.fromkeys(of["scores"]["directions"])
        _check_limit(context, workspace, cases)
    chosen, left = {}, []
    for group, names in there.items():
        chosen[group] = named(context, group, names, STEPS[group])
        if group == "metric":
            chosen[group] += [name for name in _kept_metrics(context) if name in names and name not in chosen[group]]
        missing = [name for name in names if name not in chosen[group]]
        left += [f"{group} {', '.join(missing)}"] if missing else []
    if left:
        context.reporter.say(f"report: in the tables, not named and so not shown: {'; '.join(left)}")
    return {"methods": chosen["restorer"], "benchmarks": chosen["benchmark"], "metrics": chosen["metric"]}


STEPS = {
    "restorer": "`ffhqref restore` and `score`",
    "benchmark": "`ffhqref degrade`, `restore` and `score`",
    "metric": "`ffhqref score`",
}
"""What makes a part that is not there."""


def _kept_metrics(context: Context) -> list[str]:
    """Return metrics that are shown though ``metric`` does not name them: of whole sets, and those of the gate."""
    gate = context.config["report"]["gate"]
    return [*SET_METRICS, *([gate["metric"], *context.config["report"]["quality"]] if gate else [])]


def _check_limit(context: Context, workspace: Workspace, cases: pd.DataFrame) -> None:
    """Refuse a limit below what was scored: the distances between whole sets belong to all of it."""
    if context.limit is None:
        return
    most = int(cases.groupby("benchmark")["target_id"].nunique().max())
    if most > context.limit:
        raise ConfigError(
            f"limit={context.limit}: {most} targets were scored in {workspace.root}; run `ffhqref score` with "
            f"limit={context.limit} first"
        )


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
