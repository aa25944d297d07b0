"""Grouping against networkx, SciPy and scikit-learn."""

import networkx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.reference_sets import groups as groups_module
from ffhqref.reference_sets.groups import METHODS, group_identities
from ffhqref.reference_sets.pairs import find_pairs
from ffhqref.reference_sets.simulate import simulate_embeddings
from ffhqref.reference_sets.vectors import Embeddings


def partition(frame):
    """The groups of at least two images."""
    known = frame[frame["identity_id"].notna()]
    return {frozenset(part["image_id"]) for _, part in known.groupby("identity_id")}


def grouped(ids, vectors, threshold, method, pair_threshold=None):
    pairs = find_pairs(ids, vectors, pair_threshold or threshold)
    return group_identities(Embeddings.checked(ids, vectors), pairs, threshold, method)


def cloud(n, dim, seed):
    """Vectors that chain: a random walk on the sphere."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((n, dim)) * rng.choice([0.25, 2.0], size=(n, 1), p=[0.8, 0.2])
    walk = np.cumsum(steps, axis=0) / 2 + rng.standard_normal(dim)
    return (walk / np.linalg.norm(walk, axis=1, keepdims=True)).astype(np.float32), [f"{i:03d}" for i in range(n)]


def of_labels(ids, labels):
    found = {}
    for name, label in zip(ids, labels, strict=True):
        found.setdefault(label, set()).add(name)
    return {frozenset(group) for group in found.values() if len(group) > 1}


@given(st.integers(2, 60), st.integers(2, 12), st.floats(0.02, 0.6), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_components_are_those_of_networkx(n, dim, threshold, seed):
    vectors, ids = cloud(n, dim, seed)
    pairs = find_pairs(ids, vectors, threshold)
    graph = networkx.Graph(zip(pairs["image_a"], pairs["image_b"], strict=True))
    expected = {frozenset(part) for part in networkx.connected_components(graph)}
    assert partition(grouped(ids, vectors, threshold, "components")) == expected


@pytest.mark.parametrize("method", ["average", "complete"])
@given(n=st.integers(2, 60), dim=st.integers(2, 12), threshold=st.floats(0.02, 0.6), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_linkage_on_pairs_alone_equals_scipy_on_the_full_matrix(method, n, dim, threshold, seed):
    vectors, ids = cloud(n, dim, seed)
    tree = linkage(pdist(vectors.astype(np.float64), "cosine"), method)
    if np.abs(tree[:, 2] - threshold).min() < 1e-9:
        return
    expected = of_labels(ids, fcluster(tree, threshold, "distance"))
    assert partition(grouped(ids, vectors, threshold, method)) == expected
    # More pairs than needed change nothing.
    assert partition(grouped(ids, vectors, threshold, method, pair_threshold=threshold + 0.3)) == expected


@pytest.mark.parametrize("method", METHODS)
def test_numbers_follow_the_smallest_image_and_lone_images_have_none(method):
    ids, vectors, person = simulate_embeddings(400, 250, 80, dim=256, near_duplicates=0.0, seed=4)
    frame = grouped(ids, vectors, 0.45, method)
    assert list(frame["image_id"]) == sorted(ids)
    assert str(frame["identity_id"].dtype) == "Int32"
    assert frame["size"].dtype == np.int32
    known = frame[frame["identity_id"].notna()]
    first = known.groupby("identity_id")["image_id"].min()
    assert list(first.index) == list(range(len(first)))
    assert first.is_monotonic_increasing
    assert (known.groupby("identity_id")["image_id"].transform("size") == known["size"]).all()
    assert (known["size"] >= 2).all()
    assert (frame.loc[frame["identity_id"].isna(), "size"] == 1).all()
    alone = {name for name, who in zip(ids, person, strict=True) if (person == who).sum() == 1}
    assert alone.isdisjoint(known["image_id"])


@pytest.mark.parametrize("method", METHODS)
def test_input_order_does_not_matter(method):
    ids, vectors, _ = simulate_embeddings(300, 250, 60, dim=64, seed=5)
    order = np.random.default_rng(1).permutation(len(ids))
    first = grouped(ids, vectors, 0.5, method)
    assert grouped([ids[i] for i in order], vectors[order], 0.5, method).equals(first)


def two_people_and_a_bridge():
    """Two tight groups of five at distance 0.6, and one wrong pair in between."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((64, 64)))
    one, other = basis[0], 0.4 * basis[0] + np.sqrt(1 - 0.4**2) * basis[1]
    rows = [one + 0.3 * basis[2 + k] for k in range(5)] + [other + 0.3 * basis[8 + k] for k in range(5)]
    rows += [0.75 * one + 0.6 * other]
    rows = np.array(rows)
    return [f"{i:02d}" for i in range(11)], (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_bridge_joins_two_people_in_components_and_not_in_the_other_rules():
    ids, vectors = two_people_and_a_bridge()
    assert partition(grouped(ids, vectors, 0.4, "components")) == {frozenset(ids)}
    for method in ("average", "complete", "hdbscan"):
        found = partition(grouped(ids, vectors, 0.4, method))
        of = {name: group for group in found for name in group}
        assert of["00"] == of["04"] != of["05"] == of["09"], method


def test_hdbscan_refines_components_and_keeps_clean_people_whole():
    ids, vectors, person = simulate_embeddings(500, 400, 100, dim=512, near_duplicates=0.0, seed=6)
    components = partition(grouped(ids, vectors, 0.4, "components"))
    found = partition(grouped(ids, vectors, 0.4, "hdbscan"))
    assert all(any(group <= component for component in components) for group in found)
    truth = of_labels(ids, person)
    assert len(found & truth) >= 0.95 * len(components & truth)


def test_clear_errors(monkeypatch):
    ids, vectors = two_people_and_a_bridge()
    embeddings, pairs = Embeddings.checked(ids, vectors), find_pairs(ids, vectors, 0.4)
    with pytest.raises(ConfigError, match="Did you mean 'average'"):
        group_identities(embeddings, pairs, 0.4, "averge")
    with pytest.raises(ConfigError, match="cosine distance"):
        group_identities(embeddings, pairs, 3.0)
    with pytest.raises(DatasetError, match="'zz' has no embedding"):
        group_identities(embeddings, pd.DataFrame({"image_a": ["00"], "image_b": ["zz"], "distance": [0.1]}), 0.4)
    monkeypatch.setattr(groups_module, "MAX_LINKED_PAIRS", 5)
    with pytest.raises(DatasetError, match=r"average linkage: .* pairs lie below"):
        group_identities(embeddings, pairs, 0.4, "average")
    monkeypatch.setattr(groups_module, "MAX_HDBSCAN_COMPONENT", 5)
    with pytest.raises(DatasetError, match="component holds 11 images"):
        group_identities(embeddings, pairs, 0.4, "hdbscan")
