"""Images that may be trained on: of a reference set, and of another folder, nobody tested among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.csv_file import read_csv
from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.datasets.stage import ImageStage, file_rows
from ffhqref.faces.stage import EmbedStage
from ffhqref.faces.store import read_faces
from ffhqref.reference_sets.contamination import (
    Candidates,
    Contamination,
    benchmark_people,
    find_contamination,
    max_distance_of,
    own_people,
    refuse,
    true_people,
)
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store.schemas import SPECS
from ffhqref.store.workspace import Workspace, inside

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.engine.base import Engine
    from ffhqref.engine.run import Progress
    from ffhqref.reference_sets.options import ContaminationOptions

PREFIX = "faces-"
"""Begins the image ids of `MoreFaces`, so that none is one of the data set's; the rest is the file's name."""

COLUMNS = ["image_id", "path", "sha256", "vector", "of_faces", "file", "person"]


@dataclass(frozen=True)
class MoreFaces:
    """A folder of more aligned faces to train on, and the CSV that tells whom they show."""

    root: Path
    files: Mapping[str, tuple[str, str]]
    """Image id to (path below ``root``, person)."""
    options: Mapping[str, Any]
    """As configured, for the provenance of the table ``train_faces``."""

    @classmethod
    def read(cls, folder: Path, table: str, leave_out: Collection[str], options: Mapping[str, Any]) -> MoreFaces:
        """Read the CSV.

        Args:
            folder: of the images and the CSV.
            table: name of the CSV, which has the columns ``file`` and ``person``.
            leave_out: people who are not trained on.
            options: as configured.

        Raises:
            ConfigError: the CSV is missing or wrong, or two of its images have one name.
            TableError: a path leaves the folder.
        """
        root = folder.expanduser().absolute()
        files: dict[str, tuple[str, str]] = {}
        for path, person in people_of_csv(root, table, leave_out):
            image_id = f"{PREFIX}{Path(path).stem}"
            if image_id in files:
                raise ConfigError(f"train.faces: two images in {root} are called {Path(path).stem}; rename one")
            files[image_id] = (path, f"faces/{person}")
        return cls(root, files, options)


def people_of_csv(folder: Path, table: str, leave_out: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return (path below the folder, person) of the images that a CSV with the columns ``file`` and ``person`` lists.

    Raises:
        ConfigError: the CSV or a column is missing, or ``leave_out`` names somebody who is not in it.
        TableError: a path leaves the folder.
    """
    path = folder / table
    if not path.is_file():
        raise ConfigError(f"train.faces: no {path}; expected a folder of aligned faces with a CSV of file and person")
    listed = read_csv(path)
    rows = [row.cells for row in listed.rows]
    if not rows or not {"file", "person"} <= set(listed.columns):
        raise ConfigError(f"{path}: expected the columns file and person, and a line for each image")
    doubled = [name for name, count in Counter(row["file"] for row in rows).items() if count > 1]
    if doubled:
        raise ConfigError(f"{path}: the image '{doubled[0]}' occurs twice; keep the line with its person")
    unknown = sorted(set(leave_out) - {row["person"] for row in rows})
    if unknown:
        raise ConfigError(f"train.faces.leave_out: nobody named {unknown[0]} in {path}")
    nobody = next((row for row in listed.rows if not row.cells["person"].strip()), None)
    if nobody is not None:  # or all of them would be one person, and references of each other
        raise ConfigError(
            f"{listed.where(nobody)}: the cell 'person' of '{nobody.cells['file']}' is empty; name the person, or "
            "leave the line out"
        )
    kept = [row for row in rows if row["person"] not in leave_out]
    return [(str(inside(folder, row["file"]).relative_to(folder)), row["person"]) for row in kept]


@dataclass(frozen=True)
class FileEmbedder:
    """Opens and embeds image files by the network and crop of a workspace; what was done before is not done again."""

    workspace: Workspace
    embedder: str
    crop: str
    options: Mapping[str, Any]
    """Of the embedder's constructor."""
    engine: Engine
    progress: Progress | None
    command: str
    """Of the command line, for messages."""

    def stage(self, root: Path) -> EmbedStage:
        """Return the stage that embeds images below a folder.

        Raises:
            ConfigError: the workspace was built with another network.
        """
        stage = EmbedStage(root, self.embedder, self.options, self.crop)
        made_with = sorted(set(self.workspace.read("embeddings")["embedder"]))
        if made_with != [stage.signature]:
            raise ConfigError(
                f"the table 'embeddings' was made with {', '.join(made_with)}, this run names {stage.signature}: give "
                f"{self.command} the same embedder as build"
            )
        return stage

    def open(self, root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, Embeddings]:
        """Return rows of the table ``images``, each with its error, and the vectors of the images without one."""
        import pandas as pd

        opened, found = read_faces(
            ImageStage(root),
            self.stage(root),
            file_rows(root, files),
            engine=self.engine,
            journal_dir=self.workspace.journals,
            folder=self.workspace.root / "embeddings",
            progress=self.progress,
        )
        frame = pd.DataFrame(opened, columns=list(SPECS["images"].columns))
        frame["error"] = pd.Series([item.error or found.errors.get(item.image_id) for item in opened], dtype=object)
        return frame, Embeddings.checked(list(found.image_ids), found.vectors)

    def __call__(self, root: Path, files: Mapping[str, str]) -> Embeddings:
        """Return the vectors of the files that can be read."""
        return self.open(root, files)[1]


@dataclass(frozen=True)
class TrainingImages:
    """Images that may be trained on."""

    frame: pd.DataFrame
    """By image_id, which is a column too: path (below its root), sha256, vector (None where there is none), of_faces
    (whether it is of `MoreFaces`), file (absolute path), person (built identity or name; None: unknown)."""
    people: Mapping[str, Any]
    """Image id to whoever is on it; the true identity where the data set tells it. Tested images too."""
    known: frozenset[str]
    """All images of the reference set and of the folder, tested ones too."""
    left_out: tuple[Contamination, ...]
    remarks: tuple[str, ...]
    """What a user must know."""
    faces_root: Path | None

    @property
    def own(self) -> pd.DataFrame:
        """Images of the reference set."""
        return self.frame[~self.frame["of_faces"]]

    @property
    def faces(self) -> pd.DataFrame:
        """Images of `MoreFaces`."""
        return self.frame[self.frame["of_faces"]]

    def targets(self, limit: int | None) -> list[str]:
        """Return the images to train on: all, or the first ``limit`` of each source."""
        return [name for part in (self.own, self.faces) for name in sorted(part["image_id"])[:limit]]

    def by_person(self) -> list[tuple[str, str]]:
        """Return (file, person) of the images whose person is known."""
        known = self.frame.dropna(subset=["person"])
        return list(zip(known["file"].map(str), known["person"], strict=True))


def training_images(
    workspace: Workspace,
    splits: Collection[str],
    contamination: ContaminationOptions,
    embed: FileEmbedder,
    *,
    faces: MoreFaces | None = None,
    leave_out: Collection[str] = (),
    benchmarks: Sequence[Path] = (),
) -> TrainingImages:
    """Return the images of some splits and of a folder, without those of tested people.

    Writes the table ``train_faces`` where a folder is given.

    Args:
        workspace: with a built reference set.
        splits: of the reference set.
        contamination: whom else to compare with, and what becomes of tested people.
        embed: for images that have no vector yet.
        faces: more images.
        leave_out: true identities that are not trained on.
        benchmarks: folders of images of the run's benchmarks, compared as those of ``contamination.benchmarks``.

    Raises:
        ConfigError: see `benchmark_people`; or an image of ``faces`` is called as one of the data set.
        DatasetError: somebody is tested, or no image is left.
    """
    import pandas as pd

    own, candidates = _of_set(workspace, splits, leave_out)
    sources, parts = [candidates], [own]
    opened: pd.DataFrame | None = None
    if faces is not None:
        taken = sorted(set(faces.files) & candidates.known)
        if taken:
            raise ConfigError(f"train.faces: the reference set has an image '{taken[0]}' too; rename one of the two")
        opened, more, extra = _of_faces(faces, embed)
        sources.append(extra)
        parts.append(more)
    tested, remarks = benchmark_people(workspace, [*contamination.benchmarks, *benchmarks], sources, embed)
    limit = max_distance_of(workspace)
    found = [item for source in sources for item in find_contamination(source, tested, limit)]
    if contamination.policy == "refuse":
        refuse(found)
    if faces is not None and opened is not None:
        _write_faces(workspace, faces, opened, found)
    frame = pd.concat([part[COLUMNS].astype(object) for part in parts])
    frame = frame[~frame["image_id"].isin({item.image_id for item in found})].astype({"of_faces": bool})
    if frame.empty:
        raise DatasetError(f"no images to train on in the splits {', '.join(splits)}")
    people = dict(own_people(workspace)[0]) | true_people(workspace)
    if faces is not None:
        people |= {name: person for name, (_, person) in faces.files.items()}
        remarks.append(_kept(faces, frame[frame["of_faces"]]))
    remarks += _strangers(leave_out, true_people(workspace))
    known = frozenset().union(*(source.known for source in sources))
    return TrainingImages(frame, people, known, tuple(found), tuple(remarks), faces.root if faces else None)


def _kept(faces: MoreFaces, left: pd.DataFrame) -> str:
    people, out = left["person"].nunique(), len(faces.files) - len(left)
    return f"train.faces: {len(left)} images of {people} people in {faces.root}, {out} left out"


def _strangers(leave_out: Collection[str], truth: Mapping[str, str]) -> list[str]:
    """Return a remark on names that are not to be trained on and that nobody has."""
    wanted = set(leave_out)
    unknown = sorted(wanted - set(truth.values()))
    if not unknown:
        return []
    found = f"{len(unknown)} of {len(wanted)} names are no true identity of this data set"
    return [f"train.leave_out: {found}, first '{unknown[0]}'"]


def _of_set(
    workspace: Workspace, splits: Collection[str], leave_out: Collection[str]
) -> tuple[pd.DataFrame, Candidates]:
    """Return the images of some splits, and the same as candidates."""
    identities, images, truth = workspace.read("identities"), workspace.read("images"), true_people(workspace)
    chosen = identities[identities["split"].isin(splits)].set_index("image_id")["identity_id"]
    chosen = chosen[[truth.get(name) not in set(leave_out) for name in chosen.index]]
    embeddings = Embeddings.of_table(workspace.read("embeddings"))
    usable = set(chosen.index) & set(embeddings.image_ids)
    frame = images[images["image_id"].isin(usable)].set_index("image_id", drop=False)
    rows = embeddings.positions(frame["image_id"])
    frame = frame.assign(
        vector=list(embeddings.units(rows).astype(np.float32)),
        of_faces=False,
        file=frame["path"].map(workspace.image),
        person=frame["image_id"].map(chosen).map(lambda number: f"set/{int(number)}", na_action="ignore"),
    )
    known = frozenset(images["image_id"])
    return frame, Candidates(tuple(sorted(frame["image_id"])), own_people(workspace), embeddings, known)


def _of_faces(faces: MoreFaces, embed: FileEmbedder) -> tuple[pd.DataFrame, pd.DataFrame, Candidates]:
    """Return all rows of ``images`` that the folder gives, those that can be used, and the latter as candidates."""
    opened, embeddings = embed.open(faces.root, {name: path for name, (path, _) in faces.files.items()})
    opened = opened.assign(person=[faces.files[name][1] for name in opened["image_id"]])
    good = opened[opened["error"].isna()].set_index("image_id", drop=False)
    if good.empty:
        first = opened.iloc[0]
        raise DatasetError(f"train.faces: none of the {len(opened)} images can be trained on, first {first['error']}")
    vectors = embeddings.units(embeddings.positions(good["image_id"])).astype(np.float32)
    good = good.assign(
        vector=list(vectors), of_faces=True, file=good["path"].map(lambda path: inside(faces.root, path))
    )
    people = (dict(zip(good["image_id"], good["person"], strict=True)),)
    return opened, good, Candidates(tuple(sorted(good["image_id"])), people, embeddings, frozenset(faces.files), PREFIX)


def _write_faces(workspace: Workspace, faces: MoreFaces, opened: pd.DataFrame, found: Sequence[Contamination]) -> None:
    import pandas as pd

    reasons = {item.image_id: f"left out: {item.reason}" for item in found}
    errors = [error or reasons.get(name) for name, error in zip(opened["image_id"], opened["error"], strict=True)]
    frame = opened.assign(error=pd.Series(errors, index=opened.index, dtype=object))
    workspace.write(
        "train_faces",
        frame[list(SPECS["train_faces"].columns)],
        inputs=("identities", "embeddings"),
        config=faces.options,
        faces_root=str(faces.root),
    )
