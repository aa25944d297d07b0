"""The stages that align and embed pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ImageError
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.images import SIZE, read_rgb, save_png
from ffhqref.datasets.stage import MIN_SIDE, hash_or_nothing, reason_without
from ffhqref.engine.base import GPU_SHARE, Row
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.faces import make_embedder
from ffhqref.faces.crops import check_crop, crop_faces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.faces.base import Embedder
    from ffhqref.faces.detect import Detector


class EmbedStage:
    """Rows {image_id, path, sha256} to {vector} or {error}; `ffhqref.faces.store.embed_pictures` runs it.

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

    def key(self, row: Row) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, self.signature, row["sha256"])

    def setup(self) -> None:
        """Load the network."""
        if self._embedder is None:
            self._embedder = make_embedder(self._name, **self._options)

    def intact(self, row: Row, result: Row) -> bool:  # noqa: ARG002
        """Return True: the key holds the picture's hash."""
        return True

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Embed the pictures; one that cannot be read gets a reason and no vector."""
        faces: list[NDArray[np.uint8] | ImageError] = []
        for row in rows:
            try:
                faces.append(self.face(row))
            except ImageError as error:
                faces.append(error)
        return self.embed(faces)

    def face(self, row: Row) -> NDArray[np.uint8]:
        """Read one picture and cut its face out, uint8 RGB [S, S, 3]; may run in any thread.

        Raises:
            ImageError: it cannot be read.
        """
        assert self._embedder is not None
        return crop_faces(read_rgb(self.root / row["path"], SIZE)[None], self.crop, self._embedder)[0]

    def embed(self, faces: Sequence[NDArray[np.uint8] | ImageError]) -> list[dict[str, Any]]:
        """Return {vector} for each face, and {error} where reading it failed."""
        assert self._embedder is not None
        good = [face for face in faces if not isinstance(face, ImageError)]
        vectors = iter(self._embedder(np.stack(good)) if good else ())
        return [{"error": str(face)} if isinstance(face, ImageError) else {"vector": next(vectors)} for face in faces]


class AlignStage:
    """Rows {image_id, path, size, changed_ns} to rows of the ``images`` table, the face cut out the FFHQ way.

    A picture without a face is a row with the reason, as is one that cannot be read.

    Args:
        root: root of the data set.
        out: folder for the aligned pictures, ``<image_id>.png``.
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

    def key(self, row: Row) -> str:
        """Return the content key."""
        facts = [str(self.root), row["image_id"], row["path"], row["size"], row["changed_ns"]]
        return content_key(self.name, self.version, self.signature, facts)

    def setup(self) -> None:
        """Load the network."""
        from ffhqref.faces.detect import make_detector

        if self._detector is None:
            self._detector = make_detector(self._name, **self._options)

    def intact(self, row: Row, result: Row) -> bool:  # noqa: ARG002
        """Return whether the aligned picture is still the one written; what could not be hashed is tried again."""
        if result["error"] is not None:
            return bool(result["sha256"])
        return file_intact(self.out / result["path"], result, result["sha256"])

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Detect and align."""
        return [self._align(row) for row in rows]

    def _align(self, row: Row) -> dict[str, Any]:
        from ffhqref.faces.align import align_ffhq
        from ffhqref.faces.detect import main_face

        assert self._detector is not None
        path = self.root / row["path"]
        nothing = {"image_id": row["image_id"], "path": row["path"], "width": 0, "height": 0}
        try:
            image = read_rgb(path, min_side=MIN_SIDE)
        except ImageError as error:
            return {**nothing, "sha256": hash_or_nothing(path), "error": reason_without(path, error)}
        face = main_face(self._detector(image), image.shape[1], image.shape[0])
        if face is None:
            return {**nothing, "sha256": hash_or_nothing(path), "error": f"no face found by {self.signature}"}
        data = save_png(self.out / f"{row['image_id']}.png", align_ffhq(image, face.points))
        name = f"{row['image_id']}.png"
        found = {"image_id": row["image_id"], "path": name, "width": SIZE, "height": SIZE}
        return {**found, "sha256": sha256_bytes(data), "error": None, **file_stamp(self.out / name)}
