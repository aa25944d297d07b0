"""One gate for each output format: names and texts of others are text in it, never markup, formulas or controls."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    import pandas as pd

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Controls, invisible characters that turn the direction of a text, lone surrogates, separators of lines."""
_JOINERS = "\u200c\u200d"
"""Invisible, and part of words and emoji."""
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_MARKDOWN = re.compile(r"([\\`*_|\[\]~$])")
_BLOCK = re.compile(r"^(?:#+(?= |$)|[+-](?= |$)|[=-](?=[=-]* *$)|\d+(?=[.)](?: |$)))")
"""Starts of headings, lists and rules, where the text begins a line."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "[": "{[}", "]": "{]}", "*": "{*}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "–": "--",
}  # fmt: skip
r"""Brackets and asterisks would be arguments of the ``\\`` that ends the line before."""


def plain(text: object) -> str:
    r"""Return a text on one line, without controls of a terminal and characters that hide what it says.

    >>> plain("a\x1b[31m\nb")
    'a�[31m b'
    """
    words = " ".join(str(text).split())
    return "".join(_visible(character) for character in words)


def terminal(text: str) -> str:
    """Return a text for a terminal; its lines stay."""
    return "".join(character if character in "\n\t" else _visible(character) for character in text)


def _visible(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _HIDDEN:
        return character
    return "\N{REPLACEMENT CHARACTER}"


def csv_cell(value: object) -> object:
    """Return a value of a CSV; a text that a spreadsheet would take for a formula gets an apostrophe.

    >>> csv_cell("=1+1"), csv_cell(-1.5), csv_cell("-1.5"), csv_cell("+1")
    ("'=1+1", -1.5, '-1.5', "'+1")
    """
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV: numbers in full precision, texts through `csv_cell`."""
    safe = frame.rename(columns=csv_cell)
    for column in safe.columns[[not _is_number(kind) for kind in safe.dtypes]]:
        safe[column] = safe[column].map(csv_cell, na_action="ignore")
    text: str = safe.to_csv(index=False, lineterminator="\n")
    return text


def _is_number(kind: object) -> bool:
    return getattr(kind, "kind", "O") in "biufc"


def markdown(text: object) -> str:
    r"""Return a text for Markdown, outside and inside of tables.

    >>> markdown("*a* | <b>")
    '\\*a\\* \\| &lt;b&gt;'
    """
    escaped = _MARKDOWN.sub(r"\\\1", plain(text))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _BLOCK.sub(lambda found: found[0] + "\\" if found[0].isdecimal() else "\\" + found[0], escaped)


def markdown_code(text: object) -> str:
    """Return a text as code in Markdown, outside and inside of tables."""
    shown = plain(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown[:1] == "`" or shown[-1:] == "`" or not shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def markdown_link(text: object, url: str) -> str:
    """Return a link, or the text alone where the address is none of the web."""
    if not url.startswith(("https://", "http://")):
        return markdown(text)
    return f"[{markdown(text)}](<{quote(url, safe=':/?#@!$&*+,;=%~')}>)"


def latex(text: object) -> str:
    """Return a text for LaTeX, in tables, captions and paragraphs."""
    return "".join(_LATEX.get(character, character) for character in plain(text))
