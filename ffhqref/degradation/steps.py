"""Apply recorded parameters to an image: the published steps, one by one (ReF-LDM, ldm/data/degradations.py).

Everything that decides the last bit is kept as published: the full 41x41 kernel through OpenCV's ``filter2D`` (a
separable blur is twice as fast and rounds differently), bilinear resizing, the order of the channels (the last
pixels of a row take another path through OpenCV, so even a resize gives other bits in another order), the order of
multiplications of the noise, the encoder's own rounding. Only what cannot change a bit is done in another way: the
channels are swapped while they are 8-bit, 8-bit values become real through a table, the last rounding is one call.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ffhqref.degradation.model import Degradation, get_degradation
from ffhqref.degradation.parameters import Parameters, Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

Float = TypeVar("Float", bound=np.floating)

SMALLEST_SIGMA = 1e-6
"""Blur in pixels below which an axis counts as this: the published code divides by zero at 0."""


def apply(image: NDArray[np.uint8], parameters: Parameters, preset: Degradation | None = None) -> NDArray[np.uint8]:
    """Return the LQ image that the parameters describe: the same bits each time.

    Args:
        image: uint8 RGB [H, W, 3].
        parameters: from `draw`, `legacy_sequence`, or a row of table ``degradations``.
        preset: only for parameters of an own degradation.

    Returns:
        uint8 RGB [H, W, 3], resized back to the size of ``image``.

    Raises:
        ConfigError: the parameters name a preset that does not exist.
        ValueError: ``image`` is not uint8 [H, W, 3].
    """
    preset = preset or get_degradation(parameters.preset)
    noise = recorded_noise(parameters, reduced_size(image, parameters), preset)
    return finish(degrade(image, parameters, noise, preset), preset)


def reduced_size(image: NDArray[np.uint8], parameters: Parameters) -> tuple[int, int]:
    """Return (height, width) of the downsampled image, each side at least one pixel."""
    height, width = image.shape[:2]
    return max(1, int(height // parameters.scale)), max(1, int(width // parameters.scale))


def noise_shape(size: tuple[int, int], parameters: Parameters, preset: Degradation) -> tuple[int, ...]:
    """Return the shape of the noise array: [h, w, 3], or [h, w] when all channels share it."""
    probability = preset.grey_noise_probability
    grey = probability is not None and (parameters.grey_noise_draw or 0.0) < probability
    return size if grey else (*size, 3)


def recorded_noise(parameters: Parameters, size: tuple[int, int], preset: Degradation) -> NDArray[np.float64]:
    """Draw the noise again that belongs to recorded parameters."""
    stream = Stream(parameters.seed)
    stream.skip(parameters.noise_skip, parameters.noise_carry)
    return stream.normal(*noise_shape(size, parameters, preset))


def degrade(
    image: NDArray[np.uint8], parameters: Parameters, noise: NDArray[np.float64], preset: Degradation
) -> NDArray[np.float32]:
    """Blur, downsample, add noise, compress, resize back: the published steps before the last rounding.

    Args:
        image: uint8 RGB [H, W, 3].
        parameters: what was drawn.
        noise: standard normal values [h, w, 3] (or [h, w]) in the preset's colour order, of the reduced size.
        preset: the fixed rules.

    Returns:
        float32 [H, W, 3] in 0..1, in the preset's colour order.
    """
    import cv2

    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"a uint8 image [H, W, 3] is needed, not {image.dtype} {list(image.shape)}")
    height, width = image.shape[:2]
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if preset.colour_order == "bgr" else np.ascontiguousarray(image)
    picture = cv2.LUT(ordered, _unit_values(preset.precision))
    if parameters.grey and preset.grey_first:
        picture = _without_colour(picture, preset)
    picture = cv2.filter2D(picture, -1, blur_kernel(parameters, preset.kernel_size))
    rows, columns = reduced_size(image, parameters)
    picture = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_LINEAR)
    values = noise.astype(np.float32)
    if preset.noise_in_unit_range:
        values *= parameters.noise_sigma / 255.0
    else:
        values *= parameters.noise_sigma
        values /= 255.0
    picture = picture + (values[..., None] if values.ndim == 2 else values)
    np.clip(picture, 0.0, 1.0, out=picture)
    # the encoder rounds real values itself; said aloud here, so that no version of OpenCV can do otherwise
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(parameters.jpeg_quality)]
    _, data = cv2.imencode(".jpg", to_grey_levels(picture), quality)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    levels = cv2.LUT(decoded, _unit_values("float32"))
    made: NDArray[np.float32] = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
    if parameters.colour_shift is not None:
        made = np.clip(made + np.asarray(parameters.colour_shift, dtype=np.float32), 0.0, 1.0)
    if parameters.grey and not preset.grey_first:
        made = _without_colour(made, preset)
    return made


def blur_kernel(parameters: Parameters, size: int) -> NDArray[np.float64]:
    """Return the bivariate Gaussian [size, size] that sums to 1, built in the published order of operations."""
    sigma_x = max(parameters.sigma_x, SMALLEST_SIGMA)
    sigma_y = max(parameters.sigma_y, SMALLEST_SIGMA)
    covariance = np.array([[sigma_x**2, 0], [0, sigma_y**2]])
    if parameters.kernel == "aniso":
        cosine, sine = np.cos(parameters.rotation), np.sin(parameters.rotation)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        covariance = np.dot(turn, np.dot(covariance, turn.T))
    grid = _grid(size)
    exponent = np.sum(np.dot(grid, np.linalg.inv(covariance)) * grid, 2)
    kernel: NDArray[np.float64] = np.exp(-0.5 * exponent)
    kernel /= np.sum(kernel)
    return kernel / np.sum(kernel)  # the published code normalises twice, which moves last bits


def finish(picture: NDArray[np.float32], preset: Degradation) -> NDArray[np.uint8]:
    """Return uint8 RGB [H, W, 3] from what `degrade` returns."""
    import cv2

    levels = to_grey_levels(picture)
    if preset.colour_order == "bgr":
        cv2.cvtColor(levels, cv2.COLOR_BGR2RGB, dst=levels)
    return levels


def to_grey_levels(picture: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return uint8 from real values in 0..1: rounded half to even, as the published code and OpenCV's encoder do.

    Nothing here is negative: JPEG decodes to 0..255, bilinear resizing stays between its neighbours.
    """
    import cv2

    if picture.dtype != np.float32:
        made: NDArray[np.uint8] = np.rint(picture * 255.0).astype(np.uint8)
        return made
    levels: NDArray[np.uint8] = cv2.convertScaleAbs(picture, alpha=255.0)
    return levels


def _without_colour(picture: NDArray[Float], preset: Degradation) -> NDArray[Float]:
    import cv2

    rule = cv2.COLOR_BGR2GRAY if preset.colour_order == "bgr" else cv2.COLOR_RGB2GRAY
    return np.repeat(cv2.cvtColor(picture.astype(np.float32), rule)[..., None], 3, axis=2).astype(picture.dtype)


@cache
def _unit_values(dtype: str) -> NDArray[np.floating]:
    values: NDArray[np.floating] = np.arange(256, dtype=dtype) / np.asarray(255.0, dtype=dtype)
    values.flags.writeable = False
    return values


@cache
def _grid(size: int) -> NDArray[np.float64]:
    axis = np.arange(-size // 2 + 1.0, size // 2 + 1.0)
    grid = np.stack(np.meshgrid(axis, axis), axis=2)
    grid.flags.writeable = False
    return grid
