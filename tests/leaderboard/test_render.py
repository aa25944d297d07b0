"""Markdown, LaTeX, CSV and terminal tables of hand-made leaderboards."""

import io
import shutil
import subprocess

import pandas as pd
import pytest

from ffhqref.core.escape import csv_text
from ffhqref.leaderboard.board import COLUMNS as EVERY_COLUMN
from ffhqref.leaderboard.render import latex_tables, markdown_tables, terminal_tables
from ffhqref.leaderboard.view import Arrangement, metric_of_role, tables

COLUMNS = [
    "benchmark", "method", "metric", "higher_is_better", "mean", "ci_low", "ci_high", "n", "n_failed", "rank",
    "rank_low", "rank_high", "published", "published_source", "leak", "seconds_per_image",
]  # fmt: skip


@pytest.fixture
def board():
    rows = [
        ("severe", "a_b", "lpips", False, 0.4294, 0.41, 0.45, 10, 0, 1, 1, 2, 0.429, "RL-P (primary)", None, 1.5),
        ("severe", "x&y", "lpips", False, 0.4311, 0.42, 0.46, 9, 1, 2, 1, 2, None, None, "trained on FFHQ", 0.02),
        ("severe", "lq", "lpips", False, 0.60, 0.58, 0.62, 10, 0, 3, 3, 3, None, None, None, 0.001),
        ("severe", "slow", "lpips", False, 0.1, 0.05, 0.2, 2, 0, None, None, None, None, None, None, 60.0),
        ("severe", "a_b", "psnr", True, 24.371, 24.05, 24.70, 10, 0, 1, 1, 1, None, None, None, 1.5),
        ("severe", "ground-truth", "niqe", False, 3.2, 3.0, 3.4, 10, 0, None, None, None, None, None, None, None),
    ]
    frame = pd.DataFrame(rows, columns=COLUMNS).reindex(columns=EVERY_COLUMN)
    for column in ("rank", "rank_low", "rank_high"):
        frame[column] = frame[column].astype("Int32")
    return frame


def test_markdown(board):
    lines = markdown_tables(board).splitlines()
    assert lines[0] == "### severe"
    assert lines[2] == "| Method | lpips ↓ | niqe ↓ | psnr ↑ | Failed | s/image |"
    assert lines[4] == (
        "| a\\_b | **0.429** [0.410, 0.450] (published 0.429) | – | **24.37** [24.05, 24.70] | 0 | 1.5 |"
    )
    assert lines[5] == "| x&amp;y † | 0.431\\* [0.420, 0.460] | – | – | 1 | 0.02 |"
    assert lines[6].startswith("| lq | 0.600 [0.580, 0.620] |")
    assert lines[7].startswith("| slow ‡ |")
    assert lines[8] == "| *Baselines, not ranked* |  |  |  |  |  |"
    assert lines[9].startswith("| ground-truth | – | 3.20 [3.00, 3.40] |")
    assert len({line.count("|") - line.count("\\|") for line in lines[2:10]}) == 1


def test_latex(board):
    text = latex_tables(board, names={"a_b": r"A$_b$"})
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 1
    assert r"\toprule" in text
    assert r"A$_b$ & \textbf{0.429} {\scriptsize [0.410, 0.450]}" in text
    assert r"x\&y$^{\dagger}$ & 0.431$^{\ast}$ {\scriptsize [0.420, 0.460]}" in text
    assert r"slow$^{\ddagger}$" in text
    assert r"\midrule" + "\n    ground-truth" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {5}


@pytest.mark.parametrize("failures", ["worst", "excluded"])
def test_what_is_said_of_failures_is_what_was_done(board, failures):
    from rich.console import Console

    console = Console(width=400, file=io.StringIO(), color_system=None)
    console.print(terminal_tables(board, failures=failures))
    made = [console.file.getvalue(), markdown_tables(board, failures=failures), latex_tables(board, failures=failures)]
    for text in made:
        assert ("count as the worst value" in text) == (failures == "worst")
        assert ("left out of the means" in text) == (failures == "excluded")


def test_latex_escapes_names(board):
    board["method"] = board["method"].replace({"lq": r"50%_#{~}^\x"})
    assert r"50\%\_\#\{\textasciitilde{}\}\textasciicircum{}\textbackslash{}x" in latex_tables(board)


@pytest.mark.slow
def test_latex_compiles(board, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex on this machine")
    body = latex_tables(board)
    source = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + body + "\\end{document}"
    (tmp_path / "t.tex").write_text(source)
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True)


def test_csv_keeps_all_columns_and_digits(board):
    again = pd.read_csv(io.StringIO(csv_text(board)))
    assert list(again.columns) == [*EVERY_COLUMN]
    assert again["mean"].tolist() == board["mean"].tolist()


def test_terminal_table_shows_names_as_text(board):
    from rich.console import Console

    board["method"] = board["method"].replace({"lq": "[red]lq[/red]"})
    console = Console(width=140, file=io.StringIO(), color_system=None)
    console.print(terminal_tables(board))
    text = console.file.getvalue()
    assert "[red]lq[/red]" in text
    assert "0.431* │" in text
    assert "[0.410, 0.450] │" in text
    console = Console(width=140, file=io.StringIO(), color_system=None)
    console.print(terminal_tables(board, max_metrics=2))
    assert "also scored: psnr" in console.file.getvalue()


def test_metrics_without_any_value_are_named_and_take_no_column(board):
    board.loc[len(board)] = board.iloc[0].where(board.columns != "metric", "musiq").where(board.columns != "mean")
    board.loc[len(board) - 1, ["rank", "rank_low", "rank_high"]] = pd.NA
    markdown = markdown_tables(board)
    assert "| Method | lpips ↓ | niqe ↓ | psnr ↑ | Failed | s/image |" in markdown
    assert "Without any value: musiq." in markdown
    assert "musiq" not in latex_tables(board)
    assert "musiq" in csv_text(board)


def test_order_of_methods(board):
    (table,) = tables(board)
    assert [row.method for row in table.rows] == ["a_b", "x&y", "lq", "slow", "ground-truth"]
    assert [row.partial for row in table.rows] == [False, False, False, True, False]


def test_baselines_stand_apart_and_few_people_have_no_best(board):
    """Both ends of Markdown, LaTeX and terminal say so; the order of rows is the chosen one."""
    from rich.console import Console

    arrangement = Arrangement(("lq",), {"severe": 5}, "name")
    (table,) = tables(board, arrangement)
    assert [row.method for row in table.rows] == ["a_b", "slow", "x&y", "lq", "ground-truth"]
    assert [row.method for row in table.baselines] == ["lq", "ground-truth"]
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(terminal_tables(board, arrangement=arrangement))
    markdown = markdown_tables(board, arrangement=arrangement, origin=["scored: 2026-01-02", "lpips: lpips|vgg"])
    latex = latex_tables(board, arrangement=arrangement, origin=["scored: 2026-01-02"])
    for text in (markdown, latex, console.file.getvalue()):
        assert "5 people: too few people to rank" in text
        assert "Bold" not in text
        assert "0.431" in text
        assert "0.431\\*" not in text
        assert "0.431*" not in text
    assert "**0.429**" not in markdown
    assert r"\textbf" not in latex
    assert "Rows: by name." in markdown
    assert markdown.index("| x&amp;y") < markdown.index("*Baselines, not ranked*") < markdown.index("| lq |")
    assert markdown.endswith("scored: 2026-01-02  \nlpips: lpips\\|vgg\n")
    assert "% scored: 2026-01-02" in latex
    assert [row.method for row in tables(board, Arrangement(order="lpips"))[0].rows][:2] == ["slow", "a_b"]


def test_roles():
    metrics = ["ids_gt", "lpips-vgg", "musiq", "niqe", "psnr", "age_error"]
    assert [metric_of_role(metrics, role) for role in ("identity", "fidelity", "perception")] == [
        "ids_gt",
        "lpips-vgg",
        "musiq",
    ]
    assert metric_of_role(["age_error"], "fidelity") is None
