"""Embeddings of a data set: computed once, stored as one array, resumed at the batch.

The vectors of an embedder and crop are one folder::

    vectors.f32      float32 [N, dim], row-major, little-endian; np.memmap reads it
    manifest.jsonl   first line: format, signature, dim; then one line a batch: image ids, SHA-256 of the images,
                     CRC-32 of the batch's bytes in vectors.f32. Each line ends in a checksum of itself

Both files only grow. The vectors of a batch are written before its line. A process that is killed leaves at most
vectors without a line, which the next opening cuts off. A line whose vectors never reached the disk (power loss) is
found by its CRC. Vectors are found by the hash of the image: renamed or moved images are known, changed ones are not.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import TableError
from ffhqref.core.files import open_own
from ffhqref.core.hashing import content_key
from ffhqref.core.lines import checked_line, parse_line
from ffhqref.datasets.stage import FileRow, ImageResult, ImageRow, ImageStage
from ffhqref.engine.journal import Journal
from ffhqref.engine.run import Progress, run_stage, run_with_store
from ffhqref.faces.stage import AlignStage, EmbedResult, EmbedStage, FaceResult, FaceStage

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from types import TracebackType

    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.engine.base import Engine, ResultStore

FORMAT = 2

log = logging.getLogger(__name__)


class EmbeddingStore:
    """Vectors of one embedder and crop on disk, by the SHA-256 of the image.

    Args:
        folder: holds one subfolder for each signature.
        signature: of embedder and crop.
        dim: length of a vector.

    Raises:
        TableError: the manifest is not of this format.
    """

    def __init__(self, folder: str | Path, signature: str, dim: int) -> None:
        self.folder = Path(folder) / content_key(signature)[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.signature, self.dim = signature, dim
        self._row: dict[str, int] = {}
        self._array: NDArray[np.float32] | None = None
        self._rows = 0
        self._manifest = open_own(self.folder / "manifest.jsonl", "a+b")
        self._vectors = open_own(self.folder / "vectors.f32", "a+b")
        self._recover()

    def _recover(self) -> None:
        """Read the manifest and cut off what a killed process left behind, and what is damaged with all after it."""
        header = {"format": FORMAT, "signature": self.signature, "dim": self.dim}
        self._manifest.seek(0)
        first = self._manifest.readline()
        found = parse_line(first)
        if found is not None and found != header:
            raise TableError(f"{self._manifest.name} is no manifest of {header}; delete its folder and run again")
        if found is None:
            self._manifest.truncate(0)
            self._manifest.write(checked_line(header))
            self._manifest.flush()
            self._vectors.truncate(0)
            if first:
                self._tell(0)
            return
        good = len(first)
        self._vectors.seek(0)
        for line in self._manifest:
            entry = parse_line(line) or {}
            hashes = entry.get("sha256")
            if not isinstance(hashes, list):
                break
            data = self._vectors.read(len(hashes) * self.dim * 4)
            if len(data) < len(hashes) * self.dim * 4 or zlib.crc32(data) != entry.get("vectors_crc32"):
                break
            self._remember(hashes)
            good += len(line)
        size = self._rows * self.dim * 4
        if (good, size) != tuple(stream.seek(0, 2) for stream in (self._manifest, self._vectors)):
            self._tell(self._rows)
        self._manifest.truncate(good)
        self._vectors.truncate(size)

    def _tell(self, kept: int) -> None:
        log.warning("damaged or torn vectors in %s: %d are kept, the others are computed again", self.folder, kept)

    def _remember(self, hashes: Sequence[str]) -> None:
        for position, sha256 in enumerate(hashes, self._rows):
            self._row[sha256] = position
        self._rows += len(hashes)
        self._array = None

    def __len__(self) -> int:
        return len(self._row)

    @property
    def hashes(self) -> Collection[str]:
        """Hashes of the images whose vectors are stored."""
        return self._row.keys()

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._row

    def get(self, key: str) -> EmbedResult | None:
        """Return the vector of the image with this hash, without the name of the image; None: it is not known."""
        return EmbedResult("", self.gather([key])[0]) if key in self else None

    def add(self, results: Mapping[str, EmbedResult]) -> None:
        """Store the vectors of a batch by the hash of the image; images that could not be read are tried again."""
        new = {key: result for key, result in results.items() if result.vector is not None and key not in self}
        if new:
            names = [result.image_id for result in new.values()]
            self.append(names, list(new), np.stack([np.asarray(result.vector) for result in new.values()]))

    def append(self, image_ids: Sequence[str], hashes: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Add a batch; it survives the death of the process as soon as this returns.

        Args:
            image_ids: for people who read the manifest.
            hashes: SHA-256 of each image.
            vectors: float32 [B, dim].
        """
        if vectors.shape != (len(hashes), self.dim):
            raise ValueError(f"expected vectors [{len(hashes)}, {self.dim}], got {vectors.shape}")
        data = np.ascontiguousarray(vectors, "<f4").tobytes()
        self._vectors.write(data)
        self._vectors.flush()
        line = {"image_ids": list(image_ids), "sha256": list(hashes), "vectors_crc32": zlib.crc32(data)}
        self._manifest.write(checked_line(line))
        self._manifest.flush()
        self._remember(hashes)

    @property
    def array(self) -> NDArray[np.float32]:
        """Every vector in the order of the manifest, float32 [N, dim], mapped from disk read-only."""
        if self._array is None:
            shape, file = (self._rows, self.dim), self.folder / "vectors.f32"
            self._array = np.memmap(file, "<f4", "r", shape=shape) if self._rows else np.zeros(shape, np.float32)
        return self._array

    def gather(self, hashes: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of images, float32 [B, dim].

        Raises:
            KeyError: one is not in the store.
        """
        rows = np.array([self._row[sha256] for sha256 in hashes], np.intp)
        return np.asarray(self.array[rows], np.float32)

    def close(self) -> None:
        """Close the files."""
        self._vectors.close()
        self._manifest.close()

    def __enter__(self) -> EmbeddingStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings of a data set, in the order of its rows."""

    image_ids: list[str]
    vectors: NDArray[np.float32]
    """[N, dim], L2-normalised."""
    errors: Mapping[str, str]
    """Reason by image id of every image that could not be read."""

    def frame(self, embedder: str) -> pd.DataFrame:
        """Return the table ``embeddings``; ``embedder`` is the signature of the stage."""
        import pandas as pd

        made = pd.DataFrame({"image_id": self.image_ids, "embedder": embedder})
        made["vector"] = pd.Series(list(self.vectors), dtype=object)
        return made


class FaceStore:
    """Results of `FaceStage`: the journal of the images, and the vectors.

    Args:
        images: the journal.
        vectors: the vectors, by the hash of the image.
    """

    def __init__(self, images: ResultStore[ImageResult], vectors: EmbeddingStore) -> None:
        self._images, self._vectors = images, vectors

    def get(self, key: str) -> FaceResult | None:
        """Return the check of an image."""
        image = self._images.get(key)
        return None if image is None else FaceResult(image)

    def add(self, results: Mapping[str, FaceResult]) -> None:
        """Store vectors first: an image that is known without its vector would be decoded a second time."""
        found = results.values()
        self._vectors.add({result.image.sha256: result.embedded for result in found if result.embedded is not None})
        self._images.add({key: result.image for key, result in results.items()})


def read_faces(
    images: ImageStage | AlignStage,
    embed: EmbedStage,
    rows: Sequence[FileRow],
    *,
    engine: Engine,
    journal_dir: str | Path,
    folder: str | Path,
    progress: Progress | None = None,
) -> tuple[list[ImageResult], Embedded]:
    """Check (or align) and embed the images of a data set.

    An image of an aligned data set is read and decoded once; see `FaceStage`. What is known already is not read.

    Args:
        images: checks or aligns.
        embed: embeds.
        rows: the files.
        engine: where images are read.
        journal_dir: folder of the journals.
        folder: of the `EmbeddingStore`.
        progress: called as work goes on.
    """
    if isinstance(images, ImageStage):
        with (
            EmbeddingStore(folder, embed.signature, embed.dim) as vectors,
            Journal(Path(journal_dir) / f"{images.name}.jsonl", ImageResult) as journal,
        ):
            stage, store = FaceStage(images, embed, vectors.hashes), FaceStore(journal, vectors)
            found = run_with_store(stage, rows, engine=engine, store=store, progress=progress)
        checked = [result.image for result in found]
    else:
        checked = run_stage(images, rows, engine=engine, journal_dir=journal_dir, progress=progress)
    good = [ImageRow(image.image_id, image.path, image.sha256) for image in checked if image.error is None]
    return checked, embed_images(embed, good, folder, engine=engine, progress=progress)


def embed_images(
    stage: EmbedStage,
    rows: Sequence[ImageRow],
    folder: str | Path,
    *,
    engine: Engine,
    progress: Progress | None = None,
) -> Embedded:
    """Embed the images whose vectors are not stored yet and return the vectors of all.

    Args:
        stage: root, embedder and crop.
        rows: the images. One that occurs twice is embedded once.
        folder: of the `EmbeddingStore`.
        engine: where images are read and embedded.
        progress: called as work goes on.
    """
    with EmbeddingStore(folder, stage.signature, stage.dim) as store:
        results = run_with_store(stage, rows, engine=engine, store=store, progress=progress)
        known = [row for row in rows if row.sha256 in store]
        return Embedded(
            [row.image_id for row in known],
            store.gather([row.sha256 for row in known]),
            {row.image_id: result.error for row, result in zip(rows, results, strict=True) if result.error is not None},
        )
