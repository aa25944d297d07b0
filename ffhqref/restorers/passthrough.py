"""Find outputs that are the input again: unchanged, through a lossy codec, or resized and back.

Some published scripts hide a failure by writing their input. An output counts as the input again when a trivial
operation on the input explains nearly all of the difference between the two. A denoiser that changes little is not
taken for one: no such operation gives its result.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image8 = NDArray[np.uint8]
    Operation = Callable[[Image8], Image8]

EXPLAINED = 0.98
"""Share of the squared difference that an operation must explain. Of a denoiser's, the best explains up to .92, since
whatever is resized loses its noise."""

ROUNDING = 0.1
"""Mean squared difference in levels that may be left: an operation that is the right one leaves rounding alone. Without
this bound, whatever blurs noise away would count as resized."""

NEAR = 100.0
"""Mean squared difference in levels above which nothing is tried (PSNR 28 dB)."""

WINDOW, STEP, BORDER = 96, 16, 24
"""Size of the part that is tried first, the grid its corner lies on (that of JPEG), and the rim left out of it."""

SIZES = (64, 128, 192, 224, 256, 320, 384, 448, 768, 1024)
"""Sizes on the way of a 512x512 image; of others in proportion."""

WEBP_QUALITIES = (75, 80, 90, 95)


def same_as_input(output: Image8, lq: Image8) -> str | None:
    """Return why an output is the input again, one line, or None.

    Args:
        output: uint8 RGB [H, W, 3].
        lq: the input, of the same size.
    """
    if np.array_equal(output, lq):
        return "the output equals the input"
    if _difference(output, lq) > NEAR:
        return None
    part, lq_part, inner = _part(output, lq)
    left = {quality: _difference(part[inner], _jpeg(lq_part, quality)[inner]) for quality in range(1, 101)}
    operations: list[tuple[str, Operation]] = [
        (f"as JPEG (quality about {quality})", partial(_jpeg, quality=quality, subsampling=subsampling))
        for quality in sorted(left, key=left.__getitem__)[:8]
        for subsampling in ("4:2:0", "4:4:4", "4:2:2")
    ]
    operations += [(f"resized by {size}/512 and back", resize) for size in SIZES for resize in _resizes(size)]
    for words, operation in operations:
        if _share(operation, part, lq_part, inner) >= EXPLAINED and _share(operation, output, lq) >= EXPLAINED:
            return f"the output is the input {words}"
    for quality in WEBP_QUALITIES:  # it looks at the whole image: of a part only the size of the change counts
        through = partial(_webp, quality=quality)
        change = _difference(through(lq_part), lq_part) / max(_difference(part, lq_part), 1e-9)
        if 0.5 < change < 2 and _share(through, output, lq) >= EXPLAINED:
            return f"the output is the input as WebP (quality {quality})"
    return None


def _jpeg(image: Image8, quality: int, subsampling: str = "4:2:0") -> Image8:
    return _through(image, "JPEG", quality=quality, subsampling=subsampling)


def _webp(image: Image8, quality: int) -> Image8:
    return _through(image, "WEBP", quality=quality)


def _through(image: Image8, kind: str, **options: object) -> Image8:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return np.asarray(Image.open(stream).convert("RGB"))


def _resizes(size: int) -> Iterator[Operation]:
    """Yield the ways to a size and back: OpenCV's and Pillow's filters, and real values as in torch."""
    import cv2

    linear, cubic, lanczos = cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4
    for there, back in (*product((cv2.INTER_AREA, linear, cubic, lanczos), (linear, cubic, lanczos)), (0, 0)):
        yield partial(_cv2_resized, size=size, there=there, back=back)
    for there, back in product((cv2.INTER_AREA, linear, cubic), (linear, cubic)):
        yield partial(_cv2_resized, size=size, there=there, back=back, real=True)
    filters = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)
    for down, up in product(filters, filters):
        yield partial(_pillow_resized, size=size, there=down, back=up)
    for down in filters[:2]:
        yield partial(_antialiased, size=size, kind=down)


def _cv2_resized(image: Image8, size: int, there: int, back: int, real: bool = False) -> Image8:
    import cv2

    height, width = image.shape[:2]
    source = image.astype(np.float32) if real else image
    small = cv2.resize(source, (_scaled(width, size), _scaled(height, size)), interpolation=there)
    large = cv2.resize(small, (width, height), interpolation=back)
    return _levels(large) if real else large.astype(np.uint8, copy=False)


def _pillow_resized(image: Image8, size: int, there: Image.Resampling, back: Image.Resampling) -> Image8:
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((_scaled(width, size), _scaled(height, size)), there)
    return np.asarray(small.resize((width, height), back))


def _antialiased(image: Image8, size: int, kind: Image.Resampling) -> Image8:
    """Resize in real values: down with Pillow's filter (torch's with antialiasing), up with OpenCV's (torch's)."""
    import cv2

    height, width = image.shape[:2]
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in image.transpose(2, 0, 1)]
    small = np.dstack(
        [np.asarray(plane.resize((_scaled(width, size), _scaled(height, size)), kind)) for plane in planes]
    )
    up = cv2.INTER_CUBIC if kind == Image.Resampling.BICUBIC else cv2.INTER_LINEAR
    return _levels(cv2.resize(small, (width, height), interpolation=up))


def _levels(image: NDArray[np.floating]) -> Image8:
    made: Image8 = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return made


def _scaled(length: int, size: int) -> int:
    return max(1, round(length * size / 512))


def _part(output: Image8, lq: Image8) -> tuple[Image8, Image8, tuple[slice, slice]]:
    """Return a window of both, and its inner part, which differs most; all of a small image."""
    height, width = lq.shape[:2]
    if min(height, width) < WINDOW:
        return output, lq, (slice(None), slice(None))
    corners = product(range(0, height - WINDOW + 1, STEP), range(0, width - WINDOW + 1, STEP))
    energy = np.square(output.astype(np.float32) - lq).sum(2)
    sums = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))

    def held(corner: tuple[int, int]) -> float:
        top, left = corner[0] + BORDER, corner[1] + BORDER
        bottom, right = corner[0] + WINDOW - BORDER, corner[1] + WINDOW - BORDER
        return float(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])

    top, left = max(corners, key=held)
    window = (slice(top, top + WINDOW), slice(left, left + WINDOW))
    inner = slice(BORDER, WINDOW - BORDER)
    return output[window], lq[window], (inner, inner)


def _share(
    operation: Operation, output: Image8, lq: Image8, inner: tuple[slice, slice] = (slice(None), slice(None))
) -> float:
    """Return the share of the difference between output and input that an operation on the input explains."""
    change = _difference(output[inner], lq[inner])
    left = _difference(output[inner], operation(lq)[inner])
    return 1 - left / change if change and left <= ROUNDING else 0.0


def _difference(one: Image8, other: Image8) -> float:
    return float(np.square(one.astype(np.float32) - other).mean())
