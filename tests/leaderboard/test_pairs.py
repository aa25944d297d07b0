"""The same targets under two conditions: the table, its words and its files."""

import numpy as np
import pandas as pd
import pytest

from ffhqref.leaderboard.formats import LatexFormat, MarkdownFormat
from ffhqref.store.tables import read_table, write_table

from .conftest import make_tables, report_of


@pytest.fixture(scope="module")
def report():
    rng = np.random.default_rng(1)
    base = rng.normal(0.4, 0.02, 12)
    made = {
        "same_age": {"steady": base, "fades": base},
        "cross_age": {"steady": base + rng.normal(0, 0.01, 12), "fades": base + 0.2 + rng.normal(0, 0.01, 12)},
    }
    parts = [
        make_tables({method: {"lpips": [*values]} for method, values in methods.items()}, benchmark=name)
        for name, methods in made.items()
    ]
    joined = type(parts[0])(
        **{
            name: pd.concat([getattr(part, name) for part in parts], ignore_index=True)
            for name in ("scores", "cases", "restorations")
        }
    )
    return report_of(joined, {"lpips": False}, age_pairs={"ages": ("same_age", "cross_age")})


def test_the_table_holds_both_means_and_who_is_better(report, tmp_path):
    write_table(tmp_path, "comparisons", report.comparisons)
    found = read_table(tmp_path, "comparisons").set_index("method")
    means = report.scores.groupby(["benchmark", "method"])["value"].mean()
    for method, row in found.iterrows():
        assert row["mean_first"] == pytest.approx(means["same_age", method])
        assert row["mean_second"] == pytest.approx(means["cross_age", method])
        assert row["difference"] == pytest.approx(row["mean_second"] - row["mean_first"])
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]
    assert found.loc["fades", "better"] == "same_age"
    assert pd.isna(found.loc["steady", "better"])


def test_markdown_and_latex_tell_the_change_with_its_way(report):
    (table,) = report.pair_tables
    assert [row.verdict for row in table.rows] == ["worse", "open"]
    change = f"{report.comparisons.set_index('method').loc['fades', 'difference']:+.3f} ↑"
    assert table.rows[0].change == change
    assert f"| lpips ↓ | fades | {table.rows[0].first} |" in MarkdownFormat().text(report)
    latex = LatexFormat().text(report)
    assert latex.count(r"\begin{table*}") == 3
    assert change.replace("↑", r"$\uparrow$") in latex


def test_few_people_leave_every_change_open(report):
    few = report.cases["case_id"] < "00005"
    fewer = type(report)(
        **{
            **{name: getattr(report, name) for name in report.__dataclass_fields__},
            "cases": report.cases[few],
            "scores": report.scores[report.scores["case_id"] < "00005"],
        }
    )
    (table,) = fewer.pair_tables
    assert table.warning == "5 people: too few to tell a change"
    assert {row.verdict for row in table.rows} == {"open"}
