"""Numbers that papers print, set by set. No Hydra: plain arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.escape import csv_text
from ffhqref.core.progress import show

if TYPE_CHECKING:
    import pandas as pd


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"published: {message}; see ffhqref published --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ffhqref published ...``; return the exit status.

    Raises:
        FfhqrefError: a wrong argument or an unknown set; one line.
    """
    parser = _Parser(prog="ffhqref published", description="Numbers that papers print, with their sources.")
    parser.add_argument("set", nargs="?", metavar="SET", help="set as papers call it, 'FFHQ-Ref test'; none: list them")
    parser.add_argument("--level", help="degradation level: Moderate, Severe, ...")
    parser.add_argument("--csv", action="store_true", help="write the rows as CSV to standard output")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    from ffhqref.leaderboard.published import published_numbers, published_sets

    if options.set is None:
        frame = published_sets()
        if options.csv:
            sys.stdout.write(csv_text(frame))
        else:
            _show("Sets that papers print numbers for: ffhqref published SET", frame)
        return 0
    rows = _of_set(published_numbers(), options.set, options.level)
    if options.csv:
        sys.stdout.write(csv_text(rows))
        return 0
    for (dataset, level), part in rows.groupby(["dataset", "degradation"], dropna=False):
        wide = part.pivot_table(
            index=["method", "paper", "table"], columns="metric", values="value", aggfunc="first", sort=False
        )
        ways = {True: "↑", False: "↓"}
        arrows = part.drop_duplicates("metric").set_index("metric")["higher_is_better"].map(ways)
        wide.columns = [f"{metric} {arrows[metric]}" for metric in wide.columns]
        _show(f"{dataset}, {level}", wide.reset_index().sort_values(["method", "paper"]))
    sys.stdout.write("What is comparable with a run of yours stands in its report, with the reason where it is not.\n")
    return 0


def _of_set(numbers: pd.DataFrame, name: str, level: str | None) -> pd.DataFrame:
    sets = sorted(numbers["dataset"].unique())
    wanted = [one for one in sets if one.lower() == name.lower()] or [
        one for one in sets if name.lower() in one.lower()
    ]
    if not wanted:
        raise ConfigError(f"published: no set '{name}'.{did_you_mean(name, sets)} Known: {', '.join(sets)}")
    rows = numbers[numbers["dataset"].isin(wanted)]
    if level is None:
        return rows
    levels = sorted(rows["degradation"].dropna().unique())
    rows = rows[rows["degradation"].str.lower() == level.lower()]
    if rows.empty:
        raise ConfigError(f"published: no level '{level}' of {', '.join(wanted)}. Known: {', '.join(levels)}")
    return rows


def _show(title: str, frame: pd.DataFrame) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for name in frame.columns:
        table.add_column(Text(str(name)), overflow="fold")
    for row in frame.itertuples(index=False):
        cells = ("" if cell != cell else f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in row)
        table.add_row(*map(Text, cells))
    show(table, 200)
