"""Faces to train on: pictures of a workspace and of other folders, grouped by person, and their degradation."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError
from ffhqref.core.images import SIZE, read_rgb, resize
from ffhqref.degradation import Degradation, Parameters, apply, draw, get_degradation, steps
from ffhqref.degradation.steps import recorded_noise, reduced_size
from ffhqref.store.workspace import inside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingItem:
    """A target and the references it may be given, by names that ``load`` understands."""

    target: str
    references: tuple[str, ...] = ()


def items_by_person(people: Iterable[tuple[str, str]]) -> list[TrainingItem]:
    """Return an item for each picture that has another one of the same person, all of those as its references.

    Args:
        people: (path, person) pairs.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for path, person in people:
        groups[person].append(path)
    return [
        TrainingItem(path, tuple(other for other in paths if other != path))
        for paths in groups.values()
        for path in paths
        if len(paths) > 1
    ]


def people_of_csv(folder: str | Path, table: str, leave_out: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return (path, person) of the aligned pictures that a CSV with the columns ``file`` and ``person`` lists.

    Args:
        folder: of the pictures and the CSV.
        table: name of the CSV.
        leave_out: people that are not to be trained on.

    Raises:
        ConfigError: the CSV or a column is missing, or ``leave_out`` names somebody who is not in it.
        TableError: a path leaves the folder.
    """
    path = Path(folder) / table
    if not path.is_file():
        raise ConfigError(f"train.faces: no {path}; expected a folder of aligned faces with a CSV of file and person")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"file", "person"} <= set(rows[0]):
        raise ConfigError(f"{path}: expected the columns file and person")
    unknown = sorted(set(leave_out) - {row["person"] for row in rows})
    if unknown:
        raise ConfigError(f"train.faces.leave_out: nobody named {unknown[0]} in {path}")
    left_out = set(leave_out)
    root = Path(folder)
    return [(str(inside(root, row["file"])), row["person"]) for row in rows if row["person"] not in left_out]


class SmallPictures:
    """Pictures by path, reduced to one side and kept in memory.

    Args:
        side: of the pictures in pixels.
        keep: at most this many are kept; the others are read again.
    """

    def __init__(self, side: int, keep: int = 4096) -> None:
        self._side = side
        self._keep = keep
        self._known: dict[str, NDArray[np.uint8]] = {}

    def __call__(self, path: str) -> NDArray[np.uint8]:
        """Return uint8 RGB [side, side, 3]."""
        found = self._known.get(path)
        if found is None:
            found = resize(read_rgb(path), self._side)
            if len(self._known) < self._keep:
                self._known[path] = found
        return found


def degradation(preset: str, side: int) -> Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]:
    """Return what degrades a picture of this side from a seed, as the preset degrades pictures of 512 pixels.

    At 512 it is the preset itself. A smaller picture gets blur and down-scaling that are smaller in proportion. Where
    the preset's reduced picture is larger than ours, its noise is averaged down with it; its JPEG then comes a
    little stronger here than there. So a tiny model trains without 512-pixel pictures being degraded at each step.
    """
    rules = get_degradation(preset)

    def degrade(picture: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        return apply(picture, _drawn(rules, seed, side), rules)

    return degrade


def unrounded_degradation(preset: str, side: int) -> Callable[[NDArray[np.uint8], int], NDArray[np.float32]]:
    """Return the same as `degradation` without the last rounding to 8 bit: float32 RGB [H, W, 3] in 0..1."""
    rules = get_degradation(preset)

    def degrade(picture: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
        drawn = _drawn(rules, seed, side)
        made = steps.degrade(picture, drawn, recorded_noise(drawn, reduced_size(picture, drawn), rules), rules)
        return made if rules.colour_order == "rgb" else made[..., ::-1]

    return degrade


def _drawn(rules: Degradation, seed: int, side: int) -> Parameters:
    drawn = draw(rules, seed, "train")
    if side == SIZE:
        return drawn
    factor = SIZE / side
    return replace(
        drawn,
        sigma_x=drawn.sigma_x / factor,
        sigma_y=drawn.sigma_y / factor,
        scale=max(1.0, drawn.scale / factor),
        noise_sigma=drawn.noise_sigma * min(1.0, drawn.scale / factor),
    )
