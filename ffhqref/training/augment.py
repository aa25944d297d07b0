"""Changes of images while a network trains, each by a generator that is passed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Augmentation:
    """What is changed in an example, in this order."""

    person: Callable[[Sequence[NDArray[np.uint8]], np.random.Generator], list[NDArray[np.uint8]]] | None = None
    """Takes the target and its references before the target is degraded, and changes all alike."""
    reference: Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]] | None = None
    """Takes each reference."""
    mirror: bool = False
    """Mirror half of the examples: target, LQ image and the strip of references together, so that the order of the
    references turns round too."""


def vary_person(images: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Return images of one person, uint8 RGB [H, W, 3], as those of a somewhat different one.

    All get the same smooth warp (shifts of 1.2 % of the side on a 5x5 grid, normal, and none at the border) and the
    same change of colour (gain of each channel by up to 12 %, gamma 0.8 to 1.25). Not published: where few people are
    to be had, it makes more of them, and a network cannot learn the few by heart.
    """
    import cv2

    side = images[0].shape[0]
    shifts = rng.normal(0.0, 0.012 * side, (5, 5, 2)).astype(np.float32)
    shifts[[0, -1]] = shifts[:, [0, -1]] = 0.0
    field = cv2.resize(shifts, (side, side), interpolation=cv2.INTER_CUBIC)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).astype(np.float32) + field
    gains = rng.uniform(0.88, 1.12, 3)
    gamma = 2.0 ** rng.uniform(-0.32, 0.32)
    levels = np.arange(256)[:, None] / 255.0
    table = np.clip(np.round(255.0 * gains * levels**gamma), 0, 255).astype(np.uint8)[None]
    mode = cv2.BORDER_REPLICATE
    return [
        np.asarray(cv2.LUT(cv2.remap(image, grid, None, cv2.INTER_CUBIC, borderMode=mode), table), dtype=np.uint8)
        for image in images
    ]


def augment_reference(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a changed copy of a reference, uint8 RGB [H, W, 3].

    Ranges of the published code: brightness, contrast and saturation by up to 20 %, in random order, hue by
    up to 2 % of the circle; turn by 2°, shift by 5 % of the side, scale 0.95 to 1.05; perspective with distortion
    0.2, always, as the code does it (the paper says half of the time); mirrored half of the time. What comes in from
    outside is black.
    """
    import cv2

    values = image.astype(np.float32) / 255.0
    for kind in rng.permutation(4):
        values = _jittered(values, int(kind), rng)
    side = image.shape[0]
    corners = np.array([[0, 0], [side - 1, 0], [side - 1, side - 1], [0, side - 1]], np.float32)
    angle = np.deg2rad(rng.uniform(-2.0, 2.0))
    scale = rng.uniform(0.95, 1.05)
    middle = (side - 1) / 2.0
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (corners - middle) @ turn.T + middle + rng.uniform(-0.05, 0.05, 2) * side
    inward = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * rng.uniform(0.0, 0.1, (4, 2)) * side
    warp = cv2.getPerspectiveTransform(corners, (moved + inward).astype(np.float32))
    values = cv2.warpPerspective(values, warp, (side, side), flags=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        values = values[:, ::-1]
    return np.asarray(np.clip(np.round(values * 255.0), 0, 255), dtype=np.uint8)


def _jittered(values: NDArray[np.float32], kind: int, rng: np.random.Generator) -> NDArray[np.float32]:
    import cv2

    if kind == 3:
        hsv = cv2.cvtColor(values, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + 360.0 * rng.uniform(-0.02, 0.02)) % 360.0
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.float32)
    factor = rng.uniform(0.8, 1.2)
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    towards = (np.float32(0.0), grey.mean(), grey[..., None])[kind]  # brightness, contrast, saturation
    return np.asarray(np.clip(factor * values + (1.0 - factor) * towards, 0.0, 1.0), dtype=np.float32)
