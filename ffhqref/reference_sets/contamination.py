"""Contamination guard: nobody whom a benchmark tests is among the images that are trained on.

Trainings and synthesis call it. People are compared by identity, in each way that tells people of a data set apart
(built identities, true ones), and by face.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.csv_file import csv_records, read_data
from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.datasets.base import list_images
from ffhqref.datasets.match import ImageMatcher
from ffhqref.datasets.user_table import NAME_COLUMNS
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store import tables
from ffhqref.store.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

People = Mapping[str, Hashable]
"""Image id to person. An image without an entry shows a person of its own."""

EmbedFiles = Callable[[Path, Mapping[str, str]], Embeddings]
"""Embed image files, path below a folder by image id; files that cannot be read are left out."""

OWN_SPLIT = "this workspace's test split"


@dataclass(frozen=True)
class Contamination:
    """One image to train on that shows a tested person."""

    image_id: str
    reason: str


@dataclass(frozen=True)
class Candidates:
    """Images that are to be trained on."""

    image_ids: tuple[str, ...]
    """Sorted."""
    people: tuple[People, ...]
    """One mapping for each way that tells people apart."""
    embeddings: Embeddings
    """Of these images and maybe of others; an image without a vector is compared by identity only."""
    known: frozenset[str]
    """All images of their data set, tested ones too: names of a list are looked up in it."""
    prefix: str = ""
    """Begins the image ids where a list has the rest only."""


@dataclass(frozen=True)
class BenchmarkPeople:
    """People whom a benchmark tests."""

    where: str
    """The benchmark, for messages."""
    image_ids: frozenset[str] = frozenset()
    """BenchmarkPeople images of the candidates' own data set."""
    faces: Embeddings | None = None
    """Vectors of tested images, by the candidates' network and crop."""


def find_contamination(
    candidates: Candidates, tested: Sequence[BenchmarkPeople], max_distance: float
) -> list[Contamination]:
    """Find the images of tested people: by image id, identity and face, and all other images of whoever is found.

    Args:
        candidates: images that are to be trained on.
        tested: benchmarks.
        max_distance: ``1 - cosine`` below which two images show one person.
    """
    found: dict[str, Contamination] = {}
    for benchmark in tested:
        items = _by_identity(candidates, benchmark) + _by_face(candidates, benchmark, max_distance)
        for item in items:
            found.setdefault(item.image_id, item)
    while others := _of_same_people(candidates, found):
        found |= others
    return [found[name] for name in sorted(found)]


def _by_identity(candidates: Candidates, tested: BenchmarkPeople) -> list[Contamination]:
    found = [
        Contamination(name, f"is a test image of {tested.where}")
        for name in candidates.image_ids
        if name in tested.image_ids
    ]
    for people in candidates.people:
        persons = {people[name]: name for name in sorted(tested.image_ids, reverse=True) if name in people}
        for name in candidates.image_ids:
            if name in people and people[name] in persons:
                reason = f"shows the person of test image {persons[people[name]]} of {tested.where}"
                found.append(Contamination(name, reason))
    return found


def _by_face(candidates: Candidates, tested: BenchmarkPeople, max_distance: float) -> list[Contamination]:
    if tested.faces is None or not len(tested.faces):
        return []
    embedded = set(candidates.embeddings.image_ids)
    names = [name for name in candidates.image_ids if name in embedded]
    rows, others = candidates.embeddings.positions(names), tested.faces.units(np.arange(len(tested.faces)))
    found = []
    for start in range(0, len(rows), 1024):
        distances: NDArray[np.float64] = 1.0 - candidates.embeddings.units(rows[start : start + 1024]) @ others.T
        for k in np.flatnonzero((distances < max_distance).any(axis=1)):
            nearest = int(distances[k].argmin())
            likeness = f"test image {tested.faces.image_ids[nearest]} of {tested.where}"
            reason = f"looks like {likeness} (distance {distances[k, nearest]:.3f})"
            found.append(Contamination(names[start + int(k)], reason))
    return found


def _of_same_people(candidates: Candidates, found: Mapping[str, Contamination]) -> dict[str, Contamination]:
    """Return the other images of the people found: one image may look less like the tested one than another."""
    others: dict[str, Contamination] = {}
    for people in candidates.people:
        persons = {people[name]: name for name in sorted(found, reverse=True) if name in people}
        for name in candidates.image_ids:
            if name not in found and name in people and people[name] in persons:
                first = found[persons[people[name]]]
                reason = f"shows the person of {first.image_id}, which {first.reason}"
                others.setdefault(name, Contamination(name, reason))
    return others


def refuse(found: Sequence[Contamination]) -> None:
    """Refuse to train on tested people.

    Raises:
        DatasetError: there are some; names their number and the first.
    """
    if found:
        first = found[0]
        raise DatasetError(
            f"contamination: {len(found)} images to train on show people whom a benchmark tests, first "
            f"{first.image_id}: {first.reason}; leave them out with contamination.policy=leave_out"
        )


def describe(found: Sequence[Contamination], most: int = 5) -> list[str]:
    """Return what is left out, a line each for the first, and the number of the others."""
    lines = [f"left out: {item.image_id} {item.reason}" for item in found[:most]]
    more = len(found) - most
    return [*lines, f"left out: {more} more images of tested people"] if more > 0 else lines


def benchmark_folders(benchmarks: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Return the folders of images that benchmarks bring along: of references, else of low-quality images.

    Args:
        benchmarks: name to options. Benchmarks that test a split of the workspace are left out.
    """
    folders = []
    for options in benchmarks.values():
        if options.get("split"):
            continue
        listed = options.get("reference_list")
        folder = options.get("reference_folder") or (Path(str(listed)).parent if listed else options.get("lq_folder"))
        folders += [Path(str(folder))] if folder else []
    return folders


def own_people(workspace: Workspace) -> tuple[People, ...]:
    """Return whom the images of a workspace show: built identities, and true ones where the data set tells them."""
    built = workspace.read("identities").dropna(subset=["identity_id"])
    people: People = dict(zip(built["image_id"], built["identity_id"], strict=True))
    truth = true_people(workspace)
    return (people, truth) if truth else (people,)


def true_people(workspace: Workspace) -> dict[str, str]:
    """Return the true identities of a workspace's images, by image id; empty where the data set tells none."""
    if not workspace.has("truth"):  # a workspace of an earlier release
        return {}
    table = workspace.read("truth")
    return dict(zip(table["image_id"], table["identity"], strict=True))


def max_distance_of(workspace: Workspace) -> float:
    """Return the distance below which the builder of a workspace took two images for one person."""
    return float(tables.read_metadata(workspace.root, "identities")["config"]["max_distance"])


def benchmark_people(
    workspace: Workspace, benchmarks: Sequence[Path], sources: Sequence[Candidates], embed: EmbedFiles
) -> tuple[list[BenchmarkPeople], list[str]]:
    """Return everybody who must not be trained on, and remarks for the log.

    Args:
        workspace: its test split and the images that its benchmarks brought along.
        benchmarks: lists of image ids, workspaces, or folders of images.
        sources: all images to train on, where the names of a list are looked up.
        embed: embeds images by the network and crop of this workspace.

    Raises:
        ConfigError: a workspace was embedded with another network, or there is no such file or folder.
        DatasetError: a benchmark tests nobody, or no name of a list is known.
    """
    remarks: list[str] = []
    split, *brought = _of_workspace(workspace, OWN_SPLIT, embed)
    tested = [replace(split, image_ids=_test_split(workspace)), *brought]
    for given in benchmarks:
        path = given.expanduser()
        if not path.is_dir():
            names, remark = _of_list(path, sources)
            tested.append(BenchmarkPeople(str(path), names))
            remarks += remark
        elif (path / "tables").is_dir():
            other = Workspace(path, read_only=True)
            _check_same_network(workspace, other, path)
            tested += _of_workspace(other, str(path), embed)
        else:
            listing = list_images(
                path,
                "contamination.benchmarks",
                "expected a list, a workspace or a folder of images",
                lambda relative: relative.as_posix(),
            )
            remarks += listing.remarks
            files = listing.files
            tested.append(BenchmarkPeople(str(path), faces=_some(embed(path, files), path)))
    return tested, remarks


def _of_workspace(workspace: Workspace, where: str, embed: EmbedFiles) -> list[BenchmarkPeople]:
    """Return who is tested in a workspace: its test split, and the imported images of its benchmarks."""
    table = workspace.read("embeddings")
    split = Embeddings.of_table(table[table["image_id"].isin(_test_split(workspace))])
    found = [BenchmarkPeople(where, faces=split)]
    if workspace.has("imports"):
        brought = workspace.read("imports").dropna(subset=["path"])
        for benchmark, part in brought.groupby("benchmark"):
            files = {path: path for path in part["path"]}
            found.append(BenchmarkPeople(f"benchmark '{benchmark}' of {where}", faces=embed(workspace.root, files)))
    if not len(split) and len(found) == 1 and where != OWN_SPLIT:
        raise DatasetError(f"contamination.benchmarks: {where} has no test split")
    return found


def _test_split(workspace: Workspace) -> frozenset[str]:
    split = workspace.read("identities")
    return frozenset(split.loc[split["split"] == "test", "image_id"])


def _check_same_network(workspace: Workspace, other: Workspace, path: Path) -> None:
    theirs, mine = (sorted(set(one.read("embeddings")["embedder"])) for one in (other, workspace))
    if theirs != mine:
        raise ConfigError(
            f"contamination.benchmarks: {path} was embedded with {', '.join(theirs)}, this workspace with "
            f"{', '.join(mine)}: vectors of two networks cannot be compared, build one again"
        )


def _some(embeddings: Embeddings, path: Path) -> Embeddings:
    if not len(embeddings):
        raise DatasetError(f"contamination.benchmarks: no image in {path} can be read")
    return embeddings


def _of_list(path: Path, sources: Sequence[Candidates]) -> tuple[frozenset[str], list[str]]:
    """Return the image ids that a list names, and a remark on names that match no image."""
    names = read_test_list(path)
    matchers = [
        (source.prefix, ImageMatcher([name.removeprefix(source.prefix) for name in source.known])) for source in sources
    ]
    matches = {
        name: {f"{prefix}{match}" for prefix, matcher in matchers if (match := matcher.find(name))} for name in names
    }
    strangers = [name for name in names if not matches[name]]
    if len(strangers) == len(names):
        raise DatasetError(
            f"contamination.benchmarks: none of the {len(names)} names in {path} is an image of the data set, first "
            f"'{strangers[0]}'; people of other images are compared by face: name a folder of images or a workspace"
        )
    remark = (
        f"{path}: {len(strangers)} of {len(names)} names match no image, first '{strangers[0]}'" if strangers else ""
    )
    return frozenset().union(*matches.values()), [remark] if remark else []


def read_test_list(path: Path) -> list[str]:
    """Read the names in a list of a benchmark's images: one name or path a line, or the CSV column gt_image or first.

    ReF-LDM's ``id_based_ffhq_split/test_image.txt`` and ``reference_mapping/test_references.csv`` are read as they are.

    Raises:
        DatasetError: no such file, no text, or nothing in it.
    """
    try:
        rows = [cells for _, cells in csv_records(read_data(path), str(path))]
    except DatasetError as error:
        raise DatasetError(f"the list of test images cannot be used: {error}") from None
    head = [cell.strip() for cell in rows[0]] if rows else []
    place = head.index("gt_image") if "gt_image" in head else 0  # low-quality images may have other names
    names = [cells[place].strip() for cells in rows if len(cells) > place]
    found = list(dict.fromkeys(name for name in names if name and name not in ("gt_image", *NAME_COLUMNS)))
    if not found:
        raise DatasetError(f"the list of test images {path} is empty")
    return found
