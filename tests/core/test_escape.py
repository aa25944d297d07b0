"""Hostile names stay names: in a spreadsheet, on a terminal, in Markdown, LaTeX and HTML."""

import contextlib
import csv
import io
import re

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ffhqref.core.escape import csv_text, latex, markdown, markdown_code, markdown_link, plain, terminal

HOSTILE = [
    "=cmd|' /C calc'!A0", "@SUM(1+1)*cmd", "+1", "-2+3", "\t=1", " =1", "\uff1d1", "a\r\n=1", '"=1', "\x1b]0;title\x07",
    "\x1b[31mred", "\u202efdp.exe", "a\x00b", "[3]", "*x", "a\n\nb", "\\input{/etc/passwd}", "$x$", "%", "{", "}",
    "<script>alert(1)</script>", "a|b", "| --- |", "![x](javascript:alert(1))", "[x](http://a)", "`a`|`", "``", "# a",
    "---", "1. a", "- a", "&lt;b&gt;", "~~a~~", "\\", "|\\", "\\|", "", "   ", "\x85", "\u2028",
]  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=30),
    st.text(alphabet="=+-@\t|*_`[]()<>&\\$#{}~^% \n\r\x1ba1.!", max_size=20),
)
CHECKED = settings(max_examples=60, deadline=None, derandomize=True)


def each(function):
    for name in HOSTILE:
        function = example(name)(function)
    return CHECKED(given(NAMES)(function))


@each
def test_a_cell_of_a_csv_is_no_formula_and_numbers_stay_numbers(name):
    frame = pd.DataFrame({"method": [name, "lq"], "value": [-1.5, 2.25], "count": [3, -4], "known": [True, False]})
    text = csv_text(frame)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len(rows) == 3
    cell = rows[1][0]
    assert not cell.lstrip().startswith(("=", "@", "+", "\t", "\r"))
    assert not cell.startswith("-") or re.fullmatch(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", cell)
    assert cell.removeprefix("'") == plain(name).removeprefix("'")
    assert [row[1:] for row in rows[1:]] == [["-1.5", "3", "True"], ["2.25", "-4", "False"]]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_columns_with_gaps_and_of_objects_are_guarded():
    frame = pd.DataFrame({"=a": ["x", None], "b": pd.array([1, None], dtype="Int64"), "c": pd.Categorical(["=c", "d"])})
    assert csv_text(frame) == "'=a,b,c\nx,1,'=c\n,,d\n"


@each
def test_a_terminal_gets_no_controls(name):
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", terminal(name))
    assert "\n" not in plain(name)


def tokens(text):
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def inline(text):
    return [token for token in tokens(text) if token.type == "inline"]


def words(token):
    assert {child.type for child in token.children} <= {"text", "text_special"}, token.children
    return "".join(child.content for child in token.children)


@each
def test_a_name_in_markdown_is_that_text_and_nothing_else(name):
    escaped = markdown(name)
    found = inline(escaped)
    assert "".join(words(token) for token in found) == plain(name)
    assert [token.type for token in tokens(escaped)] in ([], ["paragraph_open", "inline", "paragraph_close"])
    table = inline(f"| a | b |\n| --- | --- |\n| {escaped} | c |\n| d | e |\n")
    assert [words(token) for token in table] == ["a", "b", plain(name), "c", "d", "e"]
    assert words(inline(f"### {escaped}x")[0]) == f"{plain(name)}x"


@each
def test_code_in_a_table_of_markdown_is_that_text(name):
    table = inline(f"| a | b |\n| --- | --- |\n| {markdown_code(name)} | c |\n")
    assert len(table) == 4
    (code,) = table[2].children
    assert code.type == "code_inline"
    assert code.content.strip() == plain(name).strip()
    assert words(table[3]) == "c"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "file:///etc", ""])
def test_only_addresses_of_the_web_are_links(url):
    assert markdown_link("a", url) == "a"


@each
def test_an_address_does_not_leave_its_link(name):
    table = inline(f"| a | b |\n| --- | --- |\n| {markdown_link(name or 'x', 'https://e.org/' + name)} | c |\n")
    assert len(table) == 4
    kinds = [child.type for child in table[2].children]
    assert kinds[0] == "link_open"
    assert kinds[-1] == "link_close"
    assert table[2].children[0].attrs["href"].startswith("https://e.org/")


@each
def test_a_name_in_latex_runs_no_command(name):
    text = latex(name)
    assert "\n" not in text
    bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater)\{\}", "", text)
    bare = re.sub(r"\$\\(uparrow|downarrow|rightarrow)\$", "", bare)
    bare = re.sub(r"\\[&%$#_{}]", "", bare)
    bare = re.sub(r"\{[\[\]*]\}", "", bare)
    assert not set(bare) & set("\\&%$#_{}~^[]*"), text


@each
def test_tables_of_rich_carry_no_escapes(name):
    from rich.table import Table
    from rich.text import Text

    from ffhqref.core import progress

    grid = Table("method")
    grid.add_row(Text(name))
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        progress.show(grid, 80)
    assert "\x1b" not in stream.getvalue()
    assert "\u202e" not in stream.getvalue()
