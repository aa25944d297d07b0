"""Rendering and filtering: a stage for single attempts, and the rounds that try again where one was rejected.

An image counts when its embedding is similar enough to the target's. FaceMe drops the others and renders again
(third parties' notes; its author says that not every identity has every pose). The threshold is not known.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, FfhqrefError, ImageError, cannot_write, one_line
from ffhqref.core.files import write_atomic
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.images import SIZE, check_square, encode_png, read_rgb, resize
from ffhqref.engine.base import Stage
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.faces import make_embedder
from ffhqref.faces.base import check_unchanged
from ffhqref.faces.crops import check_crop, crop_faces
from ffhqref.store.schemas import SPECS
from ffhqref.store.workspace import inside, owned
from ffhqref.synthesis import make_renderer
from ffhqref.synthesis.base import RenderRequest
from ffhqref.synthesis.layout import reference_path

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.faces.base import Embedder
    from ffhqref.synthesis.base import Renderer

ACCEPTED, REJECTED, FAILED, MISSING = "accepted", "rejected", "failed", "missing"
COPY = "the renderer returned the target's own image"


@dataclass(frozen=True, eq=False)
class RenderRow:
    """An attempt: a target, the image that gives the pose, and where the result goes."""

    path: str
    """Of the target, below the data set's root, or below the other root where ``of_faces``."""
    of_faces: bool
    sha256: str
    vector: NDArray[np.float32]
    """The target's embedding, [D], by the stage's embedder and crop."""
    pose_path: str
    pose_of_faces: bool
    pose_sha256: str
    wanted_normals: str
    """Name of the normal map below the folder of normal maps."""
    normals_path: str | None
    """The same where the map exists."""
    normals_sha256: str | None
    seed: int
    out_path: str
    """Below the output folder."""


@dataclass(frozen=True)
class RenderResult:
    """An attempt's similarity and image, or why it failed; size and time of an image that was written."""

    similarity: float | None = None
    sha256: str | None = None
    file_size: int | None = None
    file_mtime_ns: int | None = None
    error: str | None = None


class RenderStage(Stage[RenderRow, RenderResult]):
    """Render attempts and write the images that are similar enough to the target.

    The threshold is no part of the content key: when it changes, only images that are accepted now are rendered again
    (the same ones).

    Args:
        images: root of the data set.
        out: the FFHQRef folder.
        renderer: name and options, see `ffhqref.synthesis.RENDERERS`.
        embedder: name and options, see `ffhqref.faces.EMBEDDERS`.
        crop: see `ffhqref.faces.crops.crop_faces`.
        min_similarity: cosine from which on an image is accepted.
        faces: root of images that are not of the data set; None: there are none.
        normals: folder of normal maps.
        retry_failed: do attempts again that failed in an earlier run.

    Raises:
        ConfigError: a threshold outside -1 to 1, or a wrong name or option of renderer or embedder.
    """

    name = "synthesize"
    version = "1"

    def __init__(
        self,
        images: Path,
        out: Path,
        renderer: tuple[str, Mapping[str, Any]],
        embedder: tuple[str, Mapping[str, Any]],
        crop: str,
        *,
        min_similarity: float,
        faces: Path | None = None,
        normals: Path | None = None,
        retry_failed: bool = False,
    ) -> None:
        if not isinstance(min_similarity, (int, float)) or not -1.0 <= min_similarity <= 1.0:
            raise ConfigError(f"synthesis.min_similarity={min_similarity}: expected a cosine of -1 to 1")
        check_crop(crop)
        self.images, self.faces, self.out, self.normals = images, faces, out, normals
        self.crop, self.min_similarity, self.retry_failed = crop, float(min_similarity), retry_failed
        self._renderer_made, self._embedder_made = renderer, embedder
        self._renderer: Renderer | None = make_renderer(renderer[0], **renderer[1])
        self._embedder: Embedder | None = make_embedder(embedder[0], **embedder[1])
        self.info = self._renderer.info
        self.batch_size = self._renderer.batch_size
        self.signature = f"{self._renderer.signature}|{self._embedder.signature}|{crop}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None, "_embedder": None}

    def key(self, row: RenderRow) -> str:
        """Return the content key."""
        facts = [row.sha256, row.pose_sha256, row.normals_sha256, row.seed, row.out_path]
        return content_key(self.name, self.version, self.signature, facts)

    def setup(self) -> None:
        """Make renderer and embedder again, in a worker that got this stage without them."""
        if self._renderer is None:
            self._renderer = make_renderer(self._renderer_made[0], **self._renderer_made[1])
        if self._embedder is None:
            self._embedder = make_embedder(self._embedder_made[0], **self._embedder_made[1])
        check_unchanged(f"{self._renderer.signature}|{self._embedder.signature}|{self.crop}", self.signature)

    def accepts(self, result: RenderResult) -> bool:
        """Return whether a result is an image that counts."""
        return result.similarity is not None and result.similarity >= self.min_similarity

    def intact(self, row: RenderRow, result: RenderResult) -> bool:
        """Return whether an accepted image is there unchanged; of rejected ones nothing is kept but the row."""
        if result.error is not None:
            return not self.retry_failed
        if not self.accepts(result):
            return True
        return result.sha256 is not None and file_intact(self.out / row.out_path, result, result.sha256)

    def failure(self, row: RenderRow, reason: str) -> RenderResult:  # noqa: ARG002
        """Return the result of an attempt that ended its worker."""
        return RenderResult(error=reason)

    def process(self, rows: Sequence[RenderRow]) -> list[RenderResult]:
        """Render, compare, and write what is accepted."""
        results = [RenderResult() for _ in rows]
        requests: dict[int, RenderRequest] = {}
        for place, row in enumerate(rows):
            try:
                requests[place] = self._request(row)
            except (FfhqrefError, OSError) as error:
                results[place] = RenderResult(error=one_line(error))
        for place, made in self._rendered(requests).items():
            results[place] = RenderResult(error=made) if isinstance(made, str) else self._judged(rows[place], made)
        return results

    def _request(self, row: RenderRow) -> RenderRequest:
        normals = None
        if row.normals_path is not None:
            assert self.normals is not None
            path = inside(self.normals, row.normals_path)
            normals = read_rgb(path, sha256=row.normals_sha256)
            check_square(normals.shape[1], normals.shape[0], path)
            normals = resize(normals, SIZE)
        elif self.info.needs_normals:
            raise ImageError(f"no normal map {row.wanted_normals}: renderer '{self.info.name}' needs one")
        return RenderRequest(
            identity=self._image(row.path, row.sha256, of_faces=row.of_faces),
            pose=self._image(row.pose_path, row.pose_sha256, of_faces=row.pose_of_faces),
            normals=normals,
            seed=row.seed,
        )

    def _image(self, path: str, sha256: str, *, of_faces: bool) -> NDArray[np.uint8]:
        root = self.faces if of_faces else self.images
        assert root is not None
        return read_rgb(inside(root, path), SIZE, sha256=sha256)

    def _rendered(self, requests: Mapping[int, RenderRequest]) -> dict[int, NDArray[np.uint8] | str]:
        """Return image or reason; where a batch fails, each request is tried alone."""
        assert self._renderer is not None
        places = list(requests)
        try:
            made = self._renderer.render([requests[place] for place in places]) if places else []
            if len(made) != len(places):
                raise ValueError(f"{len(made)} images for {len(places)} requests")
        except Exception as error:  # a renderer of somebody else may fail in any way
            if cannot_write(error):
                raise
            if len(places) == 1:
                return {places[0]: one_line(error)}
            return {place: one for part in places for place, one in self._rendered({part: requests[part]}).items()}
        return {place: _checked(image, requests[place]) for place, image in zip(places, made, strict=True)}

    def _judged(self, row: RenderRow, image: NDArray[np.uint8]) -> RenderResult:
        assert self._embedder is not None
        vector = self._embedder(crop_faces(image[None], self.crop, self._embedder))[0]
        similarity = float(np.dot(vector.astype(np.float64), row.vector.astype(np.float64)))
        if not np.isfinite(similarity):
            return RenderResult(error="the embedder gave no finite vector")
        data = encode_png(image)
        result = RenderResult(similarity, sha256_bytes(data))
        if not self.accepts(result):
            return result
        target = owned(self.out, row.out_path)
        write_atomic(target, data)
        stamp = file_stamp(target)
        return replace(result, file_size=stamp["file_size"], file_mtime_ns=stamp["file_mtime_ns"])


def _checked(image: NDArray[np.uint8], request: RenderRequest) -> NDArray[np.uint8] | str:
    found = np.asarray(image)  # of a plug-in it may be anything
    if found.shape != (SIZE, SIZE, 3) or found.dtype != np.uint8:
        return f"the renderer returned {found.dtype} {found.shape}, expected uint8 ({SIZE}, {SIZE}, 3)"
    return COPY if np.array_equal(found, request.identity) else found


@dataclass(frozen=True)
class Attempt:
    """A row of the table ``synthesis_attempts``."""

    target_id: str
    pose_bucket: int
    expression_bucket: int
    attempt: int
    pose_id: str | None
    seed: int
    source: str
    status: str
    similarity: float | None
    sha256: str | None
    error: str | None

    @property
    def bucket(self) -> tuple[str, int, int]:
        """The bucket of the target that the attempt is for."""
        return self.target_id, self.pose_bucket, self.expression_bucket


def synthesize(
    plan: pd.DataFrame,
    stage: RenderStage,
    make_row: Callable[[str, str, int, str], RenderRow],
    run: Callable[[int, list[RenderRow]], Sequence[RenderResult]],
    folder: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the attempts of a plan in rounds: the next try of a bucket is made only when those before it are rejected.

    Args:
        plan: from `ffhqref.synthesis.plan.make_plan`.
        stage: renders and filters.
        make_row: makes the stage's row from target id, pose id, seed and path of the result.
        run: runs the stage over rows, in order; its first argument is the number of the round from 0.
        folder: of the images, relative to the workspace; becomes part of ``path``.

    Returns:
        The tables ``synthesis_attempts`` and ``synthetic_references``, columns as in `ffhqref.store.schemas.SPECS`.
    """
    import pandas as pd

    tried: dict[tuple[str, int, int], list[Attempt]] = {}
    made: list[Attempt] = []
    order = ["attempt", "target_id", "pose_bucket", "expression_bucket"]
    planned = [_planned(row) for row in plan.sort_values(order).itertuples(index=False)]
    for number, part in itertools.groupby(planned, key=lambda attempt: attempt.attempt):
        waiting = [attempt for attempt in part if not _done(tried.get(attempt.bucket, []))]
        posed = [
            make_row(attempt.target_id, attempt.pose_id, attempt.seed, reference_path(*attempt.bucket))
            for attempt in waiting
            if attempt.pose_id is not None
        ]
        results = iter(run(number, posed))
        for attempt in waiting:
            result = RenderResult(error=attempt.error) if attempt.pose_id is None else next(results)
            made.append(_judged(attempt, result, stage))
            tried.setdefault(attempt.bucket, []).append(made[-1])
    references = [_reference(bucket, attempts, folder) for bucket, attempts in tried.items()]
    return (
        pd.DataFrame(made, columns=list(SPECS["synthesis_attempts"].columns)),
        pd.DataFrame(references, columns=list(SPECS["synthetic_references"].columns)),
    )


def _planned(row: Any) -> Attempt:
    """Return a row of the plan as an attempt without a result."""
    pose = row.pose_id if isinstance(row.pose_id, str) else None
    bucket = int(row.pose_bucket), int(row.expression_bucket)
    return Attempt(str(row.target_id), *bucket, int(row.attempt), pose, int(row.seed), "", "", None, None, row.error)


def _judged(attempt: Attempt, result: RenderResult, stage: RenderStage) -> Attempt:
    failed = result.error is not None
    return replace(
        attempt,
        source=stage.info.source,
        status=FAILED if failed else ACCEPTED if stage.accepts(result) else REJECTED,
        similarity=result.similarity,
        sha256=result.sha256,
        error=result.error,
    )


def _done(made: Sequence[Attempt]) -> bool:
    return bool(made) and made[-1].status == ACCEPTED


def _reference(bucket: tuple[str, int, int], made: Sequence[Attempt], folder: str) -> dict[str, object]:
    """Return the row of one bucket: its image, or why there is none."""
    last, found = made[-1], _done(made)
    similarities = [attempt.similarity for attempt in made if attempt.similarity is not None]
    reason = None
    if not found:
        best = f"best similarity {max(similarities):.3f} of {len(similarities)}" if similarities else ""
        failures = [attempt.error for attempt in made if attempt.error is not None]
        reason = "; ".join([part for part in (best, *failures[:1]) if part])
    return {
        **dict(zip(("target_id", "pose_bucket", "expression_bucket"), bucket, strict=True)),
        "source": last.source,
        "status": ACCEPTED if found else MISSING,
        "path": f"{folder}/{reference_path(*bucket)}" if found else None,
        "sha256": last.sha256 if found else None,
        "similarity": last.similarity if found else None,
        "attempts": len(made),
        "pose_id": last.pose_id if found else None,
        "error": reason,
    }
