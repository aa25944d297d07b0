"""Preparation: ArcFace vector and CLIP features of every picture that trains, as files in the published layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, FfhqrefError
from ffhqref.core.hashing import content_key, sha256_file
from ffhqref.core.images import read_rgb
from ffhqref.engine.base import Row, Stage
from ffhqref.training.faceme.features import write_feature
from ffhqref.training.faceme.lists import feature_of
from ffhqref.zoo.faceme.config import FaceMeConfig
from ffhqref.zoo.faceme.faces import FaceFinder, ReferenceFace, make_finder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.zoo.faceme.clip import IdentityEncoder


class PrepareStage(Stage[Row, dict[str, Any]]):
    """Rows {image_id, name, path, sha256, folder} to {identity_sha256, clip_sha256} or {error}.

    ``folder`` gets ``id_emb/<name>.npy`` and ``clip_emb/<name>.npy``. A picture that cannot be read, or in which no
    face is found, is a row with the reason.

    Args:
        root: ``path`` and ``folder`` are relative to it, or absolute.
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
        dim = int(getattr(self._finder, "dim", self._config.mix.id_dim))
        if dim != self._config.mix.id_dim:
            raise ConfigError(
                f"the embedder gives {dim} channels, FaceMe's mix network takes {self._config.mix.id_dim}: choose "
                "another embedder, or set config.mix.id_dim"
            )
        self.signature = f"{self._finder.signature}+clip:{sha256_file(self._photomaker)[:12]}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_finder": None, "_clip": None}  # networks do not pickle; a worker loads its own

    def key(self, row: Row) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, self.signature, row["sha256"], row["folder"], row["name"])

    def setup(self) -> None:
        """Load the networks."""
        from ffhqref.zoo.faceme.clip import load_identity_encoder

        if self._finder is None:
            self._finder = make_finder(self._faces, largest=True)
        if self._clip is None:
            self._clip = load_identity_encoder(self._photomaker, self._config.id_encoder).to(self._device)

    def intact(self, row: Row, result: Row) -> bool:
        """Return whether both files are still those written."""
        if result["error"] is not None:
            return True
        files = feature_of(self.root / row["folder"], row["name"])
        pairs = ((files.identity, result["identity_sha256"]), (files.clip, result["clip_sha256"]))
        return all(Path(path).is_file() and sha256_file(path) == wanted for path, wanted in pairs)

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Find faces, embed them, write the files."""
        import torch

        from ffhqref.zoo.faceme.clip import clip_pixels, cut_face

        assert self._finder is not None
        assert self._clip is not None
        found: list[tuple[ReferenceFace, torch.Tensor] | str] = []
        for row in rows:
            try:
                picture = read_rgb(self.root / row["path"], sha256=row["sha256"])
                face = self._finder(picture)
                if face is None:
                    found.append(f"no face found by {self._finder.signature}")
                    continue
                if not np.asarray(face.embedding).any():
                    found.append("an ArcFace vector of zeros")
                    continue
                found.append((face, clip_pixels(cut_face(picture, face.box), self._clip.config.image_size)))
            except FfhqrefError as error:
                found.append(str(error))
        good = [item for item in found if not isinstance(item, str)]
        clips: list[NDArray[np.float32]] = []
        if good:
            with torch.no_grad():
                # One by one: a batch of another size could give other last bits, and rows must not depend on others.
                clips = [self._clip(pixels[None].to(self._device))[0].float().cpu().numpy() for _, pixels in good]
        made = iter(zip(good, clips, strict=True))
        return [
            {"identity_sha256": None, "clip_sha256": None, "error": item}
            if isinstance(item, str)
            else self._written(row, *next(made))
            for row, item in zip(rows, found, strict=True)
        ]

    def _written(self, row: Row, found: tuple[ReferenceFace, Any], clip: NDArray[np.float32]) -> dict[str, Any]:
        files = feature_of(self.root / row["folder"], row["name"])
        vector = np.asarray(found[0].embedding, np.float32)
        write_feature(files.identity, vector / np.linalg.norm(vector))
        write_feature(files.clip, clip)
        return {
            "identity_sha256": sha256_file(files.identity),
            "clip_sha256": sha256_file(files.clip),
            "error": None,
        }
