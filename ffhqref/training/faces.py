"""Images to train on, grouped by person, and their degradation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ffhqref.core.images import SIZE, check_square, read_rgb, resize
from ffhqref.degradation import Degradation, Parameters, apply, draw, get_degradation, steps
from ffhqref.degradation.steps import recorded_noise, reduced_size

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingItem:
    """A target and the references it may be given, by names that ``load`` understands."""

    target: str
    references: tuple[str, ...] = ()


def items_by_person(people: Iterable[tuple[str, str]]) -> list[TrainingItem]:
    """Return an item for each image that has another one of the same person, with all of those as references.

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


class SmallImages:
    """Images by path, resized and cached.

    Args:
        size: of the images in pixels.
        keep: cache at most this many; the others are read again.
        sha256: hashes of files by path; a file of another hash is refused. Others are taken as they are.
    """

    def __init__(self, size: int, keep: int = 4096, sha256: Mapping[str, str] | None = None) -> None:
        self._size, self._sha256 = size, dict(sha256 or {})
        self._keep = keep
        self._known: dict[str, NDArray[np.uint8]] = {}

    def __call__(self, path: str) -> NDArray[np.uint8]:
        """Return uint8 RGB [size, size, 3]."""
        found = self._known.get(path)
        if found is None:
            image = read_rgb(path, sha256=self._sha256.get(path))
            check_square(image.shape[1], image.shape[0], path)
            found = resize(image, self._size)
            if len(self._known) < self._keep:
                self._known[path] = found
        return found


def degradation(
    preset: str | Path | Mapping[str, Any] | Degradation, side: int
) -> Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]:
    """Return what degrades an image of this side from a seed, as the preset degrades images of 512 pixels.

    At 512 it is the preset itself. A smaller image gets blur and down-scaling that are smaller in proportion. Where
    the preset's reduced image is larger than ours, its noise is averaged down with it; its JPEG then comes a
    little stronger here than there. So a tiny model trains without 512-pixel images being degraded at each step.
    """
    return partial(_degraded, get_degradation(preset), side)


def unrounded_degradation(preset: str, side: int) -> Callable[[NDArray[np.uint8], int], NDArray[np.float32]]:
    """Return the same as `degradation` without the last rounding to 8 bit: float32 RGB [H, W, 3] in 0..1."""
    return partial(_unrounded, get_degradation(preset), side)


def _degraded(rules: Degradation, side: int, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    return apply(image, _drawn(rules, seed, side), rules)


def _unrounded(rules: Degradation, side: int, image: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    drawn = _drawn(rules, seed, side)
    made = steps.degrade(image, drawn, recorded_noise(drawn, reduced_size(image, drawn), rules), rules)
    return made if rules.colour_order == "rgb" else made[..., ::-1]


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
