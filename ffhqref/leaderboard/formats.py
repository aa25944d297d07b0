"""The files that a report becomes; other packages add formats through entry points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.escape import csv_text
from ffhqref.core.files import write_atomic
from ffhqref.leaderboard import FORMATS

if TYPE_CHECKING:
    from ffhqref.leaderboard.report import Report


@dataclass(frozen=True)
class Written:
    """What a format wrote."""

    files: tuple[Path, ...]
    warnings: tuple[str, ...] = ()
    """Lines for the user."""


class ReportFormat(ABC):
    """One way of writing a report."""

    @abstractmethod
    def write(self, report: Report, folder: Path) -> Written:
        """Write the report into a folder, each file atomically."""


class TextFormat(ReportFormat):
    """A format that is one text file."""

    file: str

    @abstractmethod
    def text(self, report: Report) -> str:
        """Return the content of the file."""

    def write(self, report: Report, folder: Path) -> Written:
        """Write the file."""
        write_atomic(folder / self.file, self.text(report).encode())
        return Written((folder / self.file,))


class MarkdownFormat(TextFormat):
    """Tables for GitHub."""

    file = "leaderboard.md"

    def text(self, report: Report) -> str:
        """Return one table a benchmark."""
        from ffhqref.leaderboard.pairs import markdown_pairs
        from ffhqref.leaderboard.render import markdown_tables

        text = markdown_tables(
            report.leaderboard,
            report.notes,
            failures=report.options.failures,
            arrangement=report.arrangement,
            origin=_origin(report),
        )
        return "\n".join(filter(None, (text, markdown_pairs(report.pair_tables))))


class LatexFormat(TextFormat):
    """Tables for a paper."""

    file = "leaderboard.tex"

    def text(self, report: Report) -> str:
        """Return one table a benchmark."""
        from ffhqref.leaderboard.pairs import latex_pairs
        from ffhqref.leaderboard.render import latex_tables

        text = latex_tables(
            report.leaderboard,
            notes=report.notes,
            failures=report.options.failures,
            arrangement=report.arrangement,
            origin=_origin(report),
        )
        return "\n".join(filter(None, (text, latex_pairs(report.pair_tables))))


class CsvFormat(TextFormat):
    """The table ``leaderboard``, with what its numbers are and where they are from in columns of their own."""

    file = "leaderboard.csv"

    def text(self, report: Report) -> str:
        """Return the table, numbers in full precision."""
        board, told = report.leaderboard, dict(report.origin)
        warnings = {table.benchmark: table.warning for table in report.tables}
        return csv_text(
            board.assign(
                people=board["benchmark"].map(report.arrangement.people).astype("Int64"),
                warning=board["benchmark"].map(warnings),
                signature=board["metric"].map(report.signatures),
                scored=told.get("scored", ""),
                versions=told.get("versions", ""),
            )
        )


def _origin(report: Report) -> list[str]:
    """Return where the numbers are from and what the metrics are, line by line."""
    lines = [f"{what}: {text}" for what, text in report.origin]
    return lines + [f"{metric}: {signature}" for metric, signature in sorted(report.signatures.items())]


def write_report(report: Report, folder: str | Path) -> Written:
    """Write a report into a folder, made if it does not exist, in the formats of its options.

    Raises:
        ConfigError: unknown format.
    """
    formats = [FORMATS.get(name)() for name in report.options.formats]
    parts = [one.write(report, Path(folder)) for one in formats]
    return Written(
        tuple(file for part in parts for file in part.files), tuple(line for part in parts for line in part.warnings)
    )
