"""The leak guard: nobody whom a benchmark tests is among the pictures that are trained on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.reference_sets.vectors import Embeddings


@dataclass(frozen=True)
class Leak:
    """One training picture of a tested person."""

    image_id: str
    reason: str


def read_test_list(path: str | Path) -> set[str]:
    """Read image ids from a list of a benchmark's pictures: one name or path a line, or a first CSV column.

    ReF-LDM's ``id_based_ffhq_split/test_image.txt`` and ``reference_mapping/test_references.csv`` are read as they are.

    Raises:
        DatasetError: no such file, no text, or nothing in it.
    """
    path = Path(path).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"the list of test pictures {path} cannot be read ({error})") from None
    names = [line.split(",")[0].strip().strip('"') for line in lines]
    found = {Path(name).stem for name in names if name and name not in ("gt_image", "image_id", "file")}
    if not found:
        raise DatasetError(f"the list of test pictures {path} is empty")
    return found


def leaks_by_name(
    pictures: Iterable[str], people: Mapping[str, Any], tested: Collection[str], where: str
) -> list[Leak]:
    """Find training pictures that are tested themselves, or show a person of whom another picture is tested.

    Args:
        pictures: image ids that are to be trained on.
        people: image id to whoever is on it; pictures that are not in it are of people of their own.
        tested: image ids of the benchmark, in the same data set.
        where: names the benchmark in the reason.
    """
    persons = {people[name]: name for name in sorted(tested, reverse=True) if name in people}
    found = []
    for image_id in sorted(pictures):
        if image_id in tested:
            found.append(Leak(image_id, f"is a test picture of {where}"))
        elif people.get(image_id) in persons:
            found.append(Leak(image_id, f"is the person of test picture {persons[people[image_id]]} of {where}"))
    return found


def leaks_by_face(
    pictures: Sequence[str], embeddings: Embeddings, tested: Embeddings, max_distance: float, where: str
) -> list[Leak]:
    """Find training pictures whose face is that of a tested person, for benchmarks made of other pictures.

    Args:
        pictures: image ids that are to be trained on, each with an embedding.
        embeddings: of the data set.
        tested: of the benchmark's pictures, by the same network and crop.
        max_distance: ``1 - cosine`` below which two pictures show one person.
        where: names the benchmark in the reason.
    """
    rows, others = embeddings.positions(pictures), tested.units(np.arange(len(tested)))
    found = []
    for start in range(0, len(rows), 1024):
        distances: NDArray[np.float64] = 1.0 - embeddings.units(rows[start : start + 1024]) @ others.T
        for k in np.flatnonzero((distances < max_distance).any(axis=1)):
            nearest = int(distances[k].argmin())
            name, distance = tested.image_ids[nearest], distances[k, nearest]
            reason = f"looks like test picture {name} of {where} (distance {distance:.3f})"
            found.append(Leak(pictures[start + int(k)], reason))
    return found


def of_same_people(leaks: Sequence[Leak], pictures: Iterable[str], people: Mapping[str, Any]) -> list[Leak]:
    """Return the leaks, and every other picture of the people on them: one picture may look less like the tested one.

    Args:
        leaks: found so far.
        pictures: image ids that are to be trained on.
        people: image id to whoever is on it; pictures that are not in it are of people of their own.
    """
    found = {leak.image_id for leak in leaks}
    persons = {people[leak.image_id]: leak for leak in reversed(leaks) if leak.image_id in people}
    others = [name for name in sorted(pictures) if name not in found and people.get(name) in persons]
    first = {name: persons[people[name]] for name in others}
    return [
        *leaks,
        *(Leak(name, f"is the person of {leak.image_id}, which {leak.reason}") for name, leak in first.items()),
    ]


def refuse(leaks: Sequence[Leak]) -> None:
    """Refuse to train on tested people.

    Raises:
        DatasetError: there are leaks; names their number and the first.
    """
    if leaks:
        first = leaks[0]
        raise DatasetError(
            f"leak: {len({leak.image_id for leak in leaks})} pictures to train on show people whom a benchmark tests, "
            f"first {first.image_id}: {first.reason}; leave them out with synthesis.leaks=leave_out"
        )
