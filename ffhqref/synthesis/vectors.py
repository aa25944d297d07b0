"""Pose and expression of images: from any table of vectors, or measured on five landmarks.

FaceMe takes both from EMOCA, whose face model lies behind a licence form. Its codes are one kind of table; the head
pose and smile of FFHQ-features are another; and for images without a table five landmarks give a coarse answer.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.csv_file import read_csv
from ffhqref.core.errors import DatasetError, ImageError
from ffhqref.core.files import read_regular
from ffhqref.core.hashing import content_key
from ffhqref.core.images import SIZE, read_rgb
from ffhqref.core.parsing import parsing
from ffhqref.datasets.match import ImageMatcher
from ffhqref.datasets.stage import ImageRow
from ffhqref.datasets.user_table import NAME_COLUMNS, name_column
from ffhqref.engine.base import Stage
from ffhqref.faces.base import unchanged
from ffhqref.faces.crops import FFHQ_POINTS
from ffhqref.store.sealed import check_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.faces.detect import Detector

PROTRUSION = 0.45
"""Tip of the nose above the plane of eyes and mouth, in eye distances. On the five FFHQ images at hand it gives yaws
of 14, 2, 0, 14, 8 degrees where FFHQ-features has 15, 4, 4, 9, 5; the pitch of these five is not reproduced."""


@dataclass(frozen=True, eq=False)
class PoseVectors:
    """Pose and expression of N images."""

    image_ids: tuple[str, ...]
    """Sorted."""
    pose: NDArray[np.float64]
    """[N, P]."""
    expression: NDArray[np.float64]
    """[N, E]."""
    source: str
    remarks: tuple[str, ...] = ()
    """What a user must know, for instance rows of a table that match no image."""

    @classmethod
    def of(
        cls, vectors: Mapping[str, tuple[Sequence[float], Sequence[float]]], source: str, what: str = "vectors"
    ) -> PoseVectors:
        """Sort and check vectors by image id.

        Raises:
            DatasetError: none at all, lengths that differ, or a value that is no finite number.
        """
        names = sorted(vectors)
        if not names:
            raise DatasetError(f"{what}: no image has a pose vector")
        lengths = {(len(vectors[name][0]), len(vectors[name][1])) for name in names}
        if len(lengths) != 1 or 0 in next(iter(lengths)):
            raise DatasetError(f"{what}: (pose, expression) vectors of lengths {sorted(lengths)}, expected one pair")
        pose = np.array([vectors[name][0] for name in names], np.float64)
        expression = np.array([vectors[name][1] for name in names], np.float64)
        for part in (pose, expression):
            bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
            if len(bad):
                raise DatasetError(f"{what}: the vector of '{names[bad[0]]}' holds NaN or infinity")
        return cls(tuple(names), pose, expression, source)


def read_vectors(
    path: str | Path,
    image_ids: Collection[str],
    pose: Sequence[str],
    expression: Sequence[str],
    known: Collection[str] | None = None,
) -> PoseVectors:
    """Read vectors from a table; an image whose row has an empty cell has no vectors.

    Args:
        path: ``.csv``, ``.csv.gz`` or ``.parquet`` with a column that names the image
            (`ffhqref.datasets.user_table.NAME_COLUMNS`).
        image_ids: images whose vectors are wanted.
        pose: names or patterns of the columns of the pose vector, for instance ``["yaw", "pitch"]`` or ``["pose_*"]``.
        expression: the same for the expression vector.
        known: all images of the data set, which rows may name; None: ``image_ids``.

    Raises:
        DatasetError: no such file, a column that is missing, a cell that is no number, an image named twice, or no row
            that names an image.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DatasetError(f"no such file: {path}; synthesis.vectors.table is a table with image_id and number columns")
    columns, rows = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    name = name_column(columns)
    if name is None:
        raise DatasetError(f"{path}: columns {columns}, expected one of {', '.join(NAME_COLUMNS)}")
    chosen = [_matching(path, columns, patterns) for patterns in (pose, expression)]
    matcher, wanted = ImageMatcher(image_ids if known is None else known), set(image_ids)
    found: dict[str, tuple[list[float], list[float]]] = {}
    strangers: list[str] = []
    seen: set[str] = set()
    number = 1
    matches = matcher.find_all(str(row[name] or "") for row in rows)
    for number, (row, image_id) in enumerate(zip(rows, matches, strict=True), 2):
        if image_id is None:
            strangers.append(str(row[name]))
            continue
        if image_id in seen:
            raise DatasetError(f"{path}, row {number}: '{image_id}' occurs twice")
        seen.add(image_id)
        cells = [[row[column] for column in part] for part in chosen]
        if image_id not in wanted or any(cell is None or not str(cell).strip() for part in cells for cell in part):
            continue
        try:
            found[image_id] = ([float(cell) for cell in cells[0]], [float(cell) for cell in cells[1]])
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{path}, row {number}: {error}") from None
    if strangers and not seen:
        raise DatasetError(
            f"synthesis.vectors.table: none of the {number - 1} rows of {path} names an image of the data set, first "
            f"'{strangers[0]}'"
        )
    remark = f"{path}: {len(strangers)} of {number - 1} rows match no image, first "
    made = PoseVectors.of(found, f"{path.name}:{'+'.join(pose)}|{'+'.join(expression)}", str(path))
    return replace(made, remarks=(f"{remark}'{strangers[0]}'",) if strangers else ())


def _csv(path: Path) -> tuple[list[str], Any]:
    table = read_csv(path)
    return list(table.columns), [row.cells for row in table.rows]


def _parquet(path: Path) -> tuple[list[str], Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with parsing(path, DatasetError, "expected a Parquet table"):
        data = read_regular(path)
        check_size(data)
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        return table.column_names, table.to_pylist()


def _matching(path: Path, columns: Sequence[str], patterns: Sequence[str]) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        fitting = [column for column in columns if fnmatch.fnmatchcase(column, pattern) and column not in found]
        if not fitting:
            raise DatasetError(f"{path}: no column '{pattern}'; its columns: {', '.join(columns)}")
        found += fitting
    return found


@dataclass(frozen=True)
class FacePose:
    """Head pose in degrees and mouth width, measured on five landmarks."""

    yaw: float
    """Positive: the nose points to the image's right."""
    pitch: float
    """Positive: looking up."""
    roll: float
    """Positive: clockwise in the image."""
    smile: float
    """Width of the mouth in eye distances: 0.84 neutral and 0.86 smiling on the embedded sample, a weak sign."""


def face_pose(points: NDArray[np.float64]) -> FacePose:
    """Measure a face under parallel projection, its nose standing `PROTRUSION` out of the plane of eyes and mouth.

    Args:
        points: [5, 2] (x, y) in pixels, as in `ffhqref.faces.detect.Face`.
    """
    along, across, height, distance = _axes(points)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    sideways = float((points[2] - (eyes + mouth) / 2) @ along) / distance
    down = float((points[2] - eyes) @ across) - height * _frontal_share()
    return FacePose(
        yaw=float(np.degrees(np.arctan(sideways / PROTRUSION))),
        pitch=float(np.degrees(np.arctan(-down / distance / PROTRUSION))),
        roll=float(np.degrees(np.arctan2(along[1], along[0]))),
        smile=float(np.hypot(*(points[4] - points[3]))) / distance,
    )


def _axes(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
    """Return the unit vectors along the eyes and down the face, the height from eyes to mouth, the eye distance."""
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    distance = float(np.hypot(*(points[1] - points[0])))
    if distance < 1.0:
        raise ImageError("the two eyes lie on one point; no pose can be measured")
    along = (points[1] - points[0]) / distance
    across = np.array([-along[1], along[0]])
    return along, across, float((mouth - eyes) @ across), distance


def _frontal_share() -> float:
    """Return where the nose of a frontal face stands between eyes (0) and mouth (1): the FFHQ template's."""
    eyes, mouth = FFHQ_POINTS[:2].mean(axis=0), FFHQ_POINTS[3:].mean(axis=0)
    return float((FFHQ_POINTS[2, 1] - eyes[1]) / (mouth[1] - eyes[1]))


@dataclass(frozen=True)
class PoseResult:
    """Pose and expression of an image, or why there are none."""

    pose: list[float] | None = None
    expression: list[float] | None = None
    error: str | None = None


class PoseStage(Stage[ImageRow, PoseResult]):
    """Measure pose and expression on five landmarks.

    Args:
        root: root of the data set.
        detector: name in `ffhqref.faces.detect.DETECTORS`.
        options: of the detector.
    """

    name = "poses"
    version = "1"
    batch_size = 8

    def __init__(self, root: Path, detector: str, options: Mapping[str, Any]) -> None:
        self.root = root
        self._name, self._options = detector, dict(options)
        self._detector: Detector | None = self._made()
        self.signature = f"landmarks:{self._detector.signature}"

    def at(self, root: Path) -> PoseStage:
        """Return the same stage for images below another root."""
        return PoseStage(root, self._name, self._options)

    def _made(self) -> Detector:
        from ffhqref.faces.detect import make_detector

        return make_detector(self._name, **self._options)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_detector": None}

    def key(self, row: ImageRow) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, self.signature, row.sha256)

    def setup(self) -> None:
        """Load the network."""
        if self._detector is None:
            self._detector = unchanged(self._made(), self.signature.removeprefix("landmarks:"))

    def process(self, rows: Sequence[ImageRow]) -> list[PoseResult]:
        """Measure the images."""
        return [self._one(row) for row in rows]

    def _one(self, row: ImageRow) -> PoseResult:
        from ffhqref.faces.detect import main_face

        assert self._detector is not None
        try:
            image = read_rgb(self.root / row.path, SIZE, sha256=row.sha256)
            face = main_face(self._detector(image), SIZE, SIZE)
            if face is None:
                return PoseResult(error=f"no face found by {self._detector.signature}")
            found = face_pose(face.points)
        except ImageError as error:
            return PoseResult(error=str(error))
        return PoseResult([found.yaw, found.pitch], [found.smile])
