"""Where labels of a scatter plot stand: beside their own dots, or nowhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CHARACTER = 6.8
"""Width of a character in pixels, at the size of 12 pixels that labels have."""
LINE = 13.0
"""Height of a label in pixels."""
DOT = 6.0
"""Radius that a dot keeps free."""
MARGIN = 1.5
"""A label must be nearer to its own dot than to others by so many pixels."""

Point = tuple[float, float]


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> Point:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def distance(self, point: Point) -> float:
        """Return how far a point is from the box."""
        return math.hypot(
            max(self.left - point[0], 0.0, point[0] - self.right), max(self.top - point[1], 0.0, point[1] - self.bottom)
        )

    def overlaps(self, other: _Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def place_labels(dots: Sequence[Point], names: Sequence[str], width: float, height: float) -> list[Point | None]:
    """Return the centre of each label in pixels, None where no place is nearest to its own dot.

    A reader takes a label for the dot that it is nearest to, by its edge or by its middle: by both it must be its own.

    Args:
        dots: x and y in pixels, from the top left.
        names: text of each label; the first have the choice.
        width: of the plot in pixels.
        height: of the plot in pixels.

    >>> place_labels([(50.0, 50.0)], ["a"], 100, 100)
    [(61.4, 50.0)]
    """
    taken: list[_Box] = []
    found: list[Point | None] = []
    for index, ((x, y), name) in enumerate(zip(dots, names, strict=True)):
        half = len(name) * CHARACTER / 2
        beside, above = DOT + 2 + half, DOT + 1 + LINE / 2
        offsets = [(beside, 0.0), (-beside, 0.0), (0.0, -above), (0.0, above)]
        offsets += [(side * half * 0.8, way * above) for side in (1, -1) for way in (-1, 1)]
        offsets += [(side * beside, way * LINE * 0.6) for side in (1, -1) for way in (-1, 1)]
        boxes = [_Box(x + dx - half, y + dy - LINE / 2, x + dx + half, y + dy + LINE / 2) for dx, dy in offsets]
        others = [dot for place, dot in enumerate(dots) if place != index]
        fit = (box for box in boxes if _fits(box, (x, y), others, width, height) and not any(map(box.overlaps, taken)))
        box = next(fit, None)
        if box is not None:
            taken.append(box)
        found.append(None if box is None else box.centre)
    return found


def _fits(box: _Box, own: Point, others: Sequence[Point], width: float, height: float) -> bool:
    """Return whether a label lies in the plot, clear of all dots, and nearest to its own one."""
    if box.left < 0 or box.right > width or box.top < 0 or box.bottom > height:
        return False
    edge, middle = box.distance(own) + MARGIN, math.dist(box.centre, own) + MARGIN
    return all(box.distance(dot) > max(edge, DOT) and math.dist(box.centre, dot) > middle for dot in others)
