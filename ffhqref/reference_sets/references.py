"""The references of each target, and their order.

ReF-LDM's rule (its paper): the references of an image are its *direct* neighbours below the maximum
distance, so two images of one identity need not be references of each other. In test a reference must also be at
least the minimum distance away, which removes near-duplicates, and a target has 2 to 9 references; train has no
minimum. The published text does not say what holds in val: here val follows test. The minimum concerns a target and
its reference only; two references of one target may be near-duplicates of each other.

Order: farthest-point sampling, so that the first k references are the most different ones. The published text does
not say where it starts. Here the first reference is the one nearest to the target; each next one is the candidate
whose smallest distance to those before it is greatest; ties go to the smaller image id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import DatasetError
from ffhqref.reference_sets.groups import component_labels, pairs_below
from ffhqref.reference_sets.vectors import Embeddings, check_distance, distance_matrix, stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

_MATRIX_LIMIT = 4096
"""Up to this many images one distance matrix serves all targets of a group (128 MiB)."""


@dataclass(frozen=True)
class Exclusions:
    """Verdicts of a manual check.

    An excluded pair may not be target and reference of each other, in either direction; an excluded target is no
    target, but may still be a reference. Identities and splits are left as they are.
    """

    pairs: frozenset[tuple[str, str]] = frozenset()
    """Unordered pairs of image ids, each stored with the smaller id first."""
    targets: frozenset[str] = frozenset()

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]] = (), targets: Iterable[str] = ()) -> Exclusions:
        """Make exclusions from pairs in either order and targets."""
        return cls(frozenset((min(pair), max(pair)) for pair in pairs), frozenset(targets))

    def with_pairs(self, pairs: Iterable[tuple[str, str]]) -> Exclusions:
        """Return these exclusions and further pairs."""
        return Exclusions.of([*self.pairs, *pairs], self.targets)

    def with_targets(self, targets: Iterable[str]) -> Exclusions:
        """Return these exclusions and further targets."""
        return Exclusions(self.pairs, self.targets | frozenset(targets))

    def check(self, image_ids: Iterable[str]) -> None:
        """Refuse verdicts on images that do not exist, which would otherwise do nothing unnoticed.

        Raises:
            DatasetError: naming the first one.
        """
        named = {name for pair in self.pairs for name in pair} | self.targets
        unknown = sorted(named - set(image_ids))
        if unknown:
            raise DatasetError(
                f"exclusions: {len(unknown)} images do not exist, first '{unknown[0]}'; mend or remove its line"
            )


def identity_pairs(embeddings: Embeddings, identities: pd.DataFrame) -> pd.DataFrame:
    """Return every pair of images of one identity with its distance, as a table ``pairs``.

    For data sets whose identities are known (CelebRef-HQ, officials): there, photographs of one person count as
    references of each other however far apart a network puts them.
    """
    import pandas as pd

    known = identities[identities["identity_id"].notna()]
    rows = embeddings.positions(known["image_id"])
    number = known["identity_id"].to_numpy(np.int64)
    a: list[NDArray[np.intp]] = []
    b: list[NDArray[np.intp]] = []
    order = np.lexsort((rows, number))
    cuts = np.flatnonzero(np.diff(number[order])) + 1
    for members in np.split(rows[order], cuts):
        first, second = np.triu_indices(len(members), 1)
        a.append(members[first])
        b.append(members[second])
    left = np.concatenate(a) if a else np.zeros(0, np.intp)
    right = np.concatenate(b) if b else np.zeros(0, np.intp)
    by_id = np.lexsort((right, left))
    left, right = left[by_id], right[by_id]
    return pd.DataFrame(
        {
            "image_a": pd.Series(embeddings.image_ids[left], dtype="str"),
            "image_b": pd.Series(embeddings.image_ids[right], dtype="str"),
            "distance": stored(embeddings.pair_distances(left, right)),
        }
    )


def candidates(
    embeddings: Embeddings,
    pairs: pd.DataFrame,
    identities: pd.DataFrame,
    *,
    max_distance: float,
    min_distance: float = 0.0,
    exclusions: Exclusions | None = None,
) -> pd.DataFrame:
    """Return every admissible (target, reference): direct neighbours of one identity, in both directions.

    Args:
        embeddings: of every image.
        pairs: table ``pairs`` made at ``max_distance`` or above (or `identity_pairs`).
        identities: image_id, identity_id.
        max_distance: references are strictly nearer.
        min_distance: references are at least this far; decided on the stored distance.
        exclusions: verdicts of a manual check.

    Returns:
        target_id, reference_id, distance (float32), sorted by both ids.
    """
    import pandas as pd

    check_distance("max_distance", max_distance)
    check_distance("min_distance", min_distance)
    exclusions = exclusions or Exclusions()
    a, b, wide = pairs_below(embeddings, pairs, max_distance)
    distance = stored(wide)
    number = np.full(len(embeddings), -1)
    known = identities[identities["identity_id"].notna()]
    number[embeddings.positions(known["image_id"])] = known["identity_id"].to_numpy(np.int64)
    good = (number[a] == number[b]) & (number[a] >= 0) & (distance.astype(np.float64) >= min_distance)
    if exclusions.pairs:
        ids = embeddings.image_ids
        good &= [(ids[i], ids[j]) not in exclusions.pairs for i, j in zip(a, b, strict=True)]
    a, b, distance = a[good], b[good], distance[good]
    target, reference = np.concatenate([a, b]), np.concatenate([b, a])
    distance = np.concatenate([distance, distance])
    if exclusions.targets:
        allowed = ~np.isin(target, np.flatnonzero([name in exclusions.targets for name in embeddings.image_ids]))
        target, reference, distance = target[allowed], reference[allowed], distance[allowed]
    order = np.lexsort((reference, target))
    return pd.DataFrame(
        {
            "target_id": pd.Series(embeddings.image_ids[target[order]], dtype="str"),
            "reference_id": pd.Series(embeddings.image_ids[reference[order]], dtype="str"),
            "distance": distance[order],
        }
    )


def order_references(
    embeddings: Embeddings,
    chosen: pd.DataFrame,
    *,
    min_references: int = 1,
    max_references: int | None = None,
    ages: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Rank each target's references by farthest-point sampling and keep the first ones.

    Args:
        embeddings: of every image.
        chosen: target_id, reference_id, distance, as `candidates` returns them.
        min_references: targets with fewer are left out.
        max_references: how many to keep; None keeps all.
        ages: image id to years, for the column age_gap.

    Returns:
        target_id, reference_id, rank (int32, from 0), distance (float32), age_gap (float32, reference minus target
        in years, NaN where an age is unknown); sorted by target_id and rank.

    Raises:
        DatasetError: an image without embedding.
    """
    import pandas as pd

    target = embeddings.positions(chosen["target_id"])
    reference = embeddings.positions(chosen["reference_id"])
    distance = chosen["distance"].to_numpy(np.float32)
    group = component_labels(len(embeddings), target, reference)[target]
    order = np.lexsort((reference, target, group))
    target, reference, distance, group = target[order], reference[order], distance[order], group[order]
    kept = [np.zeros(0, np.intp)]
    ranks = [np.zeros(0, np.int32)]
    for block in _runs(group):
        members = np.unique(reference[block])
        # One matrix for all targets that share references; a huge group gets one a target, to bound memory.
        shared = distance_matrix(embeddings.units(members)) if len(members) <= _MATRIX_LIMIT else None
        for rows in _runs(target[block]):
            rows = rows + block[0]
            if len(rows) < min_references:
                continue
            if shared is None:
                between = distance_matrix(embeddings.units(reference[rows]))
            else:
                where = np.searchsorted(members, reference[rows])
                between = shared[np.ix_(where, where)]
            ranking = farthest_point_order(distance[rows], between, max_references)
            kept.append(rows[ranking])
            ranks.append(np.arange(len(ranking), dtype=np.int32))
    rows, rank = np.concatenate(kept), np.concatenate(ranks)
    by_target = np.lexsort((rank, target[rows]))
    rows, rank = rows[by_target], rank[by_target]
    ids = embeddings.image_ids
    years = np.array([np.nan if ages is None else _years(ages, name) for name in ids], dtype=np.float64)
    return pd.DataFrame(
        {
            "target_id": pd.Series(ids[target[rows]], dtype="str"),
            "reference_id": pd.Series(ids[reference[rows]], dtype="str"),
            "rank": rank,
            "distance": distance[rows],
            "age_gap": (years[reference[rows]] - years[target[rows]]).astype(np.float32),
        }
    )


def farthest_point_order(
    to_target: NDArray[np.floating], between: NDArray[np.float64], count: int | None = None
) -> NDArray[np.intp]:
    """Return the order of n candidates by farthest-point sampling.

    Args:
        to_target: [n] distances to the target; the smallest starts.
        between: [n, n] distances between the candidates.
        count: how many to return; all when None.

    Ties go to the smaller position.

    >>> farthest_point_order(np.array([.3, .1, .2]), np.array([[0, .4, .5], [.4, 0, .1], [.5, .1, 0]]))
    array([1, 0, 2])
    """
    n = len(to_target)
    count = n if count is None else min(count, n)
    order = np.empty(count, dtype=np.intp)
    if not count:
        return order
    order[0] = int(np.argmin(to_target))
    nearest = between[order[0]].copy()
    nearest[order[0]] = -1.0
    for k in range(1, count):
        order[k] = int(np.argmax(nearest))
        np.minimum(nearest, between[order[k]], out=nearest)
        nearest[order[k]] = -1.0
    return order


def _runs(values: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return the positions of each run of equal values."""
    cuts = np.flatnonzero(np.diff(values)) + 1
    return np.split(np.arange(len(values)), cuts) if len(values) else []


def _years(ages: Mapping[str, float], name: str) -> float:
    value = ages.get(name)
    if value is None:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DatasetError(f"age of image '{name}' is no number: {value!r}") from None
