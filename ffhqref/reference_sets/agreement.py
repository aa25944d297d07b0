"""How well identities agree with known ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffhqref.core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

TWO_PEOPLE, ONE_PERSON, UNKNOWN = "two people, near", "one person, far", "unknown person, near"
"""What `disagreements` finds: the images and what the network says of them."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of two groupings, counted over pairs of images."""

    precision: float
    """Share of the pairs put together that belong together; 1 if none was put together."""
    recall: float
    """Share of the pairs that belong together that were put together; 1 if none belongs together."""
    f1: float
    """Harmonic mean of the two."""
    adjusted_rand: float
    """Adjusted Rand index: 0 for chance, 1 for equal groupings."""
    images: int
    """Images compared."""
    wrong_pairs: int
    """Pairs put together that do not belong together."""
    missed_pairs: int
    """Pairs that belong together and were not put together."""


def agreement(identities: pd.DataFrame, truth: Mapping[str, str]) -> Agreement:
    """Compare identities with the truth.

    Args:
        identities: image_id, identity_id (null: an identity of its own).
        truth: true identity of every image in ``identities``; further images are ignored.

    Raises:
        DatasetError: an image of ``identities`` is not in ``truth``.
    """
    import pandas as pd

    missing = [name for name in identities["image_id"] if name not in truth]
    if missing:
        raise DatasetError(
            f"agreement: {len(missing)} images have no true identity, first '{missing[0]}'; leave them out"
        )
    number = identities["identity_id"].astype("Int64")
    alone = pd.Series(range(-1, -len(number) - 1, -1), index=number.index, dtype="Int64")
    found = number.fillna(alone)
    true = identities["image_id"].map(lambda name: str(truth[name]))

    def pairs(counts: pd.Series) -> int:
        n = counts.astype("int64")
        return int((n * (n - 1) // 2).sum())

    table = pd.DataFrame({"found": found.to_numpy(), "true": true.to_numpy()})
    both = pairs(table.groupby(["found", "true"]).size())
    together, belonging = pairs(table["found"].value_counts()), pairs(table["true"].value_counts())
    total = len(table) * (len(table) - 1) // 2
    expected = together * belonging / total if total else 0.0
    ceiling = (together + belonging) / 2
    return Agreement(
        precision=both / together if together else 1.0,
        recall=both / belonging if belonging else 1.0,
        f1=2 * both / (together + belonging) if together + belonging else 1.0,
        adjusted_rand=(both - expected) / (ceiling - expected) if ceiling != expected else 1.0,
        images=len(table),
        wrong_pairs=together - both,
        missed_pairs=belonging - both,
    )


def disagreements(pairs: pd.DataFrame, people: Mapping[str, str], max_distance: float) -> pd.DataFrame:
    """Return the pairs of images of which known people and the network say different things.

    Args:
        pairs: image_a, image_b, distance: every pair below the threshold, and every pair of one person.
        people: image id to person, where that is known.
        max_distance: the network takes nearer images for one person.

    Returns:
        what (`TWO_PEOPLE`, then `UNKNOWN`: one of the two images is of nobody known and near the other; then
        `ONE_PERSON`), image_a, person_a, image_b, person_b (empty where unknown), distance; the nearest first, of
        `ONE_PERSON` the farthest.
    """
    import pandas as pd

    frame = pairs[["image_a", "image_b", "distance"]].copy()
    for side in ("a", "b"):
        frame[f"person_{side}"] = [people.get(name, "") for name in frame[f"image_{side}"]]
    first, second, near = frame["person_a"], frame["person_b"], frame["distance"] < max_distance
    both, one = (first != "") & (second != ""), (first != "") ^ (second != "")
    parts = [
        frame[both & (first != second) & near].assign(what=TWO_PEOPLE).sort_values("distance", kind="stable"),
        frame[one & near].assign(what=UNKNOWN).sort_values("distance", kind="stable"),
        frame[both & (first == second) & ~near]
        .assign(what=ONE_PERSON)
        .sort_values("distance", ascending=False, kind="stable"),
    ]
    return pd.concat(parts, ignore_index=True)[["what", "image_a", "person_a", "image_b", "person_b", "distance"]]
