"""One image under two names: a reference that is its own target gives the ground truth away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ImageError
from ffhqref.core.hashing import content_key
from ffhqref.core.images import SIZE, read_rgb
from ffhqref.engine.base import Stage
from ffhqref.reference_sets.groups import component_labels
from ffhqref.reference_sets.registration import Photograph, are_one_photograph

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.reference_sets.build import ReferenceSet

    Run = Callable[[Stage["CopyRow", "CopyResult"], Sequence["CopyRow"]], list["CopyResult"]]

THUMBNAIL = 64
"""Height and width in pixels at which images are compared: codecs and sizes leave no trace there."""

ALIKE = 6.0
"""Mean absolute difference in grey levels below which two thumbnails show one photograph. On the sample, a JPEG copy of
quality 30 differs by up to 1.9, of quality 10 by 4.9, two images of one person by 15 and more."""


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return an image as float32 [64, 64, 3], area-averaged."""
    import cv2

    made: NDArray[np.float32] = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(
        np.float32
    )
    return made


def are_alike(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Return whether two aligned images, uint8 RGB of any size, show one photograph: equal or nearly equal pixels."""
    return float(np.abs(thumbnail(first) - thumbnail(second)).mean()) < ALIKE


PAIRS_AT_ONCE = 400
"""Pairs of one row of `CopyStage`."""


@dataclass(frozen=True)
class CopyRow:
    """Pairs of images of one person."""

    files: tuple[tuple[str, str], ...]
    """Absolute path and SHA-256 of each image."""
    pairs: tuple[tuple[int, int], ...]
    """Positions in ``files``."""


@dataclass(frozen=True)
class CopyResult:
    """Which pairs of a row are one photograph."""

    copies: list[bool]


class CopyStage(Stage[CopyRow, CopyResult]):
    """Find copies among images of one person by their pixels."""

    name = "copies"
    version = "1"
    batch_size = 1

    def key(self, row: CopyRow) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, [sha256 for _, sha256 in row.files], row.pairs)

    def process(self, rows: Sequence[CopyRow]) -> list[CopyResult]:
        """Compare the pairs; an image that cannot be read is no copy."""
        return [self._one(row) for row in rows]

    def _one(self, row: CopyRow) -> CopyResult:
        images = [_prepared(*file) for file in row.files]
        found = []
        for first, second in ((images[i], images[j]) for i, j in row.pairs):
            found.append(first is not None and second is not None and are_one_photograph(first, second))
        return CopyResult(found)


def _prepared(path: str, sha256: str) -> Photograph | None:
    try:
        return Photograph.of(read_rgb(path, SIZE, sha256=sha256))
    except ImageError:
        return None


def find_copies(built: ReferenceSet, images: pd.DataFrame, place: Callable[[str], Path], run: Run) -> list[Pair]:
    """Return the pairs of images that are one photograph, sorted, the smaller id first.

    Compared are the neighbours of one identity, and targets of val and test with their references: whoever is no
    neighbour is no reference. The work grows with the number of these pairs.

    Args:
        built: the reference set.
        images: table ``images``.
        place: returns where a path of that table lies.
        run: runs a stage.
    """
    good = images[images["error"].isna()]
    file = {
        image_id: (str(place(path)), sha256)
        for image_id, path, sha256 in zip(good["image_id"], good["path"], good["sha256"], strict=True)
    }
    pairs = [pair for pair in _neighbours(built) if pair[0] in file and pair[1] in file]
    equal = {pair for pair in pairs if file[pair[0]][1] == file[pair[1]][1]}
    rest = [[pair for pair in block if pair not in equal] for block in _blocks(pairs, built)]
    blocks = [block for block in rest if block]
    rows = []
    for block in blocks:
        names = sorted({name for pair in block for name in pair})
        at = {name: position for position, name in enumerate(names)}
        rows.append(CopyRow(tuple(file[name] for name in names), tuple((at[a], at[b]) for a, b in block)))
    for block, result in zip(blocks, run(CopyStage(), rows), strict=True):
        equal |= {pair for pair, copied in zip(block, result.copies, strict=True) if copied}
    return sorted(equal)


Pair = tuple[str, str]


def _neighbours(built: ReferenceSet) -> list[Pair]:
    known = built.identities.dropna(subset=["identity_id"])
    person = dict(zip(known["image_id"], known["identity_id"], strict=True))
    near = zip(built.pairs["image_a"], built.pairs["image_b"], strict=True)
    found = {(a, b) for a, b in near if a in person and person[a] == person.get(b)}
    strict = built.references[built.references["split"].isin(["val", "test"])]
    listed = zip(strict["target_id"], strict["reference_id"], strict=True)
    return sorted(found | {(min(pair), max(pair)) for pair in listed})


def _blocks(pairs: Sequence[Pair], built: ReferenceSet) -> Iterator[list[Pair]]:
    """Yield the pairs of each identity, in parts of at most `PAIRS_AT_ONCE`."""
    person = dict(zip(built.identities["image_id"], built.identities["identity_id"], strict=True))
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(str(person.get(pair[0])), []).append(pair)
    for group in groups.values():
        yield from (group[start : start + PAIRS_AT_ONCE] for start in range(0, len(group), PAIRS_AT_ONCE))


def describe_copies(copies: Sequence[Pair], built: ReferenceSet, left_out: bool) -> list[str]:
    """Return how many images are copies of another, and how many references in val and test are of their target.

    Args:
        copies: pairs of `find_copies`.
        built: the reference set.
        left_out: whether copies are no references of each other in val and test.
    """
    if not copies:
        return []
    names = sorted({name for pair in copies for name in pair})
    at = {name: position for position, name in enumerate(names)}
    ends = (np.array([at[pair[end]] for pair in copies]) for end in (0, 1))
    more = len(names) - len(set(component_labels(len(names), *ends).tolist()))
    first = f"first {copies[0][0]} ~ {copies[0][1]}"
    lines = [
        f"copies: {more} of {len(built.identities)} images are copies of another (re-encoded, resized, cropped, grey "
        f"or mirrored), {first}"
        + ("; they are no references of each other in val and test, see build.drop_copies" if left_out else "")
    ]
    strict = built.references[built.references["split"].isin(["val", "test"])]
    found = copied_references(strict, copies)
    if len(found):
        target, reference = found.iloc[0][["target_id", "reference_id"]]
        lines.append(
            f"{len(found)} references in val and test are copies of their targets, first '{reference}' of '{target}': "
            "restorers are given the ground truth"
        )
    return lines


def copied_references(references: pd.DataFrame, copies: Collection[Pair]) -> pd.DataFrame:
    """Return the rows of a table ``references`` whose reference is a copy of its target."""
    pairs = zip(references["target_id"], references["reference_id"], strict=True)
    known = set(copies)
    return references[[(min(pair), max(pair)) in known for pair in pairs]]
