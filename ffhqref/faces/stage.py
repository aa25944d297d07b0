"""The stage that embeds pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.engine.base import Row
from ffhqref.errors import ImageError
from ffhqref.faces import embed, make_embedder
from ffhqref.hashing import content_key
from ffhqref.images import SIZE, read_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.faces.base import Embedder


class EmbedStage:
    """Rows {image_id, path, sha256} to {vector} or {error}.

    Args:
        root: root of the data set.
        embedder: name in `ffhqref.faces.EMBEDDERS`.
        options: of the embedder.
        crop: name of the crop, see `ffhqref.faces.crops.crop_faces`.
    """

    name = "embed"
    version = "1"
    batch_size = 8

    def __init__(self, root: Path, embedder: str, options: Mapping[str, Any], crop: str) -> None:
        self.root, self.crop = root, crop
        self._name, self._options = embedder, dict(options)
        self._embedder: Embedder | None = make_embedder(embedder, **self._options)
        self.signature = f"{self._embedder.signature}|{crop}"

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
        assert self._embedder is not None
        images: list[NDArray[np.uint8]] = []
        results: list[dict[str, Any]] = []
        for row in rows:
            try:
                images.append(read_rgb(self.root / row["path"], SIZE))
                results.append({})
            except ImageError as error:
                results.append({"error": str(error)})
        vectors = iter(embed(np.stack(images), self._embedder, self.crop) if images else ())
        return [result or {"vector": next(vectors)} for result in results]
