"""Tables of the page as text to copy, and rows of papers beside measured ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ffhqref.leaderboard.pairs import latex_pairs, markdown_pairs, tsv_pairs
from ffhqref.leaderboard.render import latex_tables, markdown_tables, tsv_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ffhqref.leaderboard.published import PublishedRow
    from ffhqref.leaderboard.report import Report
    from ffhqref.leaderboard.view import BenchmarkTable


def copies(report: Report) -> dict[str, list[dict[str, str]]]:
    """Return the texts of each table: of benchmarks, and of comparisons of two benchmarks."""
    return {
        "board": [_board(report, view) for view in report.tables],
        "pair": [
            {"TSV": tsv_pairs(table), "Markdown": markdown_pairs([table]), "LaTeX": latex_pairs([table])}
            for table in report.pair_tables
        ],
    }


def _board(report: Report, view: BenchmarkTable) -> dict[str, str]:
    board = report.leaderboard[report.leaderboard["benchmark"] == view.benchmark]
    failures, arrangement = report.options.failures, report.arrangement
    return {
        "TSV": tsv_table(view),
        "Markdown": markdown_tables(board, report.notes, failures=failures, arrangement=arrangement),
        "LaTeX": latex_tables(board, notes=report.notes, failures=failures, arrangement=arrangement),
    }


class Printed:
    """Printed rows of a benchmark, and the reasons why numbers cannot be compared, each with a letter.

    Args:
        rows: of the benchmark.
    """

    def __init__(self, rows: Sequence[PublishedRow]) -> None:
        self.rows = rows
        told = dict.fromkeys(cell.reason for row in rows for cell in row.cells.values() if cell.reason)
        self.letters = {reason: _letter(place) for place, reason in enumerate(told)}


def _letter(place: int) -> str:
    """Return a, b, ..., z, aa, ab, ...

    >>> _letter(0), _letter(25), _letter(26)
    ('a', 'z', 'aa')
    """
    first, second = divmod(place, 26)
    return (chr(96 + first) if first else "") + chr(97 + second)
