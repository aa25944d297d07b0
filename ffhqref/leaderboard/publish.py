"""Writes the leaderboard and the report of a workspace, unless they are there for these very tables."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import content_key, sha256_file
from ffhqref.engine import Journal
from ffhqref.leaderboard import FORMATS
from ffhqref.leaderboard.formats import write_report
from ffhqref.leaderboard.merge import merge_reports
from ffhqref.leaderboard.origin import command_line, short_names, without_places
from ffhqref.leaderboard.reading import read_facts, read_report
from ffhqref.leaderboard.render import report_folder
from ffhqref.store.tables import table_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ffhqref.core.progress import Reporter
    from ffhqref.leaderboard.options import ReportOptions
    from ffhqref.leaderboard.report import Report
    from ffhqref.store.workspace import Workspace

SUFFIXES = (".py", ".js", ".css", ".j2", ".csv")


def publish(
    own: Workspace,
    workspaces: Sequence[Workspace],
    shown: Mapping[str, Sequence[str]],
    options: ReportOptions,
    seed: int,
    reporter: Reporter,
) -> None:
    """Write the table ``leaderboard`` and the files of the folder ``report``.

    Args:
        own: the workspace to write to.
        workspaces: those to read; several are merged.
        shown: methods, benchmarks and metrics, see `ffhqref.leaderboard.report.Report.restricted`.
        options: of the report.
        seed: of all resampling.
        reporter: told of warnings.
    """
    facts = [read_facts(workspace) for workspace in workspaces]
    names = (
        [str(workspace.root) for workspace in workspaces] if list(workspaces) != [own] else []
    )  # the page names them
    key = content_key("report", _version(options), facts, names, options.model_dump(), seed, shown)
    with Journal(own.journals / "report.jsonl", dict) as journal:
        known = journal.get(key)
        if known and all(_same(own.root / name, sha256) for name, sha256 in known["files"].items()):
            return
        reporter.begin("report")
        report = merge_reports([read_report(one, options, seed).restricted(**shown) for one in workspaces])
        inputs = {name: table["content"] for name, table in report.provenance.items()}
        made = [_compared(own, report, inputs, options)]
        table = own.write(
            "leaderboard",
            report.leaderboard,
            inputs=inputs,
            config=options.model_dump(mode="json"),
            signatures=report.signatures,
            arrangement=report.arrangement.facts,
        )
        shown_as = without_places(
            replace(_named(report, reporter), command=command_line()), short_names([w.root for w in workspaces])
        )
        written = write_report(shown_as, report_folder(own, options))
        for line in written.warnings:
            reporter.say(line)
        files = {
            Path(os.path.relpath(path, own.root)).as_posix(): sha256_file(path)
            for path in (table, *filter(None, made), *written.files)
        }
        journal.add({key: {"files": files}})


def _compared(own: Workspace, report: Report, inputs: Mapping[str, str], options: ReportOptions) -> Path | None:
    """Write the table ``comparisons``, or take an old one away where nothing is compared."""
    if report.comparisons is None:
        table_path(own.root, "comparisons").unlink(missing_ok=True)
        return None
    return own.write("comparisons", report.comparisons, inputs=inputs, config=options.model_dump(mode="json"))


def _named(report: Report, reporter: Reporter) -> Report:
    """Return the report with the display names of its options.

    Raises:
        ConfigError: two methods would have one name.
    """
    names = report.options.names
    methods = sorted(report.scores["method"].unique())
    unknown = [name for name in names if name not in methods]
    if unknown:
        reporter.say(f"report.names: no method in the tables is called {', '.join(unknown)}")
    shown = [names.get(name, name) for name in methods]
    doubled = sorted({name for name in shown if shown.count(name) > 1})
    if doubled:
        raise ConfigError(f"report.names: two methods would be called '{doubled[0]}'")
    return report.renamed({name: text for name, text in names.items() if name in methods})


def _same(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _version(options: ReportOptions) -> list[str]:
    """Return hashes of the code that makes the report: this package's, and that of formats of other packages."""
    sources = [inspect.getsourcefile(FORMATS.get(name)) for name in options.formats if name in FORMATS.plugin_names()]
    return [renderer_version(), *(sha256_file(source) for source in sources if source)]


def renderer_version(folder: Path | None = None) -> str:
    """Return a hash over what makes leaderboards and pages: code, templates, scripts, styles, published numbers.

    Args:
        folder: theirs; None: this package.
    """
    folder = folder or Path(__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    return content_key([[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files])
