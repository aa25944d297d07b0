"""Parameters of one degraded image: drawn first, recorded, and enough to rebuild the image."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ffhqref.core.seeding import case_seed
from ffhqref.degradation.model import Degradation, get_degradation


@dataclass(frozen=True)
class Parameters:
    """Everything random about one LQ image.

    Together with the preset's fixed rules this rebuilds the image bit for bit: see `ffhqref.degradation.apply`.
    """

    preset: str
    kernel: str
    """``"iso"`` or ``"aniso"``."""
    sigma_x: float
    """Blur in pixels."""
    sigma_y: float
    """Blur in pixels across; equal to sigma_x for an isotropic kernel."""
    rotation: float
    """Radians; 0 for an isotropic kernel."""
    scale: float
    """Downsampling factor."""
    noise_sigma: float
    """Standard deviation in grey levels of 0..255."""
    jpeg_quality: float
    """As drawn; the encoder gets the integer part."""
    seed: int
    """Seed of the stream that the noise is taken from."""
    noise_skip: int
    """How many uniform values of that stream come before the noise."""
    noise_carry: float | None = None
    """Normal value left over by the noise of the image before (NumPy's legacy generator makes them in pairs)."""
    grey_noise_draw: float | None = None
    """Uniform draw in 0..1 that decides on grey noise; None where the preset makes none."""
    colour_shift: tuple[float, float, float] | None = None
    """Shift of each channel in 0..1, in the preset's colour order."""
    grey: bool = False
    """The image loses its colour."""

    def to_row(self) -> dict[str, Any]:
        """Return the columns of table ``degradations`` that these parameters fill."""
        row = asdict(self)
        row["level"] = row.pop("preset")
        row["colour_shift"] = None if self.colour_shift is None else list(self.colour_shift)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Parameters:
        """Return the parameters recorded in a row of table ``degradations``."""
        shift = row["colour_shift"]  # None or NaN where there is none
        return cls(
            preset=str(row["level"]),
            kernel=str(row["kernel"]),
            **{
                name: float(row[name])
                for name in ("sigma_x", "sigma_y", "rotation", "scale", "noise_sigma", "jpeg_quality")
            },
            seed=int(row["seed"]),
            noise_skip=int(row["noise_skip"]),
            noise_carry=_optional(row["noise_carry"]),
            grey_noise_draw=_optional(row["grey_noise_draw"]),
            colour_shift=None if np.ndim(shift) == 0 else (float(shift[0]), float(shift[1]), float(shift[2])),
            grey=bool(row["grey"]),
        )


def _optional(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def draw(preset: str | Degradation, seed: int, image_id: str) -> Parameters:
    """Draw the parameters of one image, keyed by (seed, preset, image) and by nothing else.

    Args:
        preset: a name of `DEGRADATIONS`, or an own degradation.
        seed: the run's seed.
        image_id: names the image.

    Raises:
        ConfigError: unknown preset.
    """
    preset = get_degradation(preset)
    key = case_seed(seed, preset.name, image_id)
    stream = Stream(key)
    drawn = draw_before_noise(preset, stream, stream.uniform)
    drawn |= draw_after_noise(preset, stream)
    return Parameters(preset=preset.name, seed=key, noise_skip=stream.used, noise_carry=None, **drawn)


class Stream:
    """NumPy's legacy generator (its values are frozen for all versions, NEP 19) with a count of the values used.

    Args:
        seed: non-negative; below 2**32 it seeds as ``numpy.random.seed`` does.
    """

    def __init__(self, seed: int) -> None:
        words = seed if seed < 2**32 else [seed & 0xFFFFFFFF, seed >> 32]
        self.seed = seed
        self.used = 0
        self._state = np.random.RandomState(words)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return one uniform value."""
        self.used += 1
        return float(self._state.uniform(low, high))

    def skip(self, count: int, carry: float | None) -> None:
        """Go forward by that many uniform values, and leave a normal value over."""
        while count > 0:
            step = min(count, 1 << 20)
            self._state.random_sample(step)
            self.used += step
            count -= step
        if carry is not None:
            self._state.set_state({**self._state.get_state(legacy=False), "has_gauss": 1, "gauss": carry})

    @property
    def carry(self) -> float | None:
        """The normal value left over, if there is one."""
        state = self._state.get_state(legacy=False)
        return float(state["gauss"]) if state["has_gauss"] else None

    def normal(self, *shape: int) -> np.ndarray:
        """Return float64 standard normal values."""
        return self._state.randn(*shape)

    def counted_normal(self, *shape: int) -> np.ndarray:
        """Return float64 standard normal values and count what they used.

        The polar method rejects some pairs of uniform values, so how many were used shows only in the generator's
        state: a second generator is moved forward until it stands at the same place.
        """
        before = self._state.get_state(legacy=False)
        values = self._state.randn(*shape)
        goal = self._state.get_state(legacy=False)["state"]
        pairs = math.ceil((values.size - before["has_gauss"]) / 2)
        accepted = math.pi / 4
        spread = 8 * math.sqrt(pairs * (1 - accepted)) / accepted
        chaser = np.random.RandomState()
        chaser.set_state(before)
        # a pair is two uniform values is four words; the state holds 624 words
        moved = 2 * max(pairs, int(pairs / accepted - spread))
        moved += ((goal["pos"] - before["state"]["pos"] - 2 * moved) % 624) // 2
        chaser.random_sample(moved)
        while not np.array_equal(chaser.get_state(legacy=False)["state"]["key"], goal["key"]):
            chaser.random_sample(312)
            moved += 312
        self.used += moved
        return values


def draw_before_noise(preset: Degradation, stream: Stream, kernel_uniform: Callable[[], float]) -> dict[str, Any]:
    """Draw what the published code draws before the noise, in its order.

    Args:
        preset: which code.
        stream: the NumPy generator.
        kernel_uniform: uniform value that chooses the kernel type (Python's generator in the published codes).
    """
    grey = False
    if preset.grey_first:
        if preset.colour_shift_probability is not None:
            stream.uniform()  # drawn at probability 0 too
        grey = preset.grey_probability is not None and stream.uniform() < preset.grey_probability
    if preset.grid is not None:
        cell = preset.grid.cell(int(kernel_uniform() * len(preset.grid)))
        sigma_y = preset.grid.sigma_y[int(kernel_uniform() * len(preset.grid.sigma_y))]
        return {"kernel": "aniso", "sigma_y": sigma_y, "grey": grey, **cell}
    bounds = list(itertools.accumulate(probability for _, probability in preset.kernels))
    index = bisect.bisect(bounds, kernel_uniform() * bounds[-1], 0, len(bounds) - 1)
    kernel = preset.kernels[index][0]
    sigma_x = sigma_y = stream.uniform(*preset.sigma)
    rotation = 0.0
    if kernel == "aniso":
        sigma_y = stream.uniform(*preset.sigma)
        rotation = stream.uniform(*preset.rotation)
    scale = _draw_number(preset, stream, "scale", preset.scale)
    if preset.noise_in_unit_range:
        noise_sigma = stream.uniform(preset.noise[0] / 255.0, preset.noise[1] / 255.0) * 255.0
    else:
        noise_sigma = stream.uniform(*preset.noise)
    return {
        "kernel": kernel,
        "sigma_x": sigma_x,
        "sigma_y": sigma_y,
        "rotation": rotation,
        "scale": scale,
        "noise_sigma": noise_sigma,
        "grey_noise_draw": None if preset.grey_noise_probability is None else stream.uniform(),
        "grey": grey,
    }


def draw_after_noise(preset: Degradation, stream: Stream) -> dict[str, Any]:
    """Draw what the published code draws after the noise, in its order; see `draw_before_noise`."""
    drawn: dict[str, Any] = {}
    if preset.grid is None:
        drawn["jpeg_quality"] = _draw_number(preset, stream, "jpeg_quality", preset.jpeg)
    if preset.grey_first:
        return drawn
    if preset.colour_shift_probability is not None and stream.uniform() < preset.colour_shift_probability:
        most = preset.colour_shift / 255.0
        drawn["colour_shift"] = tuple(stream.uniform(-most, most) for _ in range(3))
    if preset.grey_probability is not None:
        drawn["grey"] = stream.uniform() < preset.grey_probability
    return drawn


def _draw_number(preset: Degradation, stream: Stream, name: str, bounds: tuple[float, float]) -> float:
    if name in preset.integers:
        return float(math.floor(stream.uniform(bounds[0], bounds[1] + 1)))
    return stream.uniform(*bounds)
