"""Ranges, labels and fronts of a benchmark's plots: what the page and the figures for papers share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.leaderboard.plots.labels import place_labels
from ffhqref.leaderboard.summary import pareto

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ffhqref.leaderboard.view import BenchmarkTable, MethodRow

SIZES = {"wide": (470, 320), "narrow": (250, 300)}
"""Width and height of a plot's area in pixels: on a screen and in a paper, and on a telephone."""

COSTS = {"seconds": "seconds an image", "multiply_adds": "billions of multiply-adds an image"}
"""What a method costs, by the field of `MethodRow`, to the title of its axis. Less is better; axes are logarithmic."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis of a scatter plot."""

    range: Range
    reverse: bool = False
    log: bool = False

    def share(self, value: float) -> float:
        """Return where a value stands: 0 at the beginning of the axis, 1 at its end."""
        low, high, at = (math.log10(v) if self.log else v for v in (*self.range, value))
        share = (at - low) / (high - low)
        return 1 - share if self.reverse else share

    def value(self, share: float) -> float:
        """Return the value at a place."""
        share = 1 - share if self.reverse else share
        low, high = (math.log10(v) if self.log else v for v in self.range)
        found = low + share * (high - low)
        return 10**found if self.log else found


def span(values: Iterable[float], *, log: bool = False, room: float = 0.1) -> Range:
    """Return the range of finite values with some room at both ends.

    >>> span([1.0, 2.0, float("nan")])
    (0.9, 2.1)
    """
    known = [math.log10(v) if log else v for v in values if math.isfinite(v)]
    if not known:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(known), max(known)
    pad = ((high - low) or abs(high) or 1.0) * room
    return (10 ** (low - pad), 10 ** (high + pad)) if log else (low - pad, high + pad)


class Layout:
    """Layout of one benchmark.

    Args:
        table: of the leaderboard.
        metrics: those that plots show.
    """

    def __init__(self, table: BenchmarkTable, metrics: Sequence[str]) -> None:
        self.higher = table.higher_is_better
        self.metrics = list(metrics)
        self.rows = [row for row in table.rows if not row.ceiling]
        self.axes = {
            metric: Axis(
                span(
                    end
                    for row in self.rows
                    if (cell := row.cells.get(metric))
                    for end in (cell.mean, cell.ci_low, cell.ci_high)
                ),
                reverse=not self.higher[metric],  # better is up, and to the right
            )
            for metric in self.metrics
        }
        self.costs = {
            cost: Axis(span((value for row in self.rows if (value := getattr(row, cost))), log=True), log=True)
            for cost in COSTS
        }

    def with_values(self, *metrics: str) -> list[MethodRow]:
        """Return the rows with a finite mean of some metrics."""
        return [
            row for row in self.rows
            if all((cell := row.cells.get(metric)) is not None and math.isfinite(cell.mean) for metric in metrics)
        ]  # fmt: skip

    def points(self, x: str, y: str) -> list[tuple[MethodRow, float, float]]:
        """Return the rows with a value on both axes, and the values.

        Args:
            x: metric, or one of `COSTS`.
            y: metric.
        """
        if x in self.axes:
            return [(row, row.cells[x].mean, row.cells[y].mean) for row in self.with_values(x, y)]
        return [(row, value, row.cells[y].mean) for row in self.with_values(y) if (value := getattr(row, x))]

    def labels(self, x: str, y: str, size: str) -> dict[str, list[float]]:
        """Return method to x and y of its label, in data; methods without a place are absent.

        Args:
            x: metric, or one of `COSTS`.
            y: metric.
            size: key of `SIZES`.
        """
        width, height = SIZES[size]
        across, up = self.axes.get(x) or self.costs[x], self.axes[y]
        points = self.points(x, y)
        rows = [row for row, _, _ in points]
        dots = [(width * across.share(at), height * (1 - up.share(value))) for _, at, value in points]
        places = place_labels(dots, [row.method for row in rows], width, height)
        return {
            row.method: [_short(across.value(place[0] / width)), _short(up.value(1 - place[1] / height))]
            for row, place in zip(rows, places, strict=True)
            if place is not None
        }

    def front(self, x: str, y: str) -> list[str]:
        """Return the ranked methods that no other dominates in two metrics, or in a cost and a metric, along x."""
        ranked = [metric for metric in (x, y) if metric in self.axes]
        points = [point for point in self.points(x, y) if all(point[0].cells[metric].rank for metric in ranked)]
        values = np.array([point[1:] for point in points]).reshape(-1, 2)
        on_front = pareto(values, [self.higher.get(x, False), self.higher[y]])
        best = [point for point, on in zip(points, on_front, strict=True) if on]
        return [row.method for row, _, _ in sorted(best, key=lambda point: point[1])]

    def payload(self) -> dict[str, Any]:
        """Return what the page needs to draw any pair of metrics."""
        pairs = {
            x: {
                y: {"front": self.front(x, y), **{size: self.labels(x, y, size) for size in SIZES}}
                for y in self.metrics
                if y != x
            }
            for x in (*self.metrics, *COSTS)
        }
        return {
            "ranges": {name: axis.range for name, axis in {**self.costs, **self.axes}.items()},
            "pairs": pairs,
        }


def _short(value: float) -> float:
    return float(f"{value:.6g}")
