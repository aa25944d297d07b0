"""Static costs of the zoo's methods, read from the generated ``costs.csv`` without torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ffhqref.restorers.base import RestorerInfo

REFERENCES = 4
"""References of the counted and measured case; fewer where a method takes fewer."""
FILE = Path(__file__).parent / "costs.csv"


def case_references(info: RestorerInfo) -> int:
    """Return the number of references of the case that is counted and measured."""
    return REFERENCES if info.max_references is None else min(REFERENCES, info.max_references)


@dataclass(frozen=True)
class Cost:
    """What one 512x512 image costs with the released widths and a restorer's default options, on any machine."""

    method: str
    parameters: int | None = None
    """Of all networks that a case goes through; None, like all that follow: not counted."""
    multiply_adds: int | None = None
    """Of convolutions and matrix products, as the implementation computes them; guidance counts twice."""
    evaluations: int | None = None
    """Calls of the network that is called most: steps of a diffusion model; guidance in one batch counts once."""
    note: str = ""
    """What is left out, or why there is no count."""


@cache
def known_costs() -> Mapping[str, Cost]:
    """Return the costs of the built-in methods by name."""
    with FILE.open(encoding="utf-8", newline="") as stream:
        return {row["method"]: _read(row) for row in csv.DictReader(stream)}


def in_words(value: object) -> str:
    """Return a cell for readers: counts of millions and more with the usual prefix, times with three digits.

    >>> in_words(94112707), in_words(5766694567936), in_words(50), in_words(0.12345), in_words(float("nan"))
    ('94.1 M', '5.77 T', '50', '0.123', '')
    """
    if isinstance(value, Real):
        number = float(value)
        for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
            if number >= size:
                return f"{number / size:.3g} {prefix}"
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return "" if str(value) == "<NA>" else str(value)


def to_csv(costs: Iterable[Cost]) -> str:
    """Return costs as the content of ``costs.csv``."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in fields(Cost)], lineterminator="\n")
    writer.writeheader()
    for cost in costs:
        writer.writerow(asdict(cost))
    return stream.getvalue()


def _read(row: Mapping[str, str]) -> Cost:
    names = ("parameters", "multiply_adds", "evaluations")
    numbers = {name: int(row[name]) if row[name] else None for name in names}
    return Cost(row["method"], **numbers, note=row["note"])
