"""The FFHQ alignment of a detected face, from five landmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.images import SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ffhq_square(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of the FFHQ crop, [4, 2] (x, y): top left, bottom left, bottom right, top right.

    The recipe of FFHQ's authors (appendix C of Karras, Laine, Aila 2019; ``recreate_aligned_images`` of their
    data set tool): the square's axis is the eye line corrected by the line from eyes to mouth, its half side the
    larger of 2.0 eye distances and 1.8 eye-mouth distances, its centre 0.1 of the way from the eyes to the mouth.
    The authors average 68 landmarks to eye centres and outer mouth corners; here these come straight from the
    detector.

    Args:
        points: [5, 2] as in `ffhqref.faces.detect.Face`.
    """
    left, right, _, mouth_left, mouth_right = points
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    along, down = right - left, mouth - eyes
    axis = along + np.array([down[1], -down[0]])  # the eye line plus the face's down direction turned by 90 degrees
    axis = axis / np.hypot(*axis) * max(np.hypot(*along) * 2.0, np.hypot(*down) * 1.8)
    other = np.array([-axis[1], axis[0]])
    centre = eyes + 0.1 * down
    return np.stack([centre - axis - other, centre - axis + other, centre + axis + other, centre + axis - other])


def align_ffhq(image: NDArray[np.uint8], points: NDArray[np.float64], size: int = SIZE) -> NDArray[np.uint8]:
    """Cut a face out of a picture the FFHQ way.

    Args:
        image: uint8 RGB [H, W, 3].
        points: [5, 2] landmarks in pixels of ``image``.
        size: side of the result.

    Returns:
        uint8 RGB [size, size, 3]; anti-aliased when the face is shrunk. What lies outside the picture is mirrored
        and fades into a blur of itself, as in FFHQ.
    """
    import cv2

    square = ffhq_square(points)
    side = float(np.hypot(*(square[3] - square[0])))
    shrink = max(1, int(np.floor(side / size)))
    if shrink > 1:
        small = (max(1, round(image.shape[1] / shrink)), max(1, round(image.shape[0] / shrink)))
        square = square * np.array([small[0] / image.shape[1], small[1] / image.shape[0]])
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
    # Pixel centres: the corner of the square is the outer corner of the first pixel.
    corners = np.array([[-0.5, -0.5], [-0.5, size - 0.5], [size - 0.5, size - 0.5]], np.float32)
    matrix = cv2.getAffineTransform((square[:3] - 0.5).astype(np.float32), corners)
    flags = cv2.INTER_CUBIC if side / shrink < size else cv2.INTER_LINEAR
    face = cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    inside = cv2.warpAffine(
        np.ones(image.shape[:2], np.float32),
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )
    if inside.min() >= 1.0 - 1e-4:
        return np.asarray(face, np.uint8)
    depth = cv2.distanceTransform((inside < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    mix = np.clip(depth / (0.1 * size), 0.0, 1.0)[..., None]
    soft = cv2.GaussianBlur(face, (0, 0), 0.02 * size)
    return np.asarray(np.round(face * (1 - mix) + soft * mix), np.uint8)
