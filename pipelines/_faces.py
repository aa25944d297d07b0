"""Pictures of ``train.faces``: more people for FaceMe to train on, beside those of the reference set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.datasets.stage import ImageRow, ImageStage, file_rows
from ffhqref.faces.stage import EmbedStage
from ffhqref.faces.store import embed_images
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store.schemas import SPECS
from ffhqref.store.workspace import Workspace, inside
from ffhqref.synthesis.leaks import Leak, leaks_by_face, leaks_by_name, of_same_people, read_test_list, refuse
from ffhqref.training.faces import people_of_csv

from ._common import Context, embedder_options, embeddings_of, rows_of

if TYPE_CHECKING:
    import pandas as pd

PREFIX = "faces-"
"""Begins the image ids, so that none is one of the data set's; the rest is the name of the file."""


@dataclass(frozen=True)
class MoreFaces:
    """The pictures of ``train.faces`` that may be trained on."""

    root: Path
    pictures: pd.DataFrame
    """Columns image_id, path (below ``root``), sha256, person and vector, by image_id, which is the index too."""
    left_out: tuple[Leak, ...]

    @property
    def people(self) -> dict[str, str]:
        """Image id to whoever is on it."""
        return dict(zip(self.pictures["image_id"], self.pictures["person"], strict=True))

    def targets(self, limit: int | None) -> list[str]:
        """Return the pictures that are trained on: all, or the first ``limit``, as of the reference set."""
        return sorted(self.pictures["image_id"])[:limit]

    def file(self, image_id: str) -> Path:
        """Return where a picture lies."""
        return inside(self.root, str(self.pictures["path"][image_id]))


def faces_root(context: Context) -> Path | None:
    """Return the folder of ``train.faces``, or None."""
    given = context.config.train.faces.path
    return given.expanduser().absolute() if given else None


def listed_faces(context: Context) -> dict[str, tuple[str, str]] | None:
    """Read the CSV of ``train.faces``: image id to (path below the folder, person); None without such a folder.

    Raises:
        ConfigError: the CSV is missing or wrong, or two of its pictures have one name.
    """
    options, root = context.config.train.faces, faces_root(context)
    if root is None:
        return None
    found: dict[str, tuple[str, str]] = {}
    for path, person in people_of_csv(root, options.table, options.leave_out):
        image_id = f"{PREFIX}{Path(path).stem}"
        if image_id in found:
            raise ConfigError(f"train.faces: two pictures in {root} are called {Path(path).stem}; rename one")
        found[image_id] = (str(Path(path).relative_to(root)), f"faces/{person}")
    return found


def more_faces(context: Context) -> MoreFaces | None:
    """Open and embed the pictures of ``train.faces``, refuse tested people, and write the table ``train_faces``.

    Whoever looks like a picture of this workspace's test split, or is tested by one of ``synthesis.benchmarks``, stops
    the run, or with ``synthesis.leaks=leave_out`` is left out with all pictures. What was opened and embedded before
    is not opened again.

    Returns:
        None without such a folder.

    Raises:
        ConfigError: see `listed_faces`.
        DatasetError: somebody is tested, or nobody is left.
    """
    import pandas as pd

    workspace, root, listed = context.workspace, faces_root(context), listed_faces(context)
    if root is None or listed is None:
        return None
    taken = sorted(set(listed) & set(workspace.read("images")["image_id"]))
    if taken:
        raise ConfigError(f"train.faces: the reference set has a picture '{taken[0]}' too; rename one of the two")
    rows = file_rows(root, {name: path for name, (path, _) in listed.items()})
    results = context.map(ImageStage(root), rows)
    frame = pd.DataFrame(results, columns=list(SPECS["images"].columns))
    frame["person"] = [listed[name][1] for name in frame["image_id"]]
    embeddings, errors = _embedded(context, root, frame[frame["error"].isna()])
    people = dict(zip(frame["image_id"], frame["person"], strict=True))
    leaks = _leaks(context, embeddings, people)
    if context.config.synthesis.leaks == "refuse":
        refuse(leaks)
    errors = {**{leak.image_id: f"left out: {leak.reason}" for leak in leaks}, **errors}
    frame["error"] = [errors.get(row.image_id, row.error) for row in rows_of(frame)]
    columns = list(SPECS["train_faces"].columns)
    facts = {"config": context.config.train.faces.given(), "faces_root": str(root)}
    workspace.write("train_faces", frame[columns], inputs=("identities", "embeddings"), **facts)
    good = frame[frame["error"].isna()].set_index("image_id", drop=False)
    if good.empty:
        first = frame.iloc[0]
        raise DatasetError(f"train.faces: none of the {len(frame)} pictures can be trained on, first {first['error']}")
    vectors = embeddings.units(embeddings.positions(good["image_id"])).astype(np.float32)
    context.reporter.say(
        f"train.faces: {len(good)} pictures of {good['person'].nunique()} people in {root}, {len(frame) - len(good)} "
        "left out"
    )
    return MoreFaces(root, good.assign(vector=list(vectors)), tuple(leaks))


def _embedded(context: Context, root: Path, good: pd.DataFrame) -> tuple[Embeddings, dict[str, str]]:
    """Return vectors, and why others have none, by the workspace's embedder."""
    workspace = context.workspace
    name, crop, options = embedder_options(context.config)
    stage = EmbedStage(root, name, options, crop)
    check_embedder(workspace, stage.signature, "prepare")  # synthesize has checked it before
    found = embed_images(
        stage,
        [ImageRow(row.image_id, row.path, row.sha256) for row in rows_of(good)],
        workspace.root / "embeddings",
        engine=context.engine,
        progress=context.reporter,
    )
    return Embeddings.checked(list(found.image_ids), found.vectors), dict(found.errors)


def check_embedder(workspace: Workspace, signature: str, pipeline: str) -> None:
    """Refuse another embedder, given to this pipeline, than the one that the workspace was built with.

    Raises:
        ConfigError: it is another one.
    """
    made_with = sorted(set(workspace.read("embeddings")["embedder"]))
    if made_with != [signature]:
        raise ConfigError(
            f"the table 'embeddings' was made with {', '.join(made_with)}, this run names {signature}: give {pipeline} "
            "the same embedder as build"
        )


def _leaks(context: Context, embeddings: Embeddings, people: Mapping[str, Any]) -> list[Leak]:
    """Find everybody who is tested, by all of their pictures."""
    workspace, wanted = context.workspace, sorted(embeddings.image_ids)
    split = workspace.read("identities")
    tested = set(split.loc[split["split"] == "test", "image_id"])
    own = embeddings_of(workspace)
    names = [name for name in own.image_ids if name in tested]
    found: list[Leak] = []
    if names:
        faces = Embeddings.checked(names, own.vectors[own.positions(names)])
        limit = context.config.build.max_distance
        found = leaks_by_face(wanted, embeddings, faces, limit, "this workspace's test split")
    for benchmark in context.config.synthesis.benchmarks:
        found += benchmark_leaks(context, benchmark.expanduser(), wanted, embeddings, people, prefix=PREFIX)
    return of_same_people(found, wanted, people)


def benchmark_leaks(
    context: Context,
    benchmark: Path,
    wanted: list[str],
    embeddings: Embeddings,
    people: Mapping[str, Any],
    prefix: str = "",
) -> list[Leak]:
    """Find the pictures of people whom another benchmark tests: a list of names, or a workspace.

    Args:
        context: of the run.
        benchmark: the list or the workspace.
        wanted: image ids that are to be trained on.
        embeddings: theirs.
        people: image id to whoever is on it.
        prefix: that image ids have before the names a list knows.

    Raises:
        ConfigError: the workspace was embedded with another network.
        DatasetError: it tests nobody.
    """
    if not benchmark.is_dir():
        tested = {f"{prefix}{name}" for name in read_test_list(benchmark)}
        return leaks_by_name(wanted, people, tested, str(benchmark))
    other = Workspace(benchmark, read_only=True)
    table = other.read("embeddings")
    mine = set(context.workspace.read("embeddings")["embedder"])
    if set(table["embedder"]) != mine:
        raise ConfigError(
            f"synthesis.benchmarks: {benchmark} was embedded with {', '.join(sorted(set(table['embedder'])))}, this "
            f"workspace with {', '.join(sorted(mine))}: vectors of two networks cannot be compared, build one again"
        )
    split = other.read("identities")
    named = set(split.loc[split["split"] == "test", "image_id"])
    rows = table[table["image_id"].isin(named)]
    if rows.empty:
        raise DatasetError(f"synthesis.benchmarks: {benchmark} has no test split")
    faces = Embeddings.of_table(rows)
    return leaks_by_face(wanted, embeddings, faces, context.config.build.max_distance, str(benchmark))
