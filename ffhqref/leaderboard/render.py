"""The leaderboard as Markdown, LaTeX and a terminal table, all from the same frame."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.escape import csv_cell, latex, markdown
from ffhqref.core.progress import show
from ffhqref.leaderboard.view import FEW_PEOPLE, Arrangement, BenchmarkTable, MethodRow, arrow, tables
from ffhqref.store.tables import read_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from ffhqref.leaderboard.board import BoardRow
    from ffhqref.leaderboard.options import ReportOptions
    from ffhqref.store.workspace import Workspace

LEGEND = (
    "Mean over cases [95 % interval over identities]. Bold: best mean. *: cannot be told from the best (its rank "
    "interval contains 1; paired tests, corrected for all pairs). †: trained on the people tested. ‡: not run on all "
    "cases, not ranked."
)
NO_ORDER = f"Below {FEW_PEOPLE} people there is no order: nothing is marked as best."
BASELINES = "Baselines, not ranked"
FAILED = {
    "worst": "Failed cases count as the worst value of the metric.",
    "excluded": "Failed cases are left out of the means, and a method with failures is not ranked.",
}
"""What a table says of failures, by the policy of `ffhqref.leaderboard.aggregate.analyse`."""


def markdown_tables(
    board: pd.DataFrame,
    notes: Mapping[str, Mapping[str, str]] | None = None,
    *,
    failures: str = "worst",
    arrangement: Arrangement | None = None,
    origin: Sequence[str] = (),
) -> str:
    """Return one GitHub table a benchmark, with intervals, ties, failures and published numbers.

    Args:
        board: table ``leaderboard``.
        notes: benchmark to metric to a line below the table, such as the number of images of a set distance.
        failures: the policy that the board was made with, a key of `FAILED`.
        arrangement: of the rows.
        origin: lines at the end that say what the numbers are and where they are from.
    """
    parts = []
    views = tables(board, arrangement)
    for table in views:
        seconds, failed = _extra_columns(table)
        head = ["Method", *(f"{markdown(metric)} {arrow(table.higher_is_better[metric])}" for metric in table.metrics)]
        head += ["Failed"] * failed + [markdown(table.seconds_title)] * seconds
        lines = [md_line(head), md_line([":--", *["--:"] * (len(head) - 1)])]
        for row in table.rows:
            if row.baseline and row is table.baselines[0]:
                lines.append(md_line([f"*{BASELINES}*", *[""] * (len(head) - 1)]))
            cells = [markdown(row.method) + _marks(row)]
            for metric in table.metrics:
                cell = row.cells.get(metric)
                cells.append("–" if cell is None else _md_cell(table, cell))
            cells += [str(row.n_failed)] * failed + [_seconds(row)] * seconds
            lines.append(md_line(cells))
        parts.append(f"### {markdown(table.benchmark)}\n\n" + "\n".join(lines))
        parts += [
            f"{markdown(metric)}: {markdown(note)}." for metric, note in (notes or {}).get(table.benchmark, {}).items()
        ]
        if table.absent:
            parts.append(f"Without any value: {', '.join(map(markdown, table.absent))}.")
        if table.warning:
            parts.append(f"**{table.warning}.**")
    words = (arrangement or Arrangement()).order_words
    parts.append(f"{_legend(views)} {FAILED[failures]} Rows: by {markdown(words)}.")
    return "\n\n".join([*parts, *(["  \n".join(map(markdown, origin))] if origin else [])]) + "\n"


def _legend(views: Sequence[BenchmarkTable]) -> str:
    """Return what the marks mean, as far as there are any."""
    if views and all(view.too_few for view in views):
        start, rest = LEGEND.index("Bold:"), LEGEND.index("†:")
        return LEGEND[:start] + LEGEND[rest:]
    return f"{LEGEND} {NO_ORDER}" if any(view.too_few for view in views) else LEGEND


def latex_tables(
    board: pd.DataFrame,
    *,
    names: Mapping[str, str] | None = None,
    notes: Mapping[str, Mapping[str, str]] | None = None,
    failures: str = "worst",
    arrangement: Arrangement | None = None,
    origin: Sequence[str] = (),
) -> str:
    r"""Return one ``table*`` a benchmark, ready for a paper that loads ``booktabs``.

    The best mean is bold, methods that cannot be told from it carry an asterisk; below each mean its 95 % interval.

    Args:
        board: table ``leaderboard``.
        names: how methods, metrics and benchmarks are printed, as LaTeX; others are escaped.
        notes: benchmark to metric to a sentence of the caption.
        failures: the policy that the board was made with, a key of `FAILED`.
        arrangement: of the rows.
        origin: comments at the beginning that say what the numbers are and where they are from.
    """
    shown = dict(names or {})

    def name(text: str) -> str:
        return shown.get(text) or latex(text)

    parts = ["\n".join(["% needs \\usepackage{booktabs}", *(f"% {' '.join(line.split())}" for line in origin)])]
    for table in tables(board, arrangement):
        seconds, failed = _extra_columns(table)
        ways = {True: r"$\uparrow$", False: r"$\downarrow$"}
        head = ["Method", *(f"{name(metric)} {ways[table.higher_is_better[metric]]}" for metric in table.metrics)]
        head += ["Failed"] * failed + [latex(table.seconds_title)] * seconds
        lines = []
        for row in table.rows:
            if row.baseline and row is table.baselines[0]:
                lines.append(r"\midrule")
            marks = r"$^{\dagger}$" * bool(row.leak) + r"$^{\ddagger}$" * row.partial
            cells = [name(row.method) + marks]
            for metric in table.metrics:
                cell = row.cells.get(metric)
                cells.append("--" if cell is None else _tex_cell(table, cell))
            cells += [str(row.n_failed)] * failed + [_seconds(row).replace("–", "--")] * seconds
            lines.append(" & ".join(cells) + r" \\")
        caption = f"{name(table.benchmark)}. Mean over cases with its 95\\,\\% interval (bootstrap over identities)."
        if table.warning:
            caption += f" {table.warning.capitalize()}."
        else:
            caption += (
                " Bold: best mean; $^{\\ast}$: cannot be told from the best (paired tests, corrected for all pairs)."
            )
        caption += " Below the line: baselines, not ranked." * bool(table.baselines)
        caption += " $^{\\dagger}$: trained on the people tested." * any(row.leak for row in table.rows)
        caption += " $^{\\ddagger}$: not run on all cases, not ranked." * any(row.partial for row in table.rows)
        caption += f" {FAILED[failures]}" * failed
        caption += "".join(
            f" {name(metric)}: {latex(note)}." for metric, note in (notes or {}).get(table.benchmark, {}).items()
        )
        parts.append(
            "\n".join(
                [
                    r"\begin{table*}",
                    r"  \centering",
                    f"  \\caption{{{caption}}}",
                    f"  \\label{{tab:{_label(table.benchmark)}}}",
                    f"  \\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
                    r"    \toprule",
                    "    " + " & ".join(head) + r" \\",
                    r"    \midrule",
                    *(f"    {line}" for line in lines),
                    r"    \bottomrule",
                    r"  \end{tabular}",
                    r"\end{table*}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def tsv_table(table: BenchmarkTable) -> str:
    """Return a benchmark for a spreadsheet: a line a method, each mean with both ends, numbers in full precision."""
    head = ["method", *(column for m in table.metrics for column in (m, f"{m} low", f"{m} high")), "failed", "s/image"]
    lines = [head]
    for row in table.rows:
        line = [row.method]
        for metric in table.metrics:
            cell = row.cells.get(metric)
            ends = (math.nan,) * 3 if cell is None else (cell.mean, cell.ci_low, cell.ci_high)
            line += ["" if math.isnan(value) else repr(value) for value in ends]
        lines.append([*line, str(row.n_failed), "" if row.seconds is None else repr(row.seconds)])
    return "".join("\t".join(str(csv_cell(cell)) for cell in line) + "\n" for line in lines)


def terminal_tables(
    board: pd.DataFrame, *, max_metrics: int = 8, failures: str = "worst", arrangement: Arrangement | None = None
) -> RenderableType:
    """Return the leaderboard for a terminal: one table a benchmark, to be printed by a ``rich`` console.

    Args:
        board: table ``leaderboard``.
        max_metrics: columns at most; further metrics are named below the table.
        failures: the policy that the board was made with, a key of `FAILED`.
        arrangement: of the rows.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    views = tables(board, arrangement)
    for table in views:
        parts.append(_rich_grid(table, table.metrics[:max_metrics]))
        if table.baselines:
            parts.append(Text("below the line: baselines, not ranked", style="dim"))
        if table.warning:
            parts.append(Text(table.warning, style="bold"))
        if table.absent:
            parts.append(Text("without any value: " + ", ".join(table.absent), style="dim"))
        if len(table.metrics) > max_metrics:
            parts.append(Text("also scored: " + ", ".join(table.metrics[max_metrics:]), style="dim"))
    words = (arrangement or Arrangement()).order_words
    parts.append(Text(f"{_legend(views)} {FAILED[failures]} Rows: by {words}.", style="dim"))
    return Group(*parts)


def _rich_grid(table: BenchmarkTable, metrics: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    seconds, failed = _extra_columns(table)
    grid = Table(title=Text(table.benchmark), title_justify="left", title_style="bold", pad_edge=False)
    grid.add_column("method")
    for metric in metrics:
        grid.add_column(Text(f"{metric} {arrow(table.higher_is_better[metric])}"), justify="right")
    for title, on in (("failed", failed), (table.seconds_title, seconds)):
        if on:
            grid.add_column(title, justify="right")
    for row in table.rows:
        cells = [Text(row.method + _marks(row))]
        cells += [_rich_cell(table, row.cells.get(metric)) for metric in metrics]
        cells += [Text(str(row.n_failed), style="red" if row.n_failed else "dim")] * failed
        cells += [Text(_seconds(row))] * seconds
        if row.baseline and row is table.baselines[0]:
            grid.add_section()
        grid.add_row(*cells, style="dim italic" if row.baseline else "")
    return grid


def _rich_cell(table: BenchmarkTable, cell: BoardRow | None) -> Text:
    from rich.text import Text

    if cell is None:
        return Text("–", style="dim")
    digits = table.decimals[cell.metric]
    mean = f"{cell.mean:.{digits}f}{'*' if table.tied(cell) else ''}"
    text = Text(mean, style="bold" if table.best(cell) else "")
    if not math.isnan(cell.ci_low):
        text.append(f"\n{_interval(cell, digits)}", style="dim not bold")
    return text


def _interval(cell: BoardRow, digits: int) -> str:
    """Return both ends: an interval of a bootstrap is not symmetric."""
    return f"[{cell.ci_low:.{digits}f}, {cell.ci_high:.{digits}f}]"


def print_leaderboard(workspace: Workspace, options: ReportOptions) -> None:
    """Print the leaderboard of a workspace and where the report lies."""
    board = workspace.read("leaderboard")
    arrangement = Arrangement.of(read_metadata(workspace.root, "leaderboard")["arrangement"])
    show(terminal_tables(board, failures=options.failures, arrangement=arrangement), 160)
    sys.stdout.write(f"leaderboard: {workspace.root / 'tables' / 'leaderboard.parquet'}\n")
    if "html" in options.formats:
        sys.stdout.write(f"page: {report_folder(workspace, options) / 'report.html'}\n")


def means(board: pd.DataFrame) -> dict[str, float]:
    """Return the means of a leaderboard by ``benchmark/method/metric``."""
    known = board.dropna(subset=["mean"])
    names = known["benchmark"] + "/" + known["method"] + "/" + known["metric"]
    return dict(zip(names, known["mean"].astype(float), strict=True))


def report_folder(workspace: Workspace, options: ReportOptions) -> Path:
    """Return where the files of a report are written."""
    return Path(options.folder).expanduser().absolute() if options.folder else workspace.root / "report"


def _extra_columns(table: BenchmarkTable) -> tuple[bool, bool]:
    return any(row.seconds is not None for row in table.rows), any(row.n_failed for row in table.rows)


def _marks(row: MethodRow) -> str:
    return " †" * bool(row.leak) + " ‡" * row.partial


def _seconds(row: MethodRow) -> str:
    return "–" if row.seconds is None else f"{row.seconds:.3g} {row.device}".strip()


def md_line(cells: list[str]) -> str:
    """Return a row of a GitHub table."""
    return "| " + " | ".join(cells) + " |"


def _md_cell(table: BenchmarkTable, cell: BoardRow) -> str:
    digits = table.decimals[cell.metric]
    mean = f"{cell.mean:.{digits}f}"
    text = f"**{mean}**" if table.best(cell) else mean + "\\*" * table.tied(cell)
    if not math.isnan(cell.ci_low):
        text += f" {_interval(cell, digits)}"
    return text if cell.published is None else f"{text} (published {cell.published:g})"


def _label(text: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in text.lower())


def _tex_cell(table: BenchmarkTable, cell: BoardRow) -> str:
    digits = table.decimals[cell.metric]
    mean = f"{cell.mean:.{digits}f}"
    text = f"\\textbf{{{mean}}}" if table.best(cell) else mean
    text += "$^{\\ast}$" * table.tied(cell)
    if not math.isnan(cell.ci_low):
        text += f" {{\\scriptsize {_interval(cell, digits)}}}"
    return text
