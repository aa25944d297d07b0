"""The published generators' own order of draws, for whoever must follow a seeded script image by image."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError
from ffhqref.degradation.model import Degradation, get_degradation
from ffhqref.degradation.parameters import Parameters, Stream, draw_after_noise, draw_before_noise
from ffhqref.degradation.steps import degrade, finish, noise_shape, reduced_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def legacy_sequence(
    images: Iterable[NDArray[np.uint8]], preset: str | Degradation, seed: int
) -> Iterator[tuple[NDArray[np.uint8], Parameters]]:
    """Degrade images one after another, drawing as the published code does.

    Python's generator chooses the kernel type; NumPy's gives sigma (sigma_x, sigma_y and rotation of an
    anisotropic kernel), scale, noise level, the grey-noise test, the noise itself, JPEG quality. Both start from
    ``seed`` once, before the first image, so an image's parameters depend on its place and on the sizes of
    those before. The global generators are not touched.

    Args:
        images: uint8 RGB [H, W, 3] each, in the published order.
        preset: a name of `DEGRADATIONS`, or an own degradation.
        seed: what the script gave to ``random.seed`` and ``numpy.random.seed``, 0..2**32 - 1.

    Yields:
        The LQ image, uint8 RGB [H, W, 3], and its parameters, which rebuild it alone through `apply`.

    Raises:
        ConfigError: unknown preset, a seed NumPy would refuse, a preset whose order of draws cannot be followed, or
            more images than a grid has cells.
    """
    preset = get_degradation(preset)
    if not preset.legacy:
        raise ConfigError(f"degradation '{preset.name}' has no legacy sequence: {preset.notes}")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed {seed}: a legacy sequence needs one in 0..{2**32 - 1}, as numpy.random.seed does")
    return _sequence(images, preset, seed)


def _sequence(
    images: Iterable[NDArray[np.uint8]], preset: Degradation, seed: int
) -> Iterator[tuple[NDArray[np.uint8], Parameters]]:
    chooser = random.Random(seed)  # noqa: S311 - the published generator, not a secret
    stream = Stream(seed)
    for index, image in enumerate(images):
        if preset.grid is None:
            drawn = draw_before_noise(preset, stream, chooser.random)
        else:
            if index >= len(preset.grid):
                raise ConfigError(f"degradation '{preset.name}' is a grid of {len(preset.grid)} images, got more")
            sigma_y = chooser.choice(preset.grid.sigma_y)
            drawn = {"kernel": "aniso", "sigma_y": sigma_y, **preset.grid.cell(index)}
        # JPEG quality is drawn behind the noise, whose size depends on the scale
        parameters = Parameters(
            preset=preset.name,
            seed=seed,
            noise_skip=stream.used,
            noise_carry=stream.carry,
            **{"jpeg_quality": 0.0, **drawn},
        )
        noise = stream.counted_normal(*noise_shape(reduced_size(image, parameters), parameters, preset))
        parameters = replace(parameters, **draw_after_noise(preset, stream))
        yield finish(degrade(image, parameters, noise, preset), preset), parameters
