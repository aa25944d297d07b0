"""The stages that align and embed images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ImageError
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.images import SIZE, read_rgb, save_png
from ffhqref.datasets.stage import MIN_SIDE, FileRow, ImageResult, ImageRow, unusable
from ffhqref.engine.base import GPU_SHARE, Stage
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.faces import make_embedder
from ffhqref.faces.crops import check_crop, crop_faces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.faces.base import Embedder
    from ffhqref.faces.detect import Detector


@dataclass(frozen=True, eq=False)
class EmbedResult:
    """The vector of an image, or why there is none."""

    vector: NDArray[np.float32] | None = None
    error: str | None = None


class EmbedStage(Stage[ImageRow, EmbedResult]):
    """Embed aligned images; `ffhqref.faces.store.embed_pictures` runs it.

    Args:
        root: root of the data set.
        embedder: name in `ffhqref.faces.EMBEDDERS`.
        options: of the embedder.
        crop: name of the crop, see `ffhqref.faces.crops.crop_faces`.

    Raises:
        ConfigError: no such embedder or crop, or a wrong option.
    """

    name = "embed"
    version = "1"
    batch_size = 8

    def __init__(self, root: Path, embedder: str, options: Mapping[str, Any], crop: str) -> None:
        check_crop(crop)
        self.root, self.crop = root, crop
        self._name, self._options = embedder, dict(options)
        made = make_embedder(embedder, **self._options)
        self._embedder: Embedder | None = made
        self.signature, self.dim = f"{made.signature}|{crop}", made.dim
        self.threaded = bool(getattr(made, "threaded", True))
        """Whether other threads go on while the network works."""
        self.gpus = GPU_SHARE if str(getattr(made, "device", "cpu")).startswith("cuda") else 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_embedder": None}  # networks do not pickle; a worker loads its own

    def key(self, row: ImageRow) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, self.signature, row.sha256)

    def setup(self) -> None:
        """Load the network."""
        if self._embedder is None:
            self._embedder = make_embedder(self._name, **self._options)

    def process(self, rows: Sequence[ImageRow]) -> list[EmbedResult]:
        """Embed the images; one that cannot be read gets a reason and no vector."""
        faces: list[NDArray[np.uint8] | ImageError] = []
        for row in rows:
            try:
                faces.append(self.face(row))
            except ImageError as error:
                faces.append(error)
        return self.embed(faces)

    def face(self, row: ImageRow) -> NDArray[np.uint8]:
        """Read one image and crop its face, uint8 RGB [S, S, 3]; may run in any thread.

        Raises:
            ImageError: it cannot be read.
        """
        assert self._embedder is not None
        return crop_faces(read_rgb(self.root / row.path, SIZE)[None], self.crop, self._embedder)[0]

    def embed(self, faces: Sequence[NDArray[np.uint8] | ImageError]) -> list[EmbedResult]:
        """Return the vector of each face, and the error where reading it failed."""
        assert self._embedder is not None
        good = [face for face in faces if not isinstance(face, ImageError)]
        vectors = iter(self._embedder(np.stack(good)) if good else ())
        return [
            EmbedResult(error=str(face)) if isinstance(face, ImageError) else EmbedResult(next(vectors))
            for face in faces
        ]


class AlignStage(Stage[FileRow, ImageResult]):
    """Align the images of a data set the FFHQ way.

    An image without a face is a row with the reason, as is one that cannot be read.

    Args:
        root: root of the data set.
        out: folder for the aligned images, ``<image_id>.png``.
        detector: name in `ffhqref.faces.detect.DETECTORS`.
        options: of the detector.
    """

    name = "align"
    version = "1"
    batch_size = 4

    def __init__(self, root: Path, out: Path, detector: str, options: Mapping[str, Any]) -> None:
        from ffhqref.faces.detect import make_detector

        self.root, self.out = root, out
        self._name, self._options = detector, dict(options)
        self._detector: Detector | None = make_detector(detector, **self._options)
        self.signature = self._detector.signature

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_detector": None}

    def key(self, row: FileRow) -> str:
        """Return the content key."""
        facts = [str(self.root), row.image_id, row.path, row.size, row.changed_ns]
        return content_key(self.name, self.version, self.signature, facts)

    def setup(self) -> None:
        """Load the network."""
        from ffhqref.faces.detect import make_detector

        if self._detector is None:
            self._detector = make_detector(self._name, **self._options)

    def intact(self, row: FileRow, result: ImageResult) -> bool:  # noqa: ARG002
        """Return whether the aligned image is still the one written; what could not be hashed is tried again."""
        if result.error is not None:
            return bool(result.sha256)
        return file_intact(self.out / result.path, result, result.sha256)

    def process(self, rows: Sequence[FileRow]) -> list[ImageResult]:
        """Detect and align."""
        return [self._align(row) for row in rows]

    def _align(self, row: FileRow) -> ImageResult:
        from ffhqref.faces.align import align_ffhq
        from ffhqref.faces.detect import main_face

        assert self._detector is not None
        path = self.root / row.path
        try:
            image = read_rgb(path, min_side=MIN_SIDE)
            face = main_face(self._detector(image), image.shape[1], image.shape[0])
            if face is None:
                raise ImageError(f"no face found by {self.signature}")
        except ImageError as error:
            return unusable(row, path, error)
        name = f"{row.image_id}.png"
        data = save_png(self.out / name, align_ffhq(image, face.points))
        return ImageResult(row.image_id, name, SIZE, SIZE, sha256_bytes(data), None, **file_stamp(self.out / name))
