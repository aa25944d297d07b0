"""The same targets under two conditions, as tables for readers: both means, the change and what it says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ffhqref.core.escape import latex, markdown
from ffhqref.leaderboard.render import md_line
from ffhqref.leaderboard.view import FEW_PEOPLE, arrow, decimals

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


@dataclass(frozen=True)
class PairRow:
    """A method and a metric under two conditions, as text; numbers with one minus sign, the hyphen."""

    metric: str
    """With the arrow of its direction."""
    method: str
    first: str
    second: str
    change: str
    """Signed, with the arrow of the way that the number goes."""
    interval: str
    p: str
    verdict: str
    """``better`` or ``worse`` under the second condition, or ``open``."""
    n: int


@dataclass(frozen=True)
class PairTable:
    """Two conditions."""

    title: str
    first: str
    second: str
    rows: tuple[PairRow, ...]
    people: int

    @property
    def head(self) -> tuple[str, ...]:
        """Headings of the columns."""
        return (
            "Metric", "Method", self.first, self.second, "Change", "95 % interval", "p, corrected", self.second,
            "Targets",
        )  # fmt: skip

    @property
    def warning(self) -> str:
        """What a reader must know of too few people; empty where there are enough."""
        return f"{self.people} people: too few to tell a change" if self.people < FEW_PEOPLE else ""


def pair_tables(comparisons: Mapping[str, pd.DataFrame]) -> list[PairTable]:
    """Return what readers see of title to comparison (`Report.age_comparisons`)."""
    found = []
    for title, frame in comparisons.items():
        rows = []
        for metric, part in frame.groupby("metric", sort=True):
            digits = decimals(float(part[["mean_first", "mean_second"]].abs().to_numpy(float).max()))
            rows += [_row(str(metric), record, digits) for record in part.to_dict("records")]
        names = frame[["first", "second"]].iloc[0].tolist() if len(frame) else ["", ""]
        people = int(frame["n_identities"].max()) if len(frame) else 0
        found.append(PairTable(title, names[0], names[1], tuple(rows), people))
    return found


def _row(metric: str, row: Mapping[Any, Any], digits: int) -> PairRow:
    def number(value: float) -> str:
        return "–" if math.isnan(value) else f"{value:.{digits}f}"

    change = float(row["difference"])
    way = "→" if float(f"{change:.{digits}f}") == 0 else "↑" if change > 0 else "↓"
    ahead = row["better"] if isinstance(row["better"], str) and row["n_identities"] >= FEW_PEOPLE else None
    return PairRow(
        metric=f"{metric} {arrow(bool(row['higher_is_better']))}",
        method=str(row["method"]),
        first=number(row["mean_first"]),
        second=number(row["mean_second"]),
        change=f"{change:+.{digits}f} {way}",
        interval=f"[{number(row['ci_low'])}, {number(row['ci_high'])}]",
        p="< 0.001" if row["p_adjusted"] < 0.001 else f"{row['p_adjusted']:.3f}",
        verdict="open" if ahead is None else "better" if ahead == row["second"] else "worse",
        n=int(row["n"]),
    )


def markdown_pairs(tables: list[PairTable]) -> str:
    """Return one GitHub table for two conditions."""
    parts = []
    for table in tables:
        lines = [
            md_line([markdown(name) for name in table.head]),
            "| :-- | :-- | --: | --: | --: | --: | --: | :-- | --: |",
        ]
        lines += [md_line([markdown(str(cell)) for cell in _cells(row)]) for row in table.rows]
        parts += [f"### {markdown(table.title)}", "\n".join(lines)]
        parts += [f"**{table.warning}.**"] if table.warning else []
    return "\n\n".join(parts) + "\n" if parts else ""


def tsv_pairs(table: PairTable) -> str:
    """Return the rows for a spreadsheet."""
    return "".join("\t".join(map(str, line)) + "\n" for line in (table.head, *map(_cells, table.rows)))


def latex_pairs(tables: list[PairTable]) -> str:
    r"""Return one ``table*`` for two conditions, for a paper that loads ``booktabs``."""
    parts = []
    for table in tables:
        lines, before = [], table.rows[0].metric if table.rows else ""
        for row in table.rows:
            lines += [r"\midrule"] if row.metric != before else []
            before = row.metric
            lines.append(" & ".join(latex(str(cell)) for cell in _cells(row)) + r" \\")
        caption = (
            f"{latex(table.title)}: means over the same targets, the change with its 95\\,\\% interval over people, "
            "and whether it is told apart from none (paired, corrected for all methods and metrics)."
        )
        caption += f" {latex(table.warning.capitalize())}." if table.warning else ""
        parts.append(
            "\n".join(
                [
                    r"\begin{table*}",
                    r"  \centering",
                    f"  \\caption{{{caption}}}",
                    r"  \begin{tabular}{llrrrrrlr}",
                    r"    \toprule",
                    "    " + " & ".join(map(latex, table.head)) + r" \\",
                    r"    \midrule",
                    *(f"    {line}" for line in lines),
                    r"    \bottomrule",
                    r"  \end{tabular}",
                    r"\end{table*}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n" if parts else ""


def _cells(row: PairRow) -> tuple[object, ...]:
    return row.metric, row.method, row.first, row.second, row.change, row.interval, row.p, row.verdict, row.n
