"""The stage that opens each image of a data set: size, hash, and whether it can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.errors import ImageError, one_line
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.images import SIZE, check_square, decode_rgb, read_bytes
from ffhqref.engine.base import Stage

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.datasets.base import Dataset

MIN_SIDE = 64
"""Images with a shorter side are recorded and left out: no face can be recognised on them."""

LICENCE_COLUMNS = ("author", "licence", "licence_url", "source_url")


@dataclass(frozen=True)
class FileRow:
    """An image file of a data set, not opened yet."""

    image_id: str
    path: str
    """Relative to the root of the data set."""
    size: int
    """Bytes."""
    changed_ns: int
    """Time of the last change of content or status."""


@dataclass(frozen=True)
class ImageRow:
    """An image that can be read."""

    image_id: str
    path: str
    """Relative to the root of the data set."""
    sha256: str


@dataclass(frozen=True)
class ImageResult:
    """A row of the table ``images``; of an image that was aligned, its source and the file that was written."""

    image_id: str
    path: str
    width: int
    height: int
    sha256: str
    error: str | None
    file_size: int | None = None
    file_mtime_ns: int | None = None
    source_width: int | None = None
    source_height: int | None = None
    face: float | None = None
    """Size of the face's FFHQ square in the source, in pixels."""
    grey: bool | None = None
    """Whether the source has no colour."""


class ImageStage(Stage[FileRow, ImageResult]):
    """Check the images of an aligned data set: each must be readable and square.

    A file is opened again when its length or time of change differs.

    Args:
        root: root of the data set.
    """

    name = "images"
    version = "1"
    batch_size = 16

    def __init__(self, root: Path) -> None:
        self.root = root

    def key(self, row: FileRow) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, row.image_id, row.path, row.size, row.changed_ns)

    def intact(self, row: FileRow, result: ImageResult) -> bool:  # noqa: ARG002
        """Return False for a file that could not be hashed: a change of its permissions changes no key."""
        return bool(result.sha256)

    def process(self, rows: Sequence[FileRow]) -> list[ImageResult]:
        """Check the images."""
        return [self.open(row)[0] for row in rows]

    def open(self, row: FileRow) -> tuple[ImageResult, NDArray[np.uint8] | None]:
        """Read a file once; return what there is to know, and the image, uint8 RGB [H, W, 3], if it can be used."""
        path, sha256 = self.root / row.path, ""
        try:
            data = read_bytes(path)
            sha256 = sha256_bytes(data)
            image = decode_rgb(data, path, min_side=MIN_SIDE)
            check_square(image.shape[1], image.shape[0], path)
        except ImageError as error:
            return unusable(row, sha256, path, error), None
        height, width = image.shape[:2]
        return ImageResult(row.image_id, row.path, width, height, sha256, None), image


def unusable(row: FileRow, sha256: str, path: Path, error: Exception) -> ImageResult:
    """Return the result of a file that cannot be used; its hash is empty when it could not be read at all."""
    return ImageResult(row.image_id, row.path, 0, 0, sha256, reason_without(path, error))


def reason_without(path: Path, error: Exception) -> str:
    """Return why an image cannot be used as one line, without its path, which the row of the table holds."""
    return one_line(error).removesuffix(f": {path}")


def describe_small(widths: Mapping[str, int], what: str) -> list[str]:
    """Return a line that counts the images that are enlarged, or nothing.

    Args:
        widths: of each usable image, by its file.
        what: the images, for instance ``images``.
    """
    small = {file: width for file, width in widths.items() if width < SIZE}
    if not small:
        return []
    smallest = min(small, key=lambda file: small[file])
    size = f"{small[smallest]}x{small[smallest]}"
    return [f"{len(small)} of {len(widths)} {what} are smaller than {SIZE}x{SIZE} and enlarged, {smallest} from {size}"]


def file_rows(root: Path, files: Mapping[str, str]) -> list[FileRow]:
    """Return the rows of `ImageStage`; a link that leads nowhere has size and time 0.

    Args:
        root: root of the data set.
        files: path relative to ``root`` by image id.
    """
    return [FileRow(image_id, path, **size_and_time(root / path)) for image_id, path in files.items()]


def size_and_time(path: Path) -> dict[str, int]:
    """Return ``size`` (bytes) and ``changed_ns`` of a file, both 0 when it is missing or may not be looked at.

    The time is that of the last change of content or status, so that a copy with the old modification time is
    noticed, and a file that has become readable.
    """
    try:
        facts = path.stat()
    except OSError:
        return {"size": 0, "changed_ns": 0}
    return {"size": facts.st_size, "changed_ns": max(facts.st_mtime_ns, facts.st_ctime_ns)}


def ages_frame(dataset: Dataset, estimated: Mapping[str, float] | None = None, source: str = "") -> pd.DataFrame:
    """Return the table ``ages``: ages of the data set, and estimates for the other images.

    Args:
        dataset: its ages take precedence.
        estimated: image id to years, from a network.
        source: of the estimates.
    """
    import pandas as pd

    told = {image_id: (age, dataset.age_source) for image_id, age in dataset.ages.items()}
    guessed = {image_id: (age, source) for image_id, age in (estimated or {}).items()}
    items = sorted({**guessed, **told}.items())
    return pd.DataFrame(
        {
            "image_id": [image_id for image_id, _ in items],
            "age": pd.Series([age for _, (age, _) in items], dtype="float32"),
            "source": [source for _, (_, source) in items],
        }
    )


def sources_frame(results: Sequence[ImageResult]) -> pd.DataFrame:
    """Return the table ``sources``: what the usable images were aligned from; without any, an empty one."""
    import pandas as pd

    known = [found for found in results if found.error is None and found.face is not None]
    return pd.DataFrame(
        {
            "image_id": pd.Series([found.image_id for found in known], dtype="str"),
            "width": pd.Series([found.source_width for found in known], dtype="int32"),
            "height": pd.Series([found.source_height for found in known], dtype="int32"),
            "face": pd.Series([found.face for found in known], dtype="float32"),
            "grey": pd.Series([found.grey for found in known], dtype="bool"),
        }
    )


def licences_frame(dataset: Dataset) -> pd.DataFrame:
    """Return the credits of a data set's images as the table ``licences``; without any, an empty one."""
    import pandas as pd

    items = sorted(dataset.credits.items())
    columns = {name: [getattr(credit, name) for _, credit in items] for name in LICENCE_COLUMNS}
    return pd.DataFrame({"image_id": [image_id for image_id, _ in items], **columns}, dtype="str")
