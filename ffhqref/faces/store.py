"""Embeddings of a whole data set: computed once, kept as one array, resumed at the batch.

On disk an embedder's vectors are one folder::

    vectors.f32      float32 [N, dim], row-major, little-endian; np.memmap reads it
    manifest.jsonl   first line: format, signature, dim; then one line a batch: image ids, SHA-256 of the pictures,
                     CRC-32 of the batch's bytes in vectors.f32

Both files only grow. A batch's vectors are written before its line, so a process that is killed at any moment leaves
at most vectors without a line, which the next opening cuts off; a line whose vectors never reached the disk (power
loss) is told by its CRC. Vectors are found by the hash of the picture: renamed or moved pictures are known, changed
ones are not.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ImageError, TableError
from ffhqref.core.hashing import content_key
from ffhqref.datasets.stage import ImageRow
from ffhqref.engine.base import Results
from ffhqref.faces.stage import EmbedResult, EmbedStage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.engine.base import Engine

FORMAT = 1
BATCH = 32
"""Faces a call of the network, and vectors lost at most when the process is killed."""


class EmbeddingStore:
    """Vectors of one embedder and crop on disk, by the SHA-256 of the picture.

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
        self._rows = 0
        self._manifest = (self.folder / "manifest.jsonl").open("a+b")
        self._vectors = (self.folder / "vectors.f32").open("a+b")
        self._recover()

    def _recover(self) -> None:
        """Read the manifest and cut off what a killed process left behind."""
        header = {"format": FORMAT, "signature": self.signature, "dim": self.dim}
        self._manifest.seek(0)
        first = self._manifest.readline()
        if not first.endswith(b"\n"):
            self._manifest.truncate(0)
            self._manifest.write(json.dumps(header).encode() + b"\n")
            self._manifest.flush()
            self._vectors.truncate(0)
            return
        if _parsed(first) != header:
            raise TableError(f"{self._manifest.name} is no manifest of {header}; delete its folder and run again")
        good = len(first)
        self._vectors.seek(0)
        for line in self._manifest:
            entry = _parsed(line) if line.endswith(b"\n") else None
            hashes = entry.get("sha256") if isinstance(entry, dict) else None
            if not isinstance(entry, dict) or not isinstance(hashes, list):
                break
            data = self._vectors.read(len(hashes) * self.dim * 4)
            if len(data) < len(hashes) * self.dim * 4 or zlib.crc32(data) != entry.get("crc32"):
                break
            self._remember(hashes)
            good += len(line)
        self._manifest.truncate(good)
        self._vectors.truncate(self._rows * self.dim * 4)

    def _remember(self, hashes: Sequence[str]) -> None:
        for position, sha256 in enumerate(hashes, self._rows):
            self._row[sha256] = position
        self._rows += len(hashes)

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._row

    def append(self, image_ids: Sequence[str], hashes: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Add a batch; it survives the death of the process as soon as this returns.

        Args:
            image_ids: for people who read the manifest.
            hashes: SHA-256 of each picture.
            vectors: float32 [B, dim].
        """
        if vectors.shape != (len(hashes), self.dim):
            raise ValueError(f"expected vectors [{len(hashes)}, {self.dim}], got {vectors.shape}")
        data = np.ascontiguousarray(vectors, "<f4").tobytes()
        self._vectors.write(data)
        self._vectors.flush()
        line = {"image_ids": list(image_ids), "sha256": list(hashes), "crc32": zlib.crc32(data)}
        self._manifest.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._manifest.flush()
        self._remember(hashes)

    @property
    def array(self) -> NDArray[np.float32]:
        """Every vector in the order of the manifest, float32 [N, dim], mapped from disk read-only."""
        if not self._rows:
            return np.zeros((0, self.dim), np.float32)
        return np.memmap(self.folder / "vectors.f32", "<f4", "r", shape=(self._rows, self.dim))

    def gather(self, hashes: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of pictures, float32 [B, dim].

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
    """Reason by image id for every picture that could not be read."""

    def frame(self, embedder: str) -> pd.DataFrame:
        """Return the table ``embeddings``; ``embedder`` is the signature of the stage."""
        import pandas as pd

        made = pd.DataFrame({"image_id": self.image_ids, "embedder": embedder})
        made["vector"] = pd.Series(list(self.vectors), dtype=object)
        return made


def embed_pictures(
    stage: EmbedStage,
    rows: Sequence[ImageRow],
    folder: str | Path,
    *,
    engine: Engine | None = None,
    threads: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> Embedded:
    """Embed the pictures that the store does not know yet and return the vectors of all.

    In this process ``threads`` threads read, resize and crop while the network runs on the batch before. An embedder
    that holds the interpreter's lock while it works (dlib's) would stop them: such a one is spread over the processes
    of ``engine`` instead, and any is over the machines of a cluster. Either way the same functions run on the same
    pixels in the same batches, so the vectors are the same.

    Args:
        stage: root, embedder and crop.
        rows: image_id, path, sha256 of each picture.
        folder: of the `EmbeddingStore`.
        engine: spreads embedders that hold the lock, and all where it is ``distributed``; None: never.
        threads: that read and crop.
        progress: told (stage name, done, all) as work goes on; a picture that occurs twice counts once.
    """
    with EmbeddingStore(folder, stage.signature, stage.dim) as store:
        pending = {row.sha256: row for row in rows if row.sha256 not in store}
        total = len({row.sha256 for row in rows})
        done = total - len(pending)
        if progress:
            progress(stage.name, done, total)
        errors: dict[str, str] = {}
        todo = list(pending.values())
        spread = engine is not None and (engine.distributed or not stage.threaded)
        for batch, results in _through(engine, stage, todo) if spread and engine else _overlapped(stage, todo, threads):
            done_rows = [(row, result) for row, result in zip(batch, results, strict=True) if result is not None]
            good = [(row, result.vector) for row, result in done_rows if result.vector is not None]
            errors.update({row.sha256: result.error for row, result in done_rows if result.error is not None})
            if good:
                store.append(
                    [row.image_id for row, _ in good],
                    [row.sha256 for row, _ in good],
                    np.stack([vector for _, vector in good]),
                )
            done += len(batch)
            if progress:
                progress(stage.name, done, total)
        known = [row for row in rows if row.sha256 in store]
        return Embedded(
            [row.image_id for row in known],
            store.gather([row.sha256 for row in known]),
            {row.image_id: errors[row.sha256] for row in rows if row.sha256 in errors},
        )


Batches = Iterator[tuple[Sequence[ImageRow], Results[EmbedResult]]]


def _through(engine: Engine, stage: EmbedStage, rows: Sequence[ImageRow]) -> Batches:
    size = BATCH if stage.threaded else stage.batch_size
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    for index, results in engine.imap(stage, chunks):
        yield chunks[index], results


def _overlapped(stage: EmbedStage, rows: Sequence[ImageRow], threads: int) -> Batches:
    """Yield batches in order; up to three batches of faces are read ahead, however many rows there are."""
    if not rows:
        return
    stage.setup()
    waiting: deque[tuple[ImageRow, Future[NDArray[np.uint8]]]] = deque()
    ahead = iter(rows)
    with ThreadPoolExecutor(max(1, threads), "read-faces") as pool:
        try:
            while True:
                while len(waiting) < 3 * BATCH and (row := next(ahead, None)) is not None:
                    waiting.append((row, pool.submit(stage.face, row)))
                if not waiting:
                    return
                taken = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
                yield [row for row, _ in taken], stage.embed([_outcome(future) for _, future in taken])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _outcome(future: Future[NDArray[np.uint8]]) -> NDArray[np.uint8] | ImageError:
    try:
        return future.result()
    except ImageError as error:
        return error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
