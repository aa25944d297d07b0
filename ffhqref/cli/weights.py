"""Weight files: what exists, where it lies, fetching, verifying and converting it. No Hydra: plain sub-commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ffhqref.core.errors import ConfigError, FfhqrefError, WeightsError, did_you_mean
from ffhqref.core.progress import show

CONVERTIBLE = ("refldm",)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"weights: {message}; see ffhqref weights --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ffhqref weights ...``; return the exit status: 1 when a file that was verified is not what it should be.

    Raises:
        FfhqrefError: a wrong argument, an absent file, no network; one line.
    """
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    folder: Path | None = options.folder
    if options.action == "list":
        return _list(folder)
    if options.action == "fetch":
        return _fetch(options.names, folder, options.again)
    if options.action == "verify":
        return _verify(options.names, folder, options.accept)
    if options.action == "convert":
        return _convert(options.name, options.to, folder)
    from ffhqref.weights.files import require

    sys.stdout.write(f"{require(options.name, folder=folder).path}\n")
    return 0


_EXAMPLES = """\
examples
  ffhqref weights list
  ffhqref weights fetch gfpgan-1.4 codeformer
  ffhqref weights verify
  ffhqref weights verify --accept vqfr-v2       the file was changed on purpose
  ffhqref weights --folder /data/weights fetch musiq
"""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ffhqref weights",
        description="Weight files of restorers, metrics and embedders.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, help="folder of weight files; FFHQREF_WEIGHTS, else the user's cache")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser(
        "list",
        help="every known file: size, licence, where it lies, and how far it is verified",
        description="Verified: full hash, short hash (the prefix in the file's name), first use (no hash is published: "
        "it is the file that was there at first), never (not used yet), or NOT the published file.",
    )
    fetch = actions.add_parser("fetch", help="download files, resumable, and check them (not when FFHQREF_OFFLINE=1)")
    fetch.add_argument("names", nargs="+", metavar="NAME")
    fetch.add_argument("--again", action="store_true", help="fetch what is there already, and replace it")
    verify = actions.add_parser("verify", help="hash files again and compare; without NAME: every file that is here")
    verify.add_argument("names", nargs="*", metavar="NAME")
    verify.add_argument("--accept", action="store_true", help="record the named files as they are now")
    path = actions.add_parser("path", help="print where a file lies, checked")
    path.add_argument("name", metavar="NAME")
    convert = actions.add_parser("convert", help="write a published checkpoint as safetensors, which loads faster")
    convert.add_argument("name", metavar="NAME", help=", ".join(CONVERTIBLE))
    convert.add_argument("--to", type=Path, metavar="FILE", help="default: NAME.safetensors in the weights folder")
    return parser


def _list(folder: Path | None) -> int:
    from rich.table import Table
    from rich.text import Text

    from ffhqref.weights.files import home, inventory

    table = Table(title=f"weights folder: {home(folder)}", title_justify="left")
    for column in ("name", "file", "MB", "licence", "used by", "verified", "on this machine"):
        table.add_column(column, overflow="fold", justify="right" if column == "MB" else "left")
    for item in inventory(folder):
        where = str(item["path"] or ("no: fetch" if item["fetchable"] else "no: by hand"))
        size = f"{item['size'] / 1e6:,.1f}" if item["size"] else "unknown"
        verified = item["verified"] or f"– ({item['known']})"
        cells = (item["name"], item["filename"], size, item["licence"], item["used_by"], verified, where)
        table.add_row(*map(Text, cells))
    show(table, 200)
    return 0


def _fetch(names: Sequence[str], folder: Path | None, again: bool) -> int:
    from ffhqref.core.progress import download_bar
    from ffhqref.weights.fetch import fetched
    from ffhqref.weights.files import entry

    for item in [entry(name) for name in names]:  # a wrong name ends here, before the first download
        with download_bar(item.name) as progress:
            found = fetched(item.name, folder=folder, progress=progress, again=again)
        sys.stdout.write(f"{found.path}\n")
    return 0


def _verify(names: Sequence[str], folder: Path | None, accept: bool) -> int:
    from ffhqref.weights.files import inventory, verify

    words = {True: "the published file", False: "NOT the published file", None: "no published hash is known"}
    status = 0
    chosen = names or [item["name"] for item in inventory(folder) if item["path"] is not None]
    if not chosen:
        sys.stdout.write("no known weight file is on this machine; see ffhqref weights list\n")
    for name in chosen:
        try:
            found = verify(name, folder=folder, accept=accept and bool(names))
        except FfhqrefError as error:
            if names:
                raise
            sys.stderr.write(f"ffhqref: {error}\n")
            status = 1
            continue
        sys.stdout.write(f"{name}: {words[found.published]}, sha256 {found.sha256}, {found.path}\n")
        status |= int(found.published is False)
    return status


def _convert(name: str, to: Path | None, folder: Path | None) -> int:
    from ffhqref.weights.files import home, require

    if name not in CONVERTIBLE:
        hint = did_you_mean(name, CONVERTIBLE)
        raise WeightsError(f"weights '{name}' need no conversion.{hint} Convertible: {', '.join(CONVERTIBLE)}")
    main_file, first_stage = (require(part, folder=folder).path for part in ("refldm", "refldm-vqgan"))
    from ffhqref.zoo.refldm.converted import convert

    sys.stdout.write(f"{convert(main_file, first_stage, to or home(folder) / f'{name}.safetensors')}\n")
    return 0
