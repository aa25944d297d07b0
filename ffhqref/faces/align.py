"""The FFHQ alignment of a detected face, with the published resampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ffhqref.core.errors import ImageError
from ffhqref.core.images import SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.faces.detect import Detector, Face

MOST_ROLL, MOST_SKEW = 45.0, 25.0
"""Degrees: slope of the eye line; angle between its normal and the line from eyes to mouth. Upright faces of the
embedded sample, of FFHQ and of 90 officials: up to 14 and 6."""

RATIO = (0.6, 2.2)
"""Distance from eyes to mouth, in eye distances. Upright faces: .8 to 1.3; faces in profile reach 2."""

NOSE = (0.15, 0.9)
"""Where the tip of the nose stands between eyes (0) and mouth (1). Upright faces: .26 to .7."""

OVERSAMPLING = 4
"""The square is sampled bilinearly at so many times the final size, then shrunk with Lanczos' filter."""


def ffhq_square(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of the FFHQ crop, [4, 2] (x, y): top left, bottom left, bottom right, top right.

    The recipe of FFHQ's authors (appendix C of Karras, Laine, Aila 2019): the axis of the square is the eye line
    corrected by the line from eyes to mouth, half its side the larger of 2.0 eye distances and 1.8 eye-mouth
    distances, its centre 0.1 of the way from the eyes to the mouth.

    Args:
        points: [5, 2] as in `ffhqref.faces.detect.Face`. The authors use the eye centres and outer mouth corners of
            dlib's 68 landmarks, as `ffhqref.faces.detect.Dlib68` does.
    """
    left, right, _, mouth_left, mouth_right = points
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    along, down = right - left, mouth - eyes
    axis = along + np.array([down[1], -down[0]])  # the eye line plus the face's down direction turned by 90 degrees
    axis = axis / np.hypot(*axis) * max(np.hypot(*along) * 2.0, np.hypot(*down) * 1.8)
    other = np.array([-axis[1], axis[0]])
    centre = eyes + 0.1 * down
    return np.stack([centre - axis - other, centre - axis + other, centre + axis + other, centre + axis - other])


def implausible(points: NDArray[np.float64]) -> str | None:
    """Return why five landmarks are not those of an upright face, or None.

    A detector without a notion of roll returns such points on an image that is turned by 90 degrees.

    Args:
        points: [5, 2] as in `ffhqref.faces.detect.Face`.
    """
    left, right, nose, mouth_left, mouth_right = points
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    along, down = right - left, mouth - eyes
    distance, height = float(np.hypot(*along)), float(np.hypot(*down))
    if not np.isfinite(points).all() or min(distance, height) < 2.0:
        return "landmarks that lie on one point"
    unit = along / distance
    normal = np.array([-unit[1], unit[0]])
    roll = float(np.degrees(np.arctan2(along[1], along[0])))
    skew = float(np.degrees(np.arctan2(down @ unit, down @ normal)))
    if abs(roll) > MOST_ROLL:
        return f"eyes on a line of {roll:.0f} degrees"
    if abs(skew) > MOST_SKEW:
        return f"a mouth {abs(skew):.0f} degrees aside from below the eyes"
    if not RATIO[0] <= height / distance <= RATIO[1]:
        return f"{height / distance:.1f} eye distances from eyes to mouth"
    if not NOSE[0] <= float((nose - eyes) @ normal) / height <= NOSE[1]:
        return "a nose that is not between eyes and mouth"
    return None


def upright_face(image: NDArray[np.uint8], detector: Detector) -> Face:
    """Return the main face of an image.

    The image is looked at turned by 90, 180 and 270 degrees too where no face, an implausible one, or one of which
    the detector is not sure was found.

    Args:
        image: uint8 RGB [H, W, 3].
        detector: finds faces.

    Raises:
        ImageError: there is no face, its landmarks are implausible, or the image is turned.
    """
    from ffhqref.faces.detect import main_face

    face = main_face(detector(image), image.shape[1], image.shape[0])
    problem = None if face is None else implausible(face.points)
    if face is not None and problem is None and face.score >= detector.sure_score:
        return face
    least = max(detector.sure_score, 0.0 if face is None else face.score)
    for quarters in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(image, quarters))
        other = main_face(detector(turned), turned.shape[1], turned.shape[0])
        if other is not None and other.score >= least and implausible(other.points) is None:
            raise ImageError(f"the face is turned clockwise by {90 * quarters} degrees; turn the image upright")
    if face is None:
        raise ImageError(f"no face found by {detector.signature}")
    if problem is not None:
        raise ImageError(f"implausible landmarks by {detector.signature}: {problem}")
    return face


def align_ffhq(image: NDArray[np.uint8], points: NDArray[np.float64], size: int = SIZE) -> NDArray[np.uint8]:
    """Crop a face as FFHQ's authors do.

    Shrink an image much larger than the crop, crop with a margin, pad by reflection and blur the padding, sample the
    square bilinearly at `OVERSAMPLING` times the size, and shrink that.

    Args:
        image: uint8 RGB [H, W, 3].
        points: [5, 2] landmarks, 0 being the centre of the first pixel.
        size: height and width of the result.

    Returns:
        uint8 RGB [size, size, 3].
    """
    square = ffhq_square(points)
    image, square = _shrunk(image, square, size)
    side = float(np.hypot(*(square[3] - square[0])))
    margin = max(round(side * 0.1), 3)
    image, square = _cropped(image, square, margin)
    image, square = _padded(image, square, side, margin)
    large = (OVERSAMPLING * size,) * 2
    # the square is in centres of pixels, PIL counts from the corner of the first one
    corners = tuple((square + 0.5).ravel())
    sampled = Image.fromarray(image).transform(large, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return np.asarray(sampled.resize((size, size), Image.Resampling.LANCZOS), np.uint8)


def _shrunk(
    image: NDArray[np.uint8], square: NDArray[np.float64], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    factor = int(np.hypot(*(square[3] - square[0])) / size / 2)
    if factor <= 1:
        return image, square
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((round(width / factor), round(height / factor)), Image.Resampling.LANCZOS)
    return np.asarray(small, np.uint8), square / factor


def _cropped(
    image: NDArray[np.uint8], square: NDArray[np.float64], margin: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    height, width = image.shape[:2]
    left, top = (max(int(low) - margin, 0) for low in np.floor(square.min(axis=0)))
    right, bottom = (
        min(int(high) + margin, most) for high, most in zip(np.ceil(square.max(axis=0)), (width, height), strict=True)
    )
    return np.ascontiguousarray(image[top:bottom, left:right]), square - (left, top)


def _padded(
    image: NDArray[np.uint8], square: NDArray[np.float64], side: float, margin: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Pad by reflection where the square leaves the image, blurred and faded to the median towards the edge."""
    from scipy.ndimage import gaussian_filter

    height, width = image.shape[:2]
    before = np.maximum(margin - np.floor(square.min(axis=0)).astype(int), 0)
    after = np.maximum(np.ceil(square.max(axis=0)).astype(int) - (width, height) + margin, 0)
    if max(*before, *after) <= margin - 4:
        return image, square
    (left, top), (right, bottom) = (np.maximum(pad, round(side * 0.3)) for pad in (before, after))
    padded = np.pad(image.astype(np.float32), ((top, bottom), (left, right), (0, 0)), "reflect")
    # depth into the padding: 0 at the image, 1 at the edge
    rows, columns = np.arange(len(padded), dtype=np.float32), np.arange(padded.shape[1], dtype=np.float32)
    across = 1.0 - np.minimum(columns / left, columns[::-1] / right)
    down = 1.0 - np.minimum(rows / top, rows[::-1] / bottom)
    depth = np.maximum(down[:, None], across[None, :])[..., None]
    blur = side * 0.02
    padded += (gaussian_filter(padded, (blur, blur, 0)) - padded) * np.clip(3.0 * depth + 1.0, 0.0, 1.0)
    padded += (np.median(padded, axis=(0, 1)) - padded) * np.clip(depth, 0.0, 1.0)
    return np.clip(np.rint(padded), 0, 255).astype(np.uint8), square + np.array([left, top])
