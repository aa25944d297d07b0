"""The stage that computes ArcFace vectors and CLIP features of images, as files in the published layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, FfhqrefError, ImageError
from ffhqref.core.hashing import content_key, sha256_file
from ffhqref.core.images import read_rgb
from ffhqref.engine.base import Stage
from ffhqref.faces.base import unchanged
from ffhqref.training.faceme.features import write_feature
from ffhqref.training.faceme.lists import feature_of
from ffhqref.weights.files import Weights, file_sha256
from ffhqref.weights.tensors import holding
from ffhqref.zoo.faceme.config import FaceMeConfig
from ffhqref.zoo.faceme.faces import FaceFinder, make_finder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.zoo.faceme.clip import IdentityEncoder


@dataclass(frozen=True)
class PrepareRow:
    """An image to compute features of."""

    image_id: str
    source: str
    """``own``, or ``synthetic`` for a reference made for this image id."""
    bucket: str
    """Of a synthetic reference; else empty."""
    path: str
    sha256: str
    folder: str
    """Gets ``id_emb/<name>.npy`` and ``clip_emb/<name>.npy``."""

    @property
    def name(self) -> str:
        """Name of the feature files."""
        return f"{self.image_id}/{self.bucket}" if self.bucket else self.image_id


@dataclass(frozen=True)
class PrepareResult:
    """Hashes of the feature files, or why there are none."""

    identity_sha256: str | None
    clip_sha256: str | None
    error: str | None


class PrepareStage(Stage[PrepareRow, PrepareResult]):
    """Compute the features of images. An image without a face is a result with the reason.

    Args:
        root: paths and folders of rows are relative to it, or absolute.
        faces: see `make_finder`.
        photomaker: ``photomaker-v1.bin``, which holds the CLIP tower.
        config: widths; see `FaceMeConfig.load`.
        device: of the CLIP tower.
    """

    name = "faceme-prepare"
    version = "1"
    batch_size = 8

    def __init__(
        self,
        root: Path,
        faces: Mapping[str, Any],
        photomaker: str | Path,
        config: FaceMeConfig | Mapping[str, Any] | str | Path | None = None,
        device: str = "cpu",
    ) -> None:
        self.root, self._faces, self._photomaker, self._device = root, dict(faces), Path(photomaker), device
        self._config = FaceMeConfig.load(config)
        self._finder: FaceFinder | None = make_finder(self._faces, largest=True)
        self._clip: IdentityEncoder | None = None
        dim = self._finder.dim
        if dim != self._config.mix.id_dim:
            raise ConfigError(
                f"the embedder gives {dim} channels, FaceMe's mix network takes {self._config.mix.id_dim}: choose "
                "another embedder, or set config.mix.id_dim"
            )
        self._tower = Weights("photomaker-v1", self._photomaker.name, self._photomaker, file_sha256(photomaker), None)
        self.signature = f"{self._finder.signature}+clip:{self._tower.sha256[:12]}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_finder": None, "_clip": None}  # networks do not pickle; a worker loads its own

    def key(self, row: PrepareRow) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, self.signature, row.sha256, row.folder, row.name)

    def setup(self) -> None:
        """Load the networks."""
        from ffhqref.zoo.faceme.clip import load_identity_encoder

        if self._finder is None:
            made = make_finder(self._faces, largest=True)
            self._finder = unchanged(made, self.signature.rpartition("+clip:")[0])
        if self._clip is None:
            with holding([self._tower]):
                self._clip = load_identity_encoder(self._photomaker, self._config.id_encoder).to(self._device)

    def intact(self, row: PrepareRow, result: PrepareResult) -> bool:
        """Return whether both files are still those written."""
        if result.error is not None:
            return True
        files = feature_of(self.root / row.folder, row.name)
        pairs = ((files.identity, result.identity_sha256), (files.clip, result.clip_sha256))
        return all(Path(path).is_file() and sha256_file(path) == wanted for path, wanted in pairs)

    def process(self, rows: Sequence[PrepareRow]) -> list[PrepareResult]:
        """Find faces, embed them, write the files."""
        return [self._one(row) for row in rows]

    def _one(self, row: PrepareRow) -> PrepareResult:
        try:
            image = read_rgb(self.root / row.path, sha256=row.sha256)
            identity, clip = self._features(image)
        except FfhqrefError as error:
            return PrepareResult(None, None, str(error))
        files = feature_of(self.root / row.folder, row.name)
        write_feature(files.identity, identity)
        write_feature(files.clip, clip)
        return PrepareResult(sha256_file(files.identity), sha256_file(files.clip), None)

    def _features(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the ArcFace vector, of unit length, and the CLIP features of the face in an image.

        One image at a time: another batch size could change last bits, and a row must not depend on other rows.
        """
        import torch

        from ffhqref.zoo.faceme.clip import clip_pixels, cut_face

        assert self._finder is not None
        assert self._clip is not None
        face = self._finder(image)
        if face is None:
            raise ImageError(f"no face found by {self._finder.signature}")
        vector = np.asarray(face.embedding, np.float32)
        if not vector.any():
            raise ImageError("an ArcFace vector of zeros")
        pixels = clip_pixels(cut_face(image, face.box), self._clip.config.image_size)
        with torch.no_grad():
            clip = self._clip(pixels[None].to(self._device))[0].float().cpu().numpy()
        return vector / np.linalg.norm(vector), clip
