"""Rendering and filtering: a stage for single attempts, and the rounds that try again where one was rejected.

A picture counts when its embedding is similar enough to the target's. FaceMe drops and renders again what is not
(third parties' notes; its author says that not each identity has each pose). The threshold is not known.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, FfhqrefError, ImageError, cannot_write, one_line
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.images import SIZE, encode_png, read_rgb, write_atomic
from ffhqref.engine.base import Row, Stage
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.faces import make_embedder
from ffhqref.faces.crops import check_crop, crop_faces
from ffhqref.store.schemas import SPECS
from ffhqref.store.workspace import inside
from ffhqref.synthesis import make_renderer
from ffhqref.synthesis.base import RenderRequest
from ffhqref.synthesis.layout import reference_path

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.faces.base import Embedder
    from ffhqref.synthesis.base import Renderer

ACCEPTED, REJECTED, FAILED, MISSING = "accepted", "rejected", "failed", "missing"
COPY = "the renderer returned the target's own picture"


class RenderStage(Stage[Row, dict[str, Any]]):
    """Rows of attempts to {similarity, sha256} or {error}; what is similar enough is written.

    A row has ``path`` and ``sha256`` of the target, ``pose_path`` and ``pose_sha256`` of the pose picture (both below
    ``pictures``, or below ``faces`` where the row says ``of_faces`` or ``pose_of_faces``), ``normals_path`` and
    ``normals_sha256`` (below ``normals``, or None), ``vector`` (the target's embedding, float32 [D], of this embedder
    and crop), ``seed`` and ``out_path`` (below ``out``).

    The threshold is no part of the content key: when it changes, what was rendered stays known, pictures that are now
    accepted are rendered again (the same ones), and nothing else is.

    Args:
        pictures: root of the data set.
        out: the FFHQRef folder.
        renderer: name and options, see `ffhqref.synthesis.RENDERERS`.
        embedder: name and options, see `ffhqref.faces.EMBEDDERS`.
        crop: see `ffhqref.faces.crops.crop_faces`.
        min_similarity: cosine from which on a picture is accepted.
        faces: root of pictures that are not of the data set; None: there are none.
        normals: folder of normal maps.
        retry_failed: do attempts again that failed in an earlier run.

    Raises:
        ConfigError: a threshold outside -1 to 1, or a wrong name or option of renderer or embedder.
    """

    name = "synthesize"
    version = "1"

    def __init__(
        self,
        pictures: Path,
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
        self.pictures, self.faces, self.out, self.normals = pictures, faces, out, normals
        self.crop, self.min_similarity, self.retry_failed = crop, float(min_similarity), retry_failed
        self._renderer_made, self._embedder_made = renderer, embedder
        self._renderer: Renderer | None = make_renderer(renderer[0], **renderer[1])
        self._embedder: Embedder | None = make_embedder(embedder[0], **embedder[1])
        self.info = self._renderer.info
        self.batch_size = self._renderer.batch_size
        self.signature = f"{self._renderer.signature}|{self._embedder.signature}|{crop}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None, "_embedder": None}

    def key(self, row: Row) -> str:
        """Return the content key."""
        facts = [row[name] for name in ("sha256", "pose_sha256", "normals_sha256", "seed", "out_path")]
        return content_key(self.name, self.version, self.signature, facts)

    def setup(self) -> None:
        """Make renderer and embedder again, in a worker that got this stage without them."""
        if self._renderer is None:
            self._renderer = make_renderer(self._renderer_made[0], **self._renderer_made[1])
        if self._embedder is None:
            self._embedder = make_embedder(self._embedder_made[0], **self._embedder_made[1])

    def accepts(self, result: Row) -> bool:
        """Return whether a result is a picture that counts."""
        return result.get("error") is None and result["similarity"] >= self.min_similarity

    def intact(self, row: Row, result: Row) -> bool:
        """Return whether an accepted picture is there unchanged; of rejected ones nothing is kept but the row."""
        if result.get("error") is not None:
            return not self.retry_failed
        return not self.accepts(result) or (
            "file_size" in result and file_intact(self.out / row["out_path"], result, result["sha256"])
        )

    def failure(self, row: Row, reason: str) -> dict[str, Any]:  # noqa: ARG002
        """Return the result of an attempt that could not be tried to the end."""
        return {"error": reason}

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Render, compare, and write what is accepted."""
        results: list[dict[str, Any]] = [{} for _ in rows]
        requests: dict[int, RenderRequest] = {}
        for place, row in enumerate(rows):
            try:
                requests[place] = self._request(row)
            except (FfhqrefError, OSError) as error:
                results[place] = {"error": one_line(error)}
        for place, made in self._rendered(requests).items():
            if isinstance(made, str):
                results[place] = {"error": made}
            else:
                results[place] = self._judged(rows[place], requests[place], made)
        return results

    def _request(self, row: Row) -> RenderRequest:
        normals = None
        if row["normals_path"] is not None:
            assert self.normals is not None
            normals = read_rgb(inside(self.normals, row["normals_path"]), SIZE, sha256=row["normals_sha256"])
        elif self.info.needs_normals:
            raise ImageError(f"no normal map {row['wanted_normals']}: renderer '{self.info.name}' needs one")
        return RenderRequest(
            identity=self._picture(row, ""),
            pose=self._picture(row, "pose_"),
            normals=normals,
            seed=int(row["seed"]),
        )

    def _picture(self, row: Row, which: str) -> NDArray[np.uint8]:
        root = self.faces if row.get(f"{which}of_faces") else self.pictures
        assert root is not None
        return read_rgb(inside(root, row[f"{which}path"]), SIZE, sha256=row[f"{which}sha256"])

    def _rendered(self, requests: Mapping[int, RenderRequest]) -> dict[int, NDArray[np.uint8] | str]:
        """Return picture or reason; where a batch fails, each request is tried alone."""
        assert self._renderer is not None
        places = list(requests)
        try:
            made: list[Any] = self._renderer.render([requests[place] for place in places]) if places else []
            if len(made) != len(places):
                raise ValueError(f"{len(made)} pictures for {len(places)} requests")
        except Exception as error:  # a renderer of somebody else may fail in any way
            if cannot_write(error):
                raise
            if len(places) == 1:
                return {places[0]: one_line(error)}
            return {place: one for part in places for place, one in self._rendered({part: requests[part]}).items()}
        return {place: _checked(picture, requests[place]) for place, picture in zip(places, made, strict=True)}

    def _judged(self, row: Row, request: RenderRequest, picture: NDArray[np.uint8]) -> dict[str, Any]:  # noqa: ARG002
        assert self._embedder is not None
        vector = self._embedder(crop_faces(picture[None], self.crop, self._embedder))[0]
        similarity = float(np.dot(vector.astype(np.float64), np.asarray(row["vector"], np.float64)))
        if not np.isfinite(similarity):
            return {"error": "the embedder gave no finite vector"}
        data = encode_png(picture)
        result: dict[str, Any] = {"similarity": similarity, "sha256": sha256_bytes(data)}
        if self.accepts(result):
            target = inside(self.out, row["out_path"])
            write_atomic(target, data)
            result |= file_stamp(target)
        return result


def _checked(picture: Any, request: RenderRequest) -> NDArray[np.uint8] | str:
    shape, kind = getattr(picture, "shape", None), getattr(picture, "dtype", None)
    if shape != (SIZE, SIZE, 3) or kind != np.uint8:
        return f"the renderer returned {kind} {shape}, expected uint8 ({SIZE}, {SIZE}, 3)"
    return COPY if np.array_equal(picture, request.identity) else np.asarray(picture, np.uint8)


def synthesize(
    plan: pd.DataFrame,
    stage: RenderStage,
    make_row: Callable[[Any], dict[str, Any]],
    run: Callable[[int, list[dict[str, Any]]], list[dict[str, Any]]],
    folder: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the attempts of a plan in rounds: the next try of a bucket is made only when those before it are rejected.

    Args:
        plan: from `ffhqref.synthesis.plan.make_plan`.
        stage: renders and filters.
        make_row: makes the stage's row of a plan's row (a named tuple).
        run: runs the stage over rows and returns their results in order; told the number of the round from 0.
        folder: of the pictures, relative to the workspace; becomes part of ``path``.

    Returns:
        The tables ``synthesis_attempts`` and ``synthetic_references``, columns as in `ffhqref.store.schemas.SPECS`.
    """
    import pandas as pd

    attempts: list[dict[str, Any]] = []
    tried: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    order = ["attempt", "target_id", "pose_bucket", "expression_bucket"]
    planned: list[Any] = list(plan.sort_values(order).itertuples(index=False))
    for number, part in itertools.groupby(planned, key=lambda row: int(row.attempt)):
        open_rows = [row for row in part if not _done(tried.get(_bucket(row), []))]
        posed = [row for row in open_rows if isinstance(row.pose_id, str)]
        results = iter(run(number, [make_row(row) for row in posed]))
        for row in open_rows:
            result: Row = next(results) if isinstance(row.pose_id, str) else {"error": row.error}
            attempt = _attempt(row, result, stage)
            attempts.append(attempt)
            tried.setdefault(_bucket(row), []).append(attempt)
    columns = list(SPECS["synthesis_attempts"].columns)
    references = [_reference(bucket, made, folder) for bucket, made in tried.items()]
    return (
        pd.DataFrame(attempts, columns=columns),
        pd.DataFrame(references, columns=list(SPECS["synthetic_references"].columns)),
    )


def _bucket(row: Any) -> tuple[str, int, int]:
    return str(row.target_id), int(row.pose_bucket), int(row.expression_bucket)


def _done(made: Sequence[Mapping[str, Any]]) -> bool:
    return bool(made) and made[-1]["status"] == ACCEPTED


def _attempt(row: Any, result: Row, stage: RenderStage) -> dict[str, Any]:
    failed = result.get("error") is not None
    status = FAILED if failed else ACCEPTED if stage.accepts(result) else REJECTED
    return {
        **{name: getattr(row, name) for name in ("target_id", "pose_bucket", "expression_bucket", "attempt", "seed")},
        "pose_id": row.pose_id if isinstance(row.pose_id, str) else None,
        "source": stage.info.source,
        "status": status,
        "similarity": result.get("similarity"),
        "sha256": result.get("sha256"),
        "error": result.get("error"),
    }


def _reference(bucket: tuple[str, int, int], made: Sequence[Mapping[str, Any]], folder: str) -> dict[str, Any]:
    """Return the row of one bucket: its picture, or why there is none."""
    last, found = made[-1], _done(made)
    similarities = [attempt["similarity"] for attempt in made if attempt["similarity"] is not None]
    reason = None
    if not found:
        best = f"best similarity {max(similarities):.3f} of {len(similarities)}" if similarities else ""
        failures = [str(attempt["error"]) for attempt in made if attempt["error"] is not None]
        reason = "; ".join([part for part in (best, *failures[:1]) if part])
    return {
        **dict(zip(("target_id", "pose_bucket", "expression_bucket"), bucket, strict=True)),
        "source": last["source"],
        "status": ACCEPTED if found else MISSING,
        "path": f"{folder}/{reference_path(*bucket)}" if found else None,
        "sha256": last["sha256"] if found else None,
        "similarity": last["similarity"] if found else None,
        "attempts": len(made),
        "pose_id": last["pose_id"] if found else None,
        "error": reason,
    }
