"""The stages that align and embed images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ImageError
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.images import SIZE, decode_rgb, read_bytes, read_rgb, resize, save_png
from ffhqref.datasets.stage import MIN_SIDE, FileRow, ImageResult, ImageRow, ImageStage, unusable
from ffhqref.engine.base import GPU_SHARE, LoadingStage, Stage
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.faces import make_embedder
from ffhqref.faces.base import unchanged
from ffhqref.faces.crops import check_crop, crop_faces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.faces.base import Embedder
    from ffhqref.faces.detect import Detector


GREY = 2.0
"""Mean difference of the channels below which an image has no colour; JPEG leaves some."""

BATCH = 32
"""Faces of one call of a network, and vectors lost at most when the process is killed."""


@dataclass(frozen=True, eq=False)
class EmbedResult:
    """The vector of an image, or why there is none."""

    image_id: str
    vector: NDArray[np.float32] | None = None
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Crop:
    """The face of an image, ready for a network, or why there is none."""

    image_id: str
    pixels: NDArray[np.uint8] | None
    error: str | None = None


class EmbedStage(LoadingStage[ImageRow, EmbedResult, Crop]):
    """Embed aligned images; `ffhqref.faces.store.embed_images` runs it.

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

    def __init__(self, root: Path, embedder: str, options: Mapping[str, Any], crop: str) -> None:
        check_crop(crop)
        self.root, self._crop = root, crop
        self._name, self._options = embedder, dict(options)
        made = make_embedder(embedder, **self._options)
        self._embedder: Embedder | None = made
        self.signature, self.dim = f"{made.signature}|{crop}", made.dim
        self.overlapped = bool(getattr(made, "threaded", True))
        self.batch_size = BATCH if self.overlapped else 8
        self.gpus = GPU_SHARE if str(getattr(made, "device", "cpu")).startswith("cuda") else 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_embedder": None}  # networks do not pickle; a worker loads its own

    def key(self, row: ImageRow) -> str:
        """Return the hash of the image: a store of vectors is of one embedder and crop."""
        return row.sha256

    def setup(self) -> None:
        """Load the network."""
        if self._embedder is None:
            made = make_embedder(self._name, **self._options)
            self._embedder = unchanged(made, self.signature.removesuffix(f"|{self._crop}"))

    def load(self, row: ImageRow) -> Crop:
        """Read an image and crop its face."""
        try:
            return self.crop(row.image_id, read_rgb(self.root / row.path, SIZE, sha256=row.sha256))
        except ImageError as error:
            return Crop(row.image_id, None, str(error))

    def crop(self, image_id: str, image: NDArray[np.uint8]) -> Crop:
        """Crop the face of an aligned image, uint8 RGB [512, 512, 3]."""
        assert self._embedder is not None
        return Crop(image_id, crop_faces(image[None], self._crop, self._embedder)[0])

    def compute(self, loaded: Sequence[Crop]) -> list[EmbedResult]:
        """Return the vector of each face; one that could not be read gets a reason and no vector."""
        assert self._embedder is not None
        good = [face.pixels for face in loaded if face.pixels is not None]
        vectors = iter(self._embedder(np.stack(good)) if good else ())
        return [
            EmbedResult(face.image_id, error=face.error)
            if face.pixels is None
            else EmbedResult(face.image_id, next(vectors))
            for face in loaded
        ]


@dataclass(frozen=True)
class FaceResult:
    """A checked image and, when it was opened in this run, its vector."""

    image: ImageResult
    embedded: EmbedResult | None = None


class FaceStage(LoadingStage[FileRow, FaceResult, tuple[ImageResult, Crop | None]]):
    """Check and embed the images of an aligned data set: each file is read and decoded once.

    Args:
        images: checks.
        embed: embeds.
        known: hashes of images whose vectors are stored already; they are checked only.
    """

    def __init__(self, images: ImageStage, embed: EmbedStage, known: Iterable[str] = ()) -> None:
        self._images, self._embed = images, embed
        self._known = frozenset(map(_short, known))
        self.name, self.version = images.name, images.version
        self.overlapped, self.batch_size, self.gpus = embed.overlapped, embed.batch_size, embed.gpus

    def key(self, row: FileRow) -> str:
        """Return the content key of the check."""
        return self._images.key(row)

    def setup(self) -> None:
        """Load the network."""
        self._embed.setup()

    def intact(self, row: FileRow, result: FaceResult) -> bool:
        """Return whether the check stands."""
        return self._images.intact(row, result.image)

    def load(self, row: FileRow) -> tuple[ImageResult, Crop | None]:
        """Check an image and crop its face."""
        checked, image = self._images.open(row)
        if image is None or _short(checked.sha256) in self._known:
            return checked, None
        return checked, self._embed.crop(row.image_id, resize(image, SIZE))

    def compute(self, loaded: Sequence[tuple[ImageResult, Crop | None]]) -> list[FaceResult]:
        """Embed the images that can be read."""
        vectors = iter(self._embed.compute([crop for _, crop in loaded if crop is not None]))
        return [FaceResult(image, None if crop is None else next(vectors)) for image, crop in loaded]


def _short(sha256: str) -> int:
    """Return the first 60 bits of a hash: the stage travels to the workers with each batch."""
    return int(sha256[:15], 16)


class AlignStage(Stage[FileRow, ImageResult]):
    """Align the images of a data set the FFHQ way.

    An image without an upright face is a row with the reason, as is one that cannot be read.

    Args:
        root: root of the data set.
        out: folder for the aligned images, ``<image_id>.png``.
        detector: name in `ffhqref.faces.detect.DETECTORS`.
        options: of the detector.
    """

    name = "align"
    version = "2"
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
        facts = [row.image_id, row.path, row.size, row.changed_ns]
        return content_key(self.name, self.version, self.signature, facts)

    def setup(self) -> None:
        """Load the network."""
        from ffhqref.faces.detect import make_detector

        if self._detector is None:
            self._detector = unchanged(make_detector(self._name, **self._options), self.signature)

    def intact(self, row: FileRow, result: ImageResult) -> bool:  # noqa: ARG002
        """Return whether the aligned image is still the one written, and its source was recorded.

        What could not be hashed is tried again.
        """
        if result.error is not None:
            return bool(result.sha256)
        return result.face is not None and file_intact(self.out / result.path, result, result.sha256)

    def process(self, rows: Sequence[FileRow]) -> list[ImageResult]:
        """Detect and align."""
        return [self._align(row) for row in rows]

    def _align(self, row: FileRow) -> ImageResult:
        from ffhqref.faces.align import align_ffhq, ffhq_square, upright_face

        assert self._detector is not None
        path, sha256 = self.root / row.path, ""
        try:
            data = read_bytes(path)
            sha256 = sha256_bytes(data)
            image = decode_rgb(data, path, min_side=MIN_SIDE)
            face = upright_face(image, self._detector)
        except ImageError as error:
            return unusable(row, sha256, path, error)
        name = f"{row.image_id}.png"
        data = save_png(self.out / name, align_ffhq(image, face.points))
        square = ffhq_square(face.points)
        return ImageResult(
            row.image_id,
            name,
            SIZE,
            SIZE,
            sha256_bytes(data),
            None,
            **file_stamp(self.out / name),
            source_width=image.shape[1],
            source_height=image.shape[0],
            face=float(np.hypot(*(square[3] - square[0]))),
            grey=bool(np.ptp(image.astype(np.int16), axis=2).mean() < GREY),
        )
