"""Where the numbers of a report are from: who, when, with which command, on what device, with which versions."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.leaderboard.report_data import ReportData

T = TypeVar("T")
R = TypeVar("R", bound="ReportData")

VERSIONS = ("ffhqref", "torch", "numpy", "opencv-python-headless", "pillow", "scipy", "onnxruntime", "pyiqa")
"""Packages whose versions are told beside the numbers; all are in the provenance of the tables."""

PLACE = re.compile(r"(?<![\w/:.<~])(?:~|[A-Za-z]:)?[\\/](?:[^\s\\/'\"<>|:,;=()\[\]{}]+[\\/])+(?=[^\s\\/])")
"""The folders of an absolute path; addresses and relative paths are none."""


def command_line() -> str:
    """Return the command that this process was started with, or "" where it is no command of ffhqref."""
    name, *arguments = sys.argv
    return shlex.join([*name.split(), *arguments]) if name.startswith("ffhqref ") else ""


def origin(report: ReportData) -> list[tuple[str, str]]:
    """Return what a reader wants to know first of where the numbers are from: (what, in words)."""
    tables = [facts for facts in report.provenance.values() if facts.get("table") in ("restorations", "scores")]
    days = sorted({str(facts["created"])[:10] for facts in tables if facts.get("created")})
    packages = [facts.get("packages", {}) for facts in tables]
    versions = [
        f"{name} {' and '.join(found)}"
        for name in VERSIONS
        if (found := sorted({known[name] for known in packages if name in known}))
    ]
    commits = sorted({str(facts["git_commit"])[:12] for facts in tables if facts.get("git_commit")})
    lines = [
        ("by", report.options.author),
        ("scored", " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""),
        ("command", report.command),
        ("device", "; ".join(machines(report))),
        ("versions", ", ".join(versions)),
        ("commit", ", ".join(commits)),
    ]
    return [(what, text) for what, text in lines if text]


def machines(report: ReportData) -> list[str]:
    """Return device and system of each machine that restored."""
    systems = sorted({str(f["platform"]) for f in report.provenance.values() if f.get("table") == "restorations"})
    found = report.restorations["device"].dropna().astype(str).unique() if "device" in report.restorations else ()
    return [", ".join([*sorted(set(found)), " and ".join(systems)])] if len(found) else []


def short_names(folders: Sequence[Path]) -> dict[str, str]:
    """Return folder to its last names, as many as tell the folders apart.

    >>> list(short_names([Path("/a/x/w"), Path("/a/y/w"), Path("/b")]).values())
    ['x/w', 'y/w', 'b']
    """
    found = {}
    for folder in folders:
        others = [other.parts for other in folders if other != folder]
        count = 1
        while count < len(folder.parts) and any(other[-count:] == folder.parts[-count:] for other in others):
            count += 1
        found[str(folder)] = "/".join(folder.parts[-count:])
    return found


def without_places(report: R, names: Mapping[str, str]) -> R:
    """Return a report whose texts name no folder of this machine; paths of images, which no page shows, stay.

    Args:
        report: as it was read.
        names: folder of a workspace to what it is called.
    """

    def public(value: T) -> T:
        made: T = _public(value, names)
        return made

    restorations: pd.DataFrame = report.restorations.assign(error=report.restorations["error"].map(public))
    return replace(
        report,
        name=public(report.name),
        command=public(report.command),
        restorations=restorations,
        metrics={name: replace(facts, unavailable=public(facts.unavailable)) for name, facts in report.metrics.items()},
        benchmarks={name: replace(info, notes=public(info.notes)) for name, info in report.benchmarks.items()},
        provenance={public(name): public(facts) for name, facts in report.provenance.items()},
    )


def _public(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for folder in sorted(names, key=len, reverse=True):
            value = value.replace(folder, names[folder])
        return PLACE.sub("", value)
    if isinstance(value, Mapping):
        return {key: _public(item, names) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(item, names) for item in value]
    return value
