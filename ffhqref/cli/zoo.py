"""The zoo page: every restorer with its licence, needs, leak mark, proof and cost. No Hydra: plain arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ffhqref.core.conf import conf_folder
from ffhqref.core.errors import ConfigError
from ffhqref.core.progress import show

if TYPE_CHECKING:
    from ffhqref.restorers.base import RestorerInfo


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"zoo: {message}; see ffhqref zoo --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ffhqref zoo ...``; return the exit status.

    Raises:
        FfhqrefError: a wrong argument; one line.
    """
    parser = _Parser(prog="ffhqref zoo", description="Every restorer: licence, references, weights, proof, cost.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which restorers; none: all")
    parser.add_argument(
        "--measure", action="store_true", help="what one 512x512 image costs; time and memory where ready"
    )
    parser.add_argument("--device", default="cpu", help="where to measure: cpu, cuda")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if options.markdown is not None and options.markdown.is_dir():
        raise ConfigError(f"zoo: --markdown {options.markdown}: a folder; expected a file to write")
    from ffhqref.cli.catalogue import COST_COLUMNS, costs_to_markdown, to_markdown, zoo_frame
    from ffhqref.zoo.costs import in_words

    frame = zoo_frame(options.names or None, device=options.device, cost=options.measure, recipes=_recipes())
    if options.markdown:
        from ffhqref.core.files import write_atomic

        write_atomic(options.markdown, f"{to_markdown(frame)}\n{costs_to_markdown(frame)}".encode())
        sys.stdout.write(f"{options.markdown}\n")
        return 0
    from rich.table import Table
    from rich.text import Text

    shown = ["method", "references", "licence", "trained_on", "leak", "here", "verified_against"]
    if options.measure:
        shown = ["method", "openness", *COST_COLUMNS, "here"]
    table = Table(caption=_caption(options.measure), caption_justify="left")
    for name in shown:
        table.add_column(name, overflow="fold")
    for row in frame[shown].itertuples(index=False):
        table.add_row(*(Text(in_words(cell)) for cell in row))
    show(table, 200)
    return 0


def _caption(measured: bool) -> str:
    if not measured:
        return "†: weights saw the people of FFHQ-Ref's test split"
    return "one 512x512 image with cost_references references; counts are of default options (docs/zoo.md)"


def _recipes() -> dict[str, RestorerInfo]:
    """Return the descriptions of the methods whose recipes come with the configs."""
    import yaml

    from ffhqref.restorers.command.recipe import Recipe

    found = {}
    for path in sorted((conf_folder() / "restorer").glob("*.yaml")):
        for name, options in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            if isinstance(options, dict) and options.get("name") == "command":
                found[name] = Recipe.of(options["recipe"], options.get("parameters") or {}).info
    return found
