"""The stage that opens every picture of a data set once: size, hash, and whether it can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ImageError, one_line
from ffhqref.core.hashing import content_key, sha256_file
from ffhqref.core.images import read_rgb

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.datasets.base import Dataset
    from ffhqref.engine.base import Row

MIN_SIDE = 64
"""Pictures with a shorter side are recorded and left out: no face can be told on them."""


LICENCE_COLUMNS = ("author", "licence", "licence_url", "source_url")


class ImageStage:
    """Rows {image_id, path, size, changed_ns} to rows of the ``images`` table.

    A file is opened again when its length or time of change differs.

    Args:
        root: root of the data set.
    """

    name = "images"
    version = "1"
    batch_size = 16

    def __init__(self, root: Path) -> None:
        self.root = root

    def key(self, row: Row) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, str(self.root), row["path"], row["size"], row["changed_ns"])

    def setup(self) -> None:
        """Nothing to load."""

    def intact(self, row: Row, result: Row) -> bool:  # noqa: ARG002
        """Return False for a file that could not even be hashed: a change of its permissions changes no key."""
        return bool(result["sha256"])

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Open the pictures."""
        return [self._open(row) for row in rows]

    def _open(self, row: Row) -> dict[str, Any]:
        path = self.root / row["path"]
        found: dict[str, Any] = {"image_id": row["image_id"], "path": row["path"], "width": 0, "height": 0}
        try:
            image = read_rgb(path, min_side=MIN_SIDE)
            sha256 = sha256_file(path)
        except (ImageError, OSError) as error:
            return {**found, "sha256": hash_or_nothing(path), "error": reason_without(path, error)}
        height, width = image.shape[:2]
        return {**found, "width": width, "height": height, "sha256": sha256, "error": None}


def hash_or_nothing(path: Path) -> str:
    """Return the SHA-256 of a file, or an empty string when it is absent or may not be read."""
    try:
        return sha256_file(path)
    except OSError:
        return ""


def reason_without(path: Path, error: Exception) -> str:
    """Return why a picture cannot be used as one line, without its path, which a row of the table has already."""
    return one_line(error).removesuffix(f": {path}")


def image_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """Return the rows that `ImageStage` takes, one for each file; a link that leads nowhere has size and time 0."""
    return [
        {"image_id": image_id, "path": relative, **size_and_time(dataset.root / relative)}
        for image_id, relative in dataset.files.items()
    ]


def size_and_time(path: Path) -> dict[str, int]:
    """Return ``size`` (bytes) and ``changed_ns`` of a file, both 0 when it is not there or may not be asked.

    The time is that of the last change of content or of status: a copy that keeps its content's time is noticed, and
    so is a file that has become readable.
    """
    try:
        facts = path.stat()
    except OSError:
        return {"size": 0, "changed_ns": 0}
    return {"size": facts.st_size, "changed_ns": max(facts.st_mtime_ns, facts.st_ctime_ns)}


def ages_frame(dataset: Dataset, estimated: Mapping[str, float] | None = None, source: str = "") -> pd.DataFrame:
    """Return the ``ages`` table: what the data set tells, and estimates for pictures it does not know.

    Args:
        dataset: its ages go first.
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


def licences_frame(dataset: Dataset) -> pd.DataFrame:
    """Return the credits of a data set's pictures as the ``licences`` table; without any, an empty one."""
    import pandas as pd

    items = sorted(dataset.credits.items())
    columns = {name: [getattr(credit, name) for _, credit in items] for name in LICENCE_COLUMNS}
    return pd.DataFrame({"image_id": [image_id for image_id, _ in items], **columns}, dtype="str")
