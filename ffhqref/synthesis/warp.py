"""A renderer without weights: the target's own image, turned, stretched and relit a little.

It makes no new view of a person. Every image is an altered photograph, carries the pixels of the target it is to
restore, and turns the head by no more than `MAX_YAW`. It exists so that the chain can be run and tested by anybody; a
FaceMe trained on it learns to copy more than to recognise. The tables and the data card say which renderer was used.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.images import SIZE
from ffhqref.faces.detect import main_face, make_detector
from ffhqref.synthesis.base import Renderer, RendererInfo, RenderRequest
from ffhqref.synthesis.vectors import FacePose, face_pose

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_YAW, MAX_PITCH = 18.0, 10.0
"""Degrees a head is turned at most: beyond, what the camera has not seen would have to be made up."""
MAX_SMILE = 0.12
"""Change of the mouth's width at most, in eye distances."""
JITTER = 4.0
"""Degrees that the seed adds to or takes from yaw and pitch at most, so that a second try is another image."""

HEAD_HEIGHT, HEAD_WIDTH = 0.9, 1.3
NOSE_HEIGHT, NOSE_WIDTH = 0.3, 0.25
"""The generic relief, in eye distances: two bumps of Gaussian profile around the face's centre and the nose."""
REMEMBERED = 64
"""Landmarks kept in memory: the requests for one target follow each other."""
GRID = 128
"""Side of the grid the displacement is computed on; the relief is smooth at its scale."""


@dataclass(frozen=True)
class Change:
    """What is done to an image."""

    yaw: float = 0.0
    """Degrees to turn to the image's right."""
    pitch: float = 0.0
    """Degrees to turn up."""
    smile: float = 0.0
    """Eye distances to widen the mouth by."""
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factor for red, green and blue."""
    light: tuple[float, float] = (0.0, 0.0)
    """Strength of a light from the image's right and from below."""
    gamma: float = 1.0


class WarpRenderer(Renderer):
    """Alters the target's own image towards the pose, mouth and light of the pose image.

    Args:
        detector: finds the five landmarks; a name of `ffhqref.faces.detect.DETECTORS`.
        detector_path: its file, where it has none packaged.
        strength: 0 to 1: how much of the difference between the two heads is made up for.

    Raises:
        ConfigError: a strength outside 0 to 1.
    """

    info = RendererInfo(
        name="warp",
        summary=(
            "altered photographs: the target's own image, warped by a generic head relief and relit; no new view of "
            "the person, and the target's own pixels"
        ),
        verified_against="closed forms; looked at",
    )
    version = "1"
    batch_size = 4

    def __init__(self, detector: str = "centerface", detector_path: str | None = None, strength: float = 1.0) -> None:
        import cv2

        if not isinstance(strength, (int, float)) or not 0.0 <= strength <= 1.0:
            raise ConfigError(f"synthesis.renderer.strength={strength}: expected 0 to 1")
        self.strength = float(strength)
        self._detector = make_detector(detector, **({"path": detector_path} if detector_path else {}))
        limits = [MAX_YAW, MAX_PITCH, MAX_SMILE, JITTER, HEAD_HEIGHT, HEAD_WIDTH, NOSE_HEIGHT, NOSE_WIDTH, GRID]
        rules = content_key(self.version, self.strength, limits, cv2.__version__)[:12]
        self.signature = f"warp:{rules}|{self._detector.signature}"
        self._known: OrderedDict[str, NDArray[np.float64]] = OrderedDict()

    def render(self, requests: Sequence[RenderRequest]) -> list[NDArray[np.uint8]]:
        """Return one altered image a request, uint8 RGB [512, 512, 3]."""
        return [self._one(request) for request in requests]

    def _one(self, request: RenderRequest) -> NDArray[np.uint8]:
        points, other = (self._points(image) for image in (request.identity, request.pose))
        change = draw_change(request, face_pose(points), face_pose(other), self.strength)
        return alter(request.identity, points, change)

    def _points(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        name = sha256_bytes(image.tobytes())
        if name not in self._known:
            face = main_face(self._detector(image), SIZE, SIZE)
            if face is None:
                raise ImageError(f"no face found by {self._detector.signature}")
            while len(self._known) >= REMEMBERED:
                self._known.popitem(last=False)
            self._known[name] = face.points
        return self._known[name]


def draw_change(request: RenderRequest, own: FacePose, wanted: FacePose, strength: float) -> Change:
    """Return the change from one head to the other, within limits, and a light drawn from the request's seed.

    Args:
        request: gives the seed and the colours of both images.
        own: pose of the target.
        wanted: pose of the pose image.
        strength: factor of the differences.
    """
    draw = np.random.default_rng(request.seed)
    jitter = draw.uniform(-JITTER, JITTER, 2)
    angle, light = draw.uniform(0.0, 2.0 * np.pi), draw.uniform(0.2, 0.8)
    inner = slice(SIZE // 4, 3 * SIZE // 4)
    colours = [image[inner, inner].reshape(-1, 3).mean(axis=0) + 1.0 for image in (request.pose, request.identity)]
    # half of the difference: the pose image's light, not its skin
    gain = np.clip(np.sqrt(colours[0] / colours[1]), 0.85, 1.18)

    def between(difference: float, limit: float, extra: float = 0.0) -> float:
        return float(np.clip(strength * difference + extra, -limit, limit))

    return Change(
        yaw=between(wanted.yaw - own.yaw, MAX_YAW, jitter[0]),
        pitch=between(wanted.pitch - own.pitch, MAX_PITCH, jitter[1]),
        smile=between(wanted.smile - own.smile, MAX_SMILE),
        gain=tuple(gain.tolist()),
        light=(float(light * np.cos(angle)), float(light * np.sin(angle))),
        gamma=float(draw.uniform(0.85, 1.18)),
    )


def alter(image: NDArray[np.uint8], points: NDArray[np.float64], change: Change) -> NDArray[np.uint8]:
    """Turn, stretch and relight a face.

    Args:
        image: uint8 RGB [H, W, 3].
        points: [5, 2] its landmarks in pixels, as in `ffhqref.faces.detect.Face`.
        change: what to do; the default one leaves the image as it is.

    Returns:
        uint8 RGB [H, W, 3].
    """
    import cv2

    height, width = image.shape[:2]
    rows = (np.arange(GRID) + 0.5) * height / GRID - 0.5
    columns = (np.arange(GRID) + 0.5) * width / GRID - 0.5
    grid = np.stack(np.meshgrid(columns, rows), axis=-1)
    source = grid
    for _ in range(8):  # where does the point come from that lands here: a contraction, as the relief is smooth
        source = grid - displacement(source, points, change)
    moved = cv2.resize((source - grid).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    full = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32) + moved
    warped = cv2.remap(image, full, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    light = cv2.resize(_light(grid, points, change).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    values = warped.astype(np.float32) / 255.0
    values = np.clip(values * np.array(change.gain, np.float32) * light[..., None], 0.0, 1.0) ** np.float32(
        change.gamma
    )
    return np.asarray(np.round(values * 255.0), np.uint8)


def displacement(places: NDArray[np.float64], points: NDArray[np.float64], change: Change) -> NDArray[np.float64]:
    """Return how far each place of an image moves, in pixels: [..., 2] from places [..., 2] (x, y).

    A turn of the relief under parallel projection, about the depth of eyes and mouth so that these stay where the FFHQ
    alignment has them; the corners of the mouth move apart and up. Far from the face nothing moves.
    """
    centre, distance = _centre(points), _distance(points)
    yaw, pitch = np.radians(change.yaw), np.radians(change.pitch)
    offset = places - centre
    depth = _relief(places, points) - _relief(points[[0, 1, 3, 4]], points).mean()
    window = _window(offset, distance)
    moved = np.stack(
        [
            window * (depth * np.sin(yaw) - offset[..., 0] * (1.0 - np.cos(yaw))),
            window * (-depth * np.sin(pitch) - offset[..., 1] * (1.0 - np.cos(pitch))),
        ],
        axis=-1,
    )
    for corner, side in ((points[3], -1.0), (points[4], 1.0)):
        near = np.exp(-(((places - corner) / (0.28 * distance)) ** 2).sum(axis=-1) / 2.0)
        pull = np.array([side, -0.7]) * change.smile * distance / 2.0
        moved = moved + near[..., None] * pull
    return np.asarray(moved)


def _relief(places: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    distance = _distance(points)
    head = _bump(places, _centre(points), HEAD_WIDTH * distance)
    return distance * (HEAD_HEIGHT * head + NOSE_HEIGHT * _bump(places, points[2], NOSE_WIDTH * distance))


def _light(grid: NDArray[np.float64], points: NDArray[np.float64], change: Change) -> NDArray[np.float64]:
    """Return a factor for each place: a head's slopes towards the light are brighter."""
    centre, width = _centre(points), HEAD_WIDTH * _distance(points)
    near = _bump(grid, centre, width) * _window(grid - centre, _distance(points))
    slope = (HEAD_HEIGHT / HEAD_WIDTH / width) * (grid - centre) * near[..., None]
    made: NDArray[np.float64] = np.clip(1.0 + slope @ np.array(change.light), 0.5, 1.6)
    return made


def _window(offset: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Return 1 on the face, falling to 0 some two eye distances from its centre."""
    return np.asarray(np.exp(-((np.hypot(offset[..., 0], offset[..., 1]) / (2.0 * distance)) ** 4)))


def _bump(places: NDArray[np.float64], centre: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-(((places - centre) / width) ** 2).sum(axis=-1) / 2.0))


def _centre(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((points[:2].mean(axis=0) + points[3:].mean(axis=0)) / 2.0)


def _distance(points: NDArray[np.float64]) -> float:
    return float(np.hypot(*(points[1] - points[0])))
