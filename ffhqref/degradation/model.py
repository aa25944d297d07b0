"""What a degradation is, and where it is found: config files, other packages, the user's own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ffhqref.core.errors import ConfigError
from ffhqref.core.options import Options, read_options
from ffhqref.core.registry import Registry, read_yaml

Number = int | float


def _ordered(bounds: tuple[Number, Number]) -> tuple[Number, Number]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected the lower end first, [{bounds[1]}, {bounds[0]}]")
    return bounds


def _within(low: float, high: float = math.inf) -> Callable[[tuple[Number, Number]], tuple[Number, Number]]:
    def check(bounds: tuple[Number, Number]) -> tuple[Number, Number]:
        if bounds[0] < low or bounds[1] > high:
            raise ValueError(f"expected numbers from {low:g}" + (f" to {high:g}" if high < math.inf else " on"))
        return bounds

    return check


Range = Annotated[tuple[Number, Number], AfterValidator(_ordered)]
"""Both ends of a uniform draw."""


def _probability(value: Number) -> Number:
    if not 0 <= value <= 1:
        raise ValueError("expected a probability from 0 to 1")
    return value


def _kernel(name: str) -> str:
    if name not in ("iso", "aniso"):
        raise ValueError("expected iso or aniso")
    return name


def _kernels(kernels: tuple[tuple[str, Number], ...]) -> tuple[tuple[str, Number], ...]:
    if not any(probability > 0 for _, probability in kernels):
        raise ValueError("expected one with a probability above 0, for instance [[iso, 0.5], [aniso, 0.5]]")
    return kernels


def _odd(size: int) -> int:
    if size % 2 == 0 or size < 1:
        raise ValueError("expected an odd number")
    return size


Probability = Annotated[Number, AfterValidator(_probability)]


_AXES = {
    "sigma_x": (0.0, math.inf),
    "rotation": (-math.inf, math.inf),
    "scale": (0.1, math.inf),
    "noise_sigma": (0.0, math.inf),
    "jpeg_quality": (0.0, 100.0),
}
"""What a grid runs over, and the least and the largest value."""


def _axes(axes: tuple[tuple[str, tuple[Number, ...]], ...]) -> tuple[tuple[str, tuple[Number, ...]], ...]:
    if sorted(name for name, _ in axes) != sorted(_AXES):
        raise ValueError(f"expected each of {', '.join(_AXES)} once, as [NAME, [FIRST, SECOND]]")
    for name, values in axes:
        low, high = _AXES[name]
        if not values or min(values) < low or max(values) > high:
            raise ValueError(f"{name}: expected values from {low:g} to {high:g}")
    return axes


def _some(values: tuple[Number, ...]) -> tuple[Number, ...]:
    if not values or min(values) < 0:
        raise ValueError("expected values from 0 on")
    return values


class Grid(Options):
    """A test set in which every combination occurs once instead of random draws."""

    axes: Annotated[tuple[tuple[str, tuple[Number, ...]], ...], AfterValidator(_axes)]
    """Nested loops, outermost first: a name of `ffhqref.degradation.Parameters` and its values."""
    sigma_y: Annotated[tuple[Number, ...], AfterValidator(_some)]
    """Values of which one is chosen at random for each image."""

    def __len__(self) -> int:
        return math.prod(len(values) for _, values in self.axes)

    def cell(self, index: int) -> dict[str, float]:
        """Return the values of one combination, counted with the innermost loop fastest."""
        chosen = {}
        for name, values in reversed(self.axes):
            index, step = divmod(index, len(values))
            chosen[name] = values[step]
        return chosen


class Degradation(Options):
    """Blur, downsample, add noise, compress as JPEG, resize back: the chain of the whole field, with its ranges.

    Draws are uniform. Standard deviations of the blur are in pixels of the image that goes in (512x512 in all of the
    papers), those of the noise in grey levels of 0..255.
    """

    name: str = ""
    """Part of the key of every draw, and the level in tables; that of the file, or of the benchmark."""
    sigma: Annotated[Range, AfterValidator(_within(0))]
    """Standard deviation of the Gaussian blur in pixels, drawn for each axis of an anisotropic kernel."""
    scale: Annotated[Range, AfterValidator(_within(0.1))]
    """Downsampling factor, real-valued; the reduced height and width are rounded down."""
    noise: Annotated[Range, AfterValidator(_within(0))]
    """Standard deviation of the Gaussian noise in grey levels."""
    jpeg: Annotated[Range, AfterValidator(_within(0, 100))]
    """JPEG quality, drawn real-valued and cut to an integer."""
    source: str = ""
    """Where the figures were read: the code, unless it says paper."""
    kernels: Annotated[
        tuple[tuple[Annotated[str, AfterValidator(_kernel)], Probability], ...], AfterValidator(_kernels)
    ] = (("iso", 0.5), ("aniso", 0.5))
    """Kernel types with their probabilities."""
    kernel_size: Annotated[int, AfterValidator(_odd)] = 41
    """Height and width of the blur kernel in pixels; odd."""
    rotation: Range = (-math.pi, math.pi)
    """Angle of an anisotropic kernel in radians."""
    integers: tuple[Literal["scale", "jpeg_quality"], ...] = ()
    """What is drawn as a whole number, both ends included."""
    colour_order: Literal["bgr", "rgb"] = "bgr"
    """Order of the channels while noise is added and JPEG is written. With ``rgb`` OpenCV's encoder takes red for
    blue, so the colour conversion inside JPEG is another."""
    noise_in_unit_range: bool = False
    """Draw the deviation of the noise in 0..1 instead of 0..255; equal but for the last bits."""
    grey_noise_probability: Probability | None = 0.0
    """Chance that one noise value serves all three channels; null: the code makes no such draw."""
    precision: Literal["float32", "float64"] = "float32"
    """Number type up to the JPEG encoder; behind it all codes use float32."""
    rounding: Literal["round", "none"] = "round"
    """``round``: the published result is rounded to whole grey levels and clipped. ``none``: it stays real-valued
    there, and is rounded here only because a PNG holds whole grey levels."""
    colour_shift: Annotated[Number, Field(ge=0)] = 0.0
    """Largest shift of a channel in grey levels, of a random colour shift after the last resize."""
    colour_shift_probability: Probability | None = None
    """null: the code makes no such draw."""
    grey_probability: Probability | None = None
    """Chance that the image loses its colour; null: the code makes no such draw."""
    grey_first: bool = False
    """The loss of colour (and its draw) comes before the blur and not at the end."""
    grey_target: bool = False
    """The published training turns the target grey together with the LQ image. Here the target stays as it is."""
    grid: Grid | None = None
    """A complete grid in place of random draws; the ranges above then only state its extent."""
    legacy: bool = True
    """Whether `ffhqref.degradation.legacy_sequence` can follow the published order of draws."""
    notes: str = ""
    """What differs between paper and code, and what of the published loader is left out."""

    @model_validator(mode="after")
    def _whole(self) -> Degradation:
        for name in self.integers:
            bounds = self.scale if name == "scale" else self.jpeg
            if any(bound % 1 for bound in bounds):
                key = "scale" if name == "scale" else "jpeg"
                raise ValueError(f"{key}={list(bounds)}: drawn as a whole number (integers), expected whole bounds")
        return self

    def rules(self) -> dict[str, Any]:
        """Return everything that decides about a result, for content keys."""
        return self.model_dump(exclude={"source", "notes"})


DEGRADATIONS: Registry[Any] = Registry("degradation", {}, "ffhqref.degradations", conf="degradation")
"""Every degradation by name: conf/degradation/*.yaml, and what other packages add through the entry point group
``ffhqref.degradations`` (a `Degradation`, a mapping of its options, or a function that returns one of them)."""


def get_degradation(given: str | Path | Mapping[str, Any] | Degradation, name: str = "") -> Degradation:
    """Return a degradation.

    >>> get_degradation("severe").scale, get_degradation({"sigma": [1, 1], "scale": [8, 8], "noise": [0, 0],
    ...     "jpeg": [90, 90]}, "mine").name
    ((8, 32), 'mine')

    Args:
        given: a name of `DEGRADATIONS`; a YAML file of options; the options themselves; a `Degradation`.
        name: of a degradation whose options do not tell it.

    Raises:
        ConfigError: no such name or file, or an option that is wrong; one line.
    """
    if isinstance(given, Degradation):
        return given
    if isinstance(given, Mapping):
        where = f"benchmark.{name}.degradation" if name else "degradation"
        return read_options(Degradation, {"name": name, **given}, where)
    if str(given).endswith((".yaml", ".yml")):
        file = Path(given).expanduser()
        return read_options(Degradation, {"name": file.stem, **read_yaml(file, "degradation")}, str(file))
    found = DEGRADATIONS.get(str(given))
    if callable(found):
        found = found()
    if isinstance(found, Degradation):
        return found.model_copy(update={"name": str(given)})
    if not isinstance(found, Mapping):
        raise ConfigError(f"degradation '{given}': its entry point gives {found!r}, expected options or a Degradation")
    return read_options(Degradation, {**found, "name": str(given)}, f"degradation '{given}'")


def check_names(degradations: Mapping[str, Degradation]) -> None:
    """Refuse two degradations of one name: their images would overwrite each other.

    Args:
        degradations: by benchmark.

    Raises:
        ConfigError: with the two benchmarks.
    """
    for (first, one), (second, other) in itertools.combinations(degradations.items(), 2):
        if one.name == other.name and one.rules() != other.rules():
            raise ConfigError(
                f"benchmarks '{first}' and '{second}' have different degradations of the name '{one.name}'; give one "
                f"of them another with benchmark.{second}.degradation.name=NAME"
            )
