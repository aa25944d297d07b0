"""Identities from pairs: who is the same person.

``components`` is the rule of ReF-LDM (its paper): connected components of the graph of all pairs below
the threshold. One wrong pair joins two people there, so three rules that resist chains stand beside it:

* ``average``: agglomerative clustering, two groups are joined while the mean distance of their images is below the
  threshold;
* ``complete``: the same with the largest distance;
* ``hdbscan``: scikit-learn's HDBSCAN inside each connected component, with the rest of the data set standing at the
  mean distance of all images.

Average and complete linkage are computed on the pairs alone, without any distance matrix, and are still exact: two
groups whose mean (or largest) distance is below the threshold have at least one pair below it, so only groups joined
by a pair are ever candidates; and the mean cosine distance of two groups of unit vectors is one minus the product of
their mean vectors.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError, DatasetError, did_you_mean
from ffhqref.reference_sets.vectors import Embeddings, check_distance, distance_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

METHODS = ("components", "average", "complete", "hdbscan")

MAX_LINKED_PAIRS = 3_000_000
"""Average and complete linkage hold about 350 bytes a pair: 1 GB at this number."""

MAX_HDBSCAN_COMPONENT = 8192
"""HDBSCAN holds the distance matrix of a component: 512 MiB at this size."""


HDBSCAN_SAMPLES = 3
"""HDBSCAN's min_samples, which counts the image itself: density is the distance to the second nearest image. With less
every close pair becomes a person of its own; a component of two images is one person whatever the density."""


def group_identities(
    embeddings: Embeddings, pairs: pd.DataFrame, threshold: float, method: str = "components"
) -> pd.DataFrame:
    """Group images into identities.

    Args:
        embeddings: of every image of the data set.
        pairs: table ``pairs``, made from the same embeddings at ``threshold`` or above.
        threshold: cosine distance below which images (or groups, for ``average`` and ``complete``) are one person.
        method: one of `METHODS`.

    Returns:
        Columns image_id (sorted, every image), identity_id (Int32; null for an image that is alone in its group),
        size (int32, images in the group, 1 for those alone). Identities are numbered from 0 in the order of their
        smallest image id.

    Raises:
        ConfigError: an unknown method or a threshold outside 0..2.
        DatasetError: a pair names an image without embedding, or there are more pairs than linkage can hold, or a
            component is too large for HDBSCAN.
    """
    check_distance("the grouping threshold", threshold)
    if method not in METHODS:
        raise ConfigError(
            f"unknown grouping method '{method}'.{did_you_mean(method, METHODS)} Known: {', '.join(METHODS)}"
        )
    a, b, distance = pairs_below(embeddings, pairs, threshold)
    if method == "components":
        labels = component_labels(len(embeddings), a, b)
    elif method == "hdbscan":
        labels = _hdbscan(embeddings, component_labels(len(embeddings), a, b), threshold)
    else:
        labels = _agglomerate(embeddings, a, b, distance, threshold, method)
    return number_groups(embeddings.image_ids, labels)


def pairs_below(
    embeddings: Embeddings, pairs: pd.DataFrame, threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return the pairs whose float64 distance is strictly below ``threshold``: rows a < b, and that distance.

    Args:
        embeddings: the ones the pairs were made from.
        pairs: table ``pairs`` or any frame with its two id columns.
        threshold: cosine distance.
    """
    a, b = embeddings.positions(pairs["image_a"]), embeddings.positions(pairs["image_b"])
    distance = embeddings.pair_distances(a, b)
    near = distance < threshold
    return a[near], b[near], distance[near]


def component_labels(n: int, a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the connected component of each of ``n`` nodes under the edges ``(a[i], b[i])``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def number_groups(image_ids: NDArray[np.object_], labels: NDArray[np.intp]) -> pd.DataFrame:
    """Return the table ``identities`` without split: groups numbered by their first image, lone images null.

    Args:
        image_ids: [N] ids, sorted.
        labels: [N] group of each image.
    """
    import pandas as pd

    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts > 1)
    number = np.full(len(counts), -1)
    number[kept[np.argsort(first[kept])]] = np.arange(len(kept))
    identity = pd.array(number[inverse], dtype="Int32")
    identity[number[inverse] < 0] = pd.NA
    return pd.DataFrame(
        {
            "image_id": pd.Series(image_ids, dtype="str"),
            "identity_id": identity,
            "size": counts[inverse].astype(np.int32),
        }
    )


def known_identities(image_ids: NDArray[np.object_], people: Mapping[str, str]) -> pd.DataFrame:
    """Return what `group_identities` returns, from people who are known; an image of nobody known is alone.

    Args:
        image_ids: [N] ids, sorted.
        people: image id to person.
    """
    names = [people.get(name) for name in image_ids]
    number = {name: k for k, name in enumerate(sorted({name for name in names if name is not None}))}
    alone = range(len(number), len(number) + len(names))
    labels = [k if name is None else number[name] for k, name in zip(alone, names, strict=True)]
    return number_groups(image_ids, np.array(labels, np.intp))


def _agglomerate(  # noqa: C901 -- rewritten with issue 12
    embeddings: Embeddings,
    a: NDArray[np.intp],
    b: NDArray[np.intp],
    distance: NDArray[np.float64],
    threshold: float,
    method: str,
) -> NDArray[np.intp]:
    """Average or complete linkage over a sparse graph; ties go to the pair of groups with the smallest images.

    A group is named by its smallest row. ``links[g][h]`` is the distance of two groups that may still be joined: any
    with a pair between them (average), or with all pairs present (complete, where an absent pair is at or above the
    threshold and can never be part of a group).
    """
    labels = np.arange(len(embeddings))
    if len(a) > MAX_LINKED_PAIRS:
        raise DatasetError(
            f"{method} linkage: {len(a):,} pairs lie below the grouping threshold {threshold}, more than "
            f"{MAX_LINKED_PAIRS:,}: lower it"
        )
    members = {int(i): [int(i)] for i in np.unique(np.concatenate([a, b]))}
    links: dict[int, dict[int, float]] = defaultdict(dict)
    for i, j, d in zip(a.tolist(), b.tolist(), distance.tolist(), strict=True):
        links[i][j] = links[j][i] = d
    sums: dict[int, NDArray[np.float64]] = {}

    def total(group: int) -> NDArray[np.float64]:
        if group not in sums:
            sums[group] = embeddings.units(np.array(members[group])).sum(axis=0)
        return sums[group]

    heap = [(d, i, j) for i, j, d in zip(a.tolist(), b.tolist(), distance.tolist(), strict=True)]
    heapq.heapify(heap)
    while heap:
        d, keep, gone = heapq.heappop(heap)
        if links.get(keep, {}).get(gone) != d:
            continue  # one of the two has changed since
        if method == "average":
            sums[keep] = total(keep) + total(gone)
        members[keep] += members.pop(gone)
        of_keep, of_gone = links.pop(keep), links.pop(gone)
        sums.pop(gone, None)
        for other in of_keep.keys() | of_gone.keys():
            links.get(other, {}).pop(keep, None)
            links.get(other, {}).pop(gone, None)
        others = (of_keep.keys() & of_gone.keys()) if method == "complete" else (of_keep.keys() | of_gone.keys())
        for other in sorted(others - {keep, gone}):
            if method == "complete":
                far = max(of_keep[other], of_gone[other])
            else:
                pairs_between = len(members[keep]) * len(members[other])
                far = max(0.0, 1.0 - float((sums[keep] * total(other)).sum()) / pairs_between)
            links[keep][other] = links[other][keep] = far
            if far < threshold:
                heapq.heappush(heap, (far, min(keep, other), max(keep, other)))
    for rows in members.values():
        labels[rows] = min(rows)
    return labels


def _hdbscan(embeddings: Embeddings, components: NDArray[np.intp], threshold: float) -> NDArray[np.intp]:
    from sklearn.cluster import HDBSCAN

    labels = np.arange(len(embeddings))
    groups = groups_of(components)
    if not groups:
        return labels
    # HDBSCAN weighs a cluster by how long it lasts before it dissolves in what surrounds it, and treats the root of
    # its tree unlike any other cluster. A clump of points far from the component gives it surroundings and a root.
    mean = embeddings.units(np.arange(len(embeddings))).mean(axis=0)
    surroundings = max(1.0 - float((mean * mean).sum()), threshold)
    clump = HDBSCAN_SAMPLES + 1
    for rows in groups:
        n = len(rows)
        if n == 2:
            labels[rows] = rows[0]
            continue
        if n > MAX_HDBSCAN_COMPONENT:
            raise DatasetError(
                f"hdbscan: one connected component holds {n} images, more than {MAX_HDBSCAN_COMPONENT}: lower the "
                "grouping threshold, or use 'average' or 'complete', which need no distance matrix"
            )
        distances = np.full((n + clump, n + clump), surroundings)
        distances[:n, :n] = distance_matrix(embeddings.units(rows))
        distances[n:, n:] = 0.0
        model = HDBSCAN(min_cluster_size=2, min_samples=HDBSCAN_SAMPLES, metric="precomputed", copy=False)
        found = model.fit(distances).labels_[:n]
        for cluster in range(int(found.max()) + 1):
            inside = rows[found == cluster]
            if len(inside):
                labels[inside] = inside[0]
    return labels


def groups_of(labels: NDArray[np.intp]) -> Sequence[NDArray[np.intp]]:
    """Return the rows of every label that occurs more than once, ascending, ordered by their first row."""
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    groups = [rows for rows in np.split(order, cuts) if len(rows) > 1]
    return sorted(groups, key=lambda rows: int(rows[0]))
