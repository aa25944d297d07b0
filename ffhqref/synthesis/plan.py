"""Which pose image for which identity: buckets of pose and expression, and the plan of all attempts.

FaceMe clusters the pool of FFHQ images by EMOCA's pose and expression codes and draws, for each identity, one pose
image from each cluster (its project page and overview figure). 3 x 3 clusters and up to 3 tries are third parties'
reading of the paper, unconfirmed; so is which of the two indices of a folder is the pose. Clustering expressions inside
each pose cluster, and excluding every image of the identity's own person, are choices of this project.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.core.seeding import case_seed
from ffhqref.store.schemas import SPECS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.synthesis.vectors import PoseVectors

NO_POSE = "no image of another person in this bucket"


def make_buckets(vectors: PoseVectors, clusters: tuple[int, int], seed: int) -> pd.DataFrame:
    """Sort images into buckets: k-means over poses, then over expressions inside each pose cluster.

    Vectors are taken as they are, without scaling. Clusters are numbered by the first number of their centre, upwards,
    so that with the yaw first bucket 0 holds the heads that look to the image's left.

    Args:
        vectors: of the pool.
        clusters: numbers of pose and expression clusters. Where fewer different expressions than that exist, the last
            buckets stay empty.
        seed: of the starting points of k-means.

    Returns:
        image_id, pose_bucket, expression_bucket, sorted by image_id.

    Raises:
        ConfigError: fewer different poses than clusters.
    """
    import pandas as pd

    different = len(np.unique(vectors.pose, axis=0))
    if different < clusters[0]:
        raise ConfigError(
            f"synthesis.clusters={list(clusters)}: {clusters[0]} pose clusters of only {different} different poses; "
            "ask for fewer clusters or give more images"
        )
    pose = _kmeans(vectors.pose, clusters[0], case_seed(seed, "poses"))
    expression = np.zeros(len(pose), np.int64)
    for number in range(clusters[0]):
        inside = np.flatnonzero(pose == number)
        part = vectors.expression[inside]
        count = min(clusters[1], len(np.unique(part, axis=0)))
        expression[inside] = _kmeans(part, count, case_seed(seed, "expressions", number))
    return pd.DataFrame({"image_id": list(vectors.image_ids), "pose_bucket": pose, "expression_bucket": expression})


def _kmeans(points: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int64]:
    """Return cluster numbers in the order of the centres' coordinates; one thread, so that sums have one order."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        model = KMeans(count, n_init=10, random_state=seed % (1 << 32)).fit(points)
    order = np.lexsort(model.cluster_centers_.T[::-1])
    return np.asarray(np.argsort(order)[model.labels_], np.int64)


def make_plan(
    targets: Iterable[str],
    buckets: pd.DataFrame,
    people: Mapping[str, Hashable],
    clusters: tuple[int, int],
    *,
    tries: int,
    seed: int,
) -> pd.DataFrame:
    """Return the table ``synthesis_plan``: every attempt that may be made, the later ones only if earlier ones fail.

    Each target has every bucket once. Its attempts have different pose images while the bucket has enough of other
    people's, and a seed each. A draw depends on the seed, the target, the bucket and the bucket's images; never on
    the other targets.

    Args:
        targets: image ids that get references.
        buckets: from `make_buckets`: the pool of pose images.
        people: image id to whoever is on it; images that are not in it are of people of their own.
        clusters: as given to `make_buckets`.
        tries: attempts for each bucket.
        seed: of the run.

    Returns:
        Columns of `ffhqref.store.schemas.SPECS`. A bucket without an image of another person has one row
        without pose_id, which says so.

    Raises:
        ConfigError: fewer than one try.
    """
    import pandas as pd

    if tries < 1:
        raise ConfigError(f"synthesis.tries={tries}: expected 1 or more")
    pools: dict[tuple[int, int], list[str]] = {(i, j): [] for i in range(clusters[0]) for j in range(clusters[1])}
    columns = ["pose_bucket", "expression_bucket", "image_id"]
    for i, j, name in buckets.sort_values("image_id")[columns].itertuples(index=False):
        pools[int(i), int(j)].append(str(name))
    places = {bucket: _places(pool, people) for bucket, pool in pools.items()}
    rows: list[tuple[str, int, int, int, str | None, int, str | None]] = []
    for target in sorted(targets):
        person = _person(target, people)
        for (i, j), pool in pools.items():
            own = places[i, j].get(person, [])
            chosen = _draw(len(pool) - len(own), tries, seed, target, i, j)
            if not chosen:
                rows.append((target, i, j, 0, None, case_seed(seed, "render", target, i, j, 0), NO_POSE))
            for attempt, number in enumerate(chosen):
                pose = pool[_past(number, own)]
                rows.append((target, i, j, attempt, pose, case_seed(seed, "render", target, i, j, attempt), None))
    return pd.DataFrame(rows, columns=list(SPECS["synthesis_plan"].columns))


def _person(image_id: str, people: Mapping[str, Hashable]) -> Hashable:
    return people.get(image_id, ("picture", image_id))


def _places(pool: list[str], people: Mapping[str, Hashable]) -> dict[Hashable, list[int]]:
    """Return where in a pool each person stands, upwards."""
    found: dict[Hashable, list[int]] = {}
    for position, image_id in enumerate(pool):
        found.setdefault(_person(image_id, people), []).append(position)
    return found


def _past(number: int, taken: list[int]) -> int:
    """Return the position of the ``number``-th place that is not in ``taken`` (upwards)."""
    for position in taken:
        if position > number:
            break
        number += 1
    return number


def _draw(count: int, tries: int, seed: int, *case: str | int) -> list[int]:
    """Draw ``tries`` numbers below ``count``, different ones as long as there are any, then the same ones again.

    A partial Fisher-Yates shuffle over hashes: no generator whose stream could change with a library's version.
    """
    if count < 1:
        return []
    moved: dict[int, int] = {}
    drawn: list[int] = []
    for k in range(min(tries, count)):
        other = k + case_seed(seed, "pose", *case, k) % (count - k)
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(k, k)
    return [drawn[k % len(drawn)] for k in range(tries)]
