"""Crops: the input of a face-recognition network, cut out of an aligned 512x512 face.

A crop is a choice apart from the network: the same ArcFace gives other similarities on another crop, so the name of
the crop is part of every signature.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.core.images import SIZE
from ffhqref.faces import CROPS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.faces.base import Embedder

FFHQ_POINTS = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""Eyes, nose tip and mouth corners of the FFHQ alignment at 512 px (facexlib's FFHQ template)."""

ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""The same points in the 112 px crop that ArcFace and its kin are trained on (insightface's face_align)."""

FFHQ_DLIB_POINTS = np.array([[343.0, 244.0], [292.2, 245.7], [167.2, 244.0], [217.5, 245.7], [255.5, 332.3]])
"""Mean position at 512 px of the five points of dlib's landmark model (outer and inner eye corners of the left and
right eye, base of the nose), measured with that model on 164 FFHQ-aligned images."""

DLIB_POINTS = (
    150.0
    / 1.5
    * (
        0.25
        + np.array(
            [
                [0.8595674595992, 0.2134981538014],
                [0.6460604764104, 0.2289674387677],
                [0.1205750620789, 0.2137274526848],
                [0.3340850613712, 0.2290642403242],
                [0.4901123135679, 0.6277975316475],
            ]
        )
    )
)
"""The same points in dlib's 150 px face chip with padding 0.25."""


def check_crop(crop: str) -> None:
    """Refuse a crop that does not exist.

    Raises:
        ConfigError: unknown name, with the nearest one, or a plug-in that does not import.
    """
    CROPS.get(crop)


def crop_faces(images: NDArray[np.uint8], crop: str, embedder: Embedder) -> NDArray[np.uint8]:
    """Cut the faces out of aligned images.

    Args:
        images: uint8 RGB [B, 512, 512, 3], aligned the FFHQ way.
        crop: name in `ffhqref.faces.CROPS`.
        embedder: gives the size and the template.

    Returns:
        uint8 RGB [B, S, S, 3] with S = ``embedder.face_size``.

    Raises:
        ConfigError: no such crop, or one that gives anything else.
    """
    if images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(f"expected uint8 [B, {SIZE}, {SIZE}, 3], got {images.shape}")
    cut, size = CROPS.get(crop), embedder.face_size
    if not len(images):
        return np.zeros((0, size, size, 3), np.uint8)
    faces = np.asarray(cut(images, embedder))
    if faces.dtype != np.uint8 or faces.shape != (len(images), size, size, 3):
        raise ConfigError(
            f"crop '{crop}' gives {faces.dtype} {list(faces.shape)}, expected uint8 [{len(images)}, {size}, {size}, 3]"
        )
    return faces


def ffhq_template(images: NDArray[np.uint8], embedder: Embedder) -> NDArray[np.uint8]:
    """Apply the fixed similarity that takes the FFHQ template to the embedder's own; no detection.

    Anti-aliased: drawn at twice the size, then averaged down.
    """
    import cv2

    size, matrix = embedder.face_size, _template_matrix(embedder.template)
    large = [cv2.warpAffine(image, matrix, (2 * size, 2 * size), flags=cv2.INTER_LINEAR) for image in images]
    return np.stack([cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA) for face in large])


def refldm_center(images: NDArray[np.uint8], embedder: Embedder) -> NDArray[np.uint8]:
    """Take rows and columns 6.25 % to 93.75 %, area interpolation, no alignment (ReF-LDM, scripts/eval.py)."""
    import cv2

    low, high = SIZE // 16, SIZE - SIZE // 16
    size = (embedder.face_size, embedder.face_size)
    return np.stack([cv2.resize(image[low:high, low:high], size, interpolation=cv2.INTER_AREA) for image in images])


FACENET_BOX = (94, 465, 114, 391)
"""Top, bottom, left and right at 512 px of a face in FFHQ's alignment, as FaceNet's detector finds it: the mean over 30
images on which facenet-pytorch's MTCNN was run (standard deviations 8 to 12)."""


def facenet_box(images: NDArray[np.uint8], embedder: Embedder) -> NDArray[np.uint8]:
    """Take the box that FaceNet's detector finds on average, and squeeze it to a square as it does; no alignment."""
    import cv2

    top, bottom, left, right = FACENET_BOX
    size = (embedder.face_size, embedder.face_size)
    return np.stack([cv2.resize(image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA) for image in images])


@lru_cache
def _template_matrix(template: str) -> NDArray[np.float64]:
    """Return the 2x3 matrix from 512 px pixels to pixels of the crop at twice its size."""
    pairs = {"arcface": (FFHQ_POINTS, ARCFACE_POINTS), "dlib": (FFHQ_DLIB_POINTS, DLIB_POINTS)}
    if template not in pairs:
        raise ConfigError(f"unknown face template '{template}', known: {', '.join(pairs)}")
    matrix = similarity(*pairs[template])
    return np.asarray(np.hstack([2.0 * matrix[:, :2], 2.0 * matrix[:, 2:] + 0.5]))


def similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 2x3 similarity (rotation, scale, shift) that takes points to points with least squares.

    Umeyama's closed form (IEEE PAMI 13(4), 1991).

    Args:
        source: [N, 2] points.
        target: [N, 2] points.
    """
    mean_source, mean_target = source.mean(axis=0), target.mean(axis=0)
    covariance = (target - mean_target).T @ (source - mean_source) / len(source)
    left, values, right = np.linalg.svd(covariance)
    sign = np.diag([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = left @ sign @ right
    scale = float((values * np.diag(sign)).sum() / (source - mean_source).var(axis=0).sum())
    return np.hstack([scale * rotation, (mean_target - scale * rotation @ mean_source)[:, None]])


def arcface_crop(picture: NDArray[np.uint8], points: NDArray[np.float64], side: int = 112) -> NDArray[np.uint8]:
    """Return the crop [side, side, 3] that insightface cuts for ArcFace: a similarity, bilinear, black outside.

    Args:
        picture: uint8 [H, W, 3], of any channel order.
        points: [5, 2] (x, y), eyes, nose tip, mouth corners, as `ffhqref.faces.detect.Face` has them.
        side: in pixels; the template is that of 112, enlarged.
    """
    import cv2

    matrix = similarity(np.asarray(points, np.float64), ARCFACE_POINTS * (side / 112))
    return np.asarray(cv2.warpAffine(picture, matrix, (side, side), borderValue=0.0), np.uint8)
