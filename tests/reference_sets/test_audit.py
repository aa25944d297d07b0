"""Audit, calibration, agreement, age sets."""

import networkx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import pair_confusion_matrix

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.reference_sets.agesets import CROSS, SAME, build_age_sets, summarise_age_sets
from ffhqref.reference_sets.agreement import agreement
from ffhqref.reference_sets.audit import audit_identities, calibrate_threshold, contact_sheet
from ffhqref.reference_sets.build import build_reference_set
from ffhqref.reference_sets.options import AgeSetConfig, BuildConfig
from ffhqref.reference_sets.references import candidates, farthest_point_order
from ffhqref.reference_sets.simulate import simulate_embeddings
from ffhqref.reference_sets.vectors import Embeddings


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_identities(n, groups, dim, seed):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((n, dim)) + 1.0)
    ids = [f"{i:03d}" for i in range(n)]
    label = rng.integers(0, groups, n)
    size = pd.Series(label).map(pd.Series(label).value_counts())
    who = pd.array([int(k) if s > 1 else pd.NA for k, s in zip(label, size, strict=True)], dtype="Int32")
    return Embeddings.checked(ids, vectors), pd.DataFrame({"image_id": ids, "identity_id": who})


@given(st.integers(2, 30), st.integers(1, 5), st.integers(2, 6), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_audit_agrees_with_networkx_and_brute_force(n, groups, dim, seed):
    embeddings, identities = random_identities(n, groups, dim, seed)
    second = Embeddings.checked(
        list(embeddings.image_ids), unit(np.random.default_rng(seed + 1).standard_normal((n, 4)) + 0.5)
    )
    audit = audit_identities(embeddings, identities, max_distance=0.3, second=second, second_max_distance=0.5)
    full = cdist(embeddings.vectors.astype(np.float64), embeddings.vectors.astype(np.float64), "cosine")
    other = cdist(second.vectors.astype(np.float64), second.vectors.astype(np.float64), "cosine")
    assert set(audit["identity_id"]) == set(identities["identity_id"].dropna())
    assert audit["gap"].is_monotonic_decreasing
    for row in audit.itertuples():
        members = np.flatnonzero((identities["identity_id"] == row.identity_id).fillna(False).to_numpy(bool))
        inside = full[np.ix_(members, members)]
        upper = inside[np.triu_indices(len(members), 1)]
        assert row.size == len(members)
        assert row.diameter == pytest.approx(upper.max(), abs=1e-9)
        assert row.mean_distance == pytest.approx(upper.mean(), abs=1e-9)
        assert row.direct_share == pytest.approx((upper < 0.3).mean(), abs=1e-9)
        graph = networkx.Graph()
        for i in range(len(members)):
            for j in range(i):
                graph.add_edge(members[i], members[j], weight=inside[i, j])
        tree = networkx.minimum_spanning_tree(graph)
        a, b, weight = max(tree.edges(data="weight"), key=lambda edge: edge[2])
        assert row.weakest_edge == pytest.approx(weight, abs=1e-9)
        assert {row.weakest_a, row.weakest_b} == {embeddings.image_ids[a], embeddings.image_ids[b]}
        tree.remove_edge(a, b)
        one, two = (sorted(part) for part in networkx.connected_components(tree))
        assert row.smaller_side == min(len(one), len(two))
        assert row.gap == pytest.approx(full[np.ix_(one, two)].mean(), abs=1e-7)
        assert row.suspicious == (row.gap >= 0.3)
        assert row.second_gap == pytest.approx(other[np.ix_(one, two)].mean(), abs=1e-7)
        near = upper < 0.3
        beyond = other[np.ix_(members, members)][np.triu_indices(len(members), 1)] >= 0.5
        assert row.second_disagreement == pytest.approx((near & beyond).sum() / near.sum() if near.any() else 0.0)


def test_the_chained_identity_comes_first():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((64, 64)))

    def person(direction, k, spread=0.35):
        return [direction + spread * basis[k + i] for i in range(4)]

    other = 0.4 * basis[0] + np.sqrt(1 - 0.16) * basis[1]
    rows = [*person(basis[0], 10), 0.75 * basis[0] + 0.6 * other, *person(other, 20)]
    for k in range(3):
        rows += person(basis[2 + k], 30 + 6 * k)
    ids = [f"{i:02d}" for i in range(len(rows))]
    built = build_reference_set(ids, unit(np.array(rows)), BuildConfig(test=0, val=0))
    assert built.identities["identity_id"].nunique() == 4
    first = built.audit.iloc[0]
    assert first["size"] == 9
    assert first["suspicious"]
    assert first["smaller_side"] in (4, 5)
    assert not built.audit["suspicious"].iloc[1:].any()


def test_audit_needs_both_halves_of_a_second_opinion():
    embeddings, identities = random_identities(6, 2, 3, 0)
    with pytest.raises(ConfigError, match="go together"):
        audit_identities(embeddings, identities, max_distance=0.4, second=embeddings)


def test_calibration_recovers_the_threshold_of_a_scaled_network():
    rng = np.random.default_rng(1)
    second = rng.uniform(0, 1, 4000)
    table = calibrate_threshold(second * 0.5 + 0.1, second, 0.4, np.round(np.arange(0.1, 0.6, 0.01), 2))
    best = table.loc[table["f1"].idxmax()]
    assert best["threshold"] == pytest.approx(0.3)
    assert best["f1"] == 1.0
    assert table["pairs"].is_monotonic_increasing
    assert (table.loc[table["threshold"] < 0.3, "precision"].dropna() == 1).all()
    with pytest.raises(DatasetError, match="3 distances against 2"):
        calibrate_threshold(np.zeros(3), np.zeros(2), 0.4, [0.1])


def test_contact_sheet_places_every_picture():
    red, blue = (np.full((50, 30, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    sheet = contact_sheet([[red, red, blue], [blue]], side=16, columns=2)
    assert sheet.shape == (48, 32, 3)
    assert (sheet[8, 8] == [255, 0, 0]).all()
    assert (sheet[24, 8] == [0, 0, 255]).all()
    assert (sheet[24, 24] == 255).all(), "an unused place is white"
    assert (sheet[40, 8] == [0, 0, 255]).all()
    assert contact_sheet([[red]], ["identity 3"], side=16, columns=8).shape == (32, 128, 3)


@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(0, 4))), min_size=1, max_size=40))
@settings(deadline=None)
def test_agreement_equals_scikit_learn(rows):
    ids = [str(i) for i in range(len(rows))]
    truth = {name: f"p{t}" for name, (t, _) in zip(ids, rows, strict=True)}
    frame = pd.DataFrame({"image_id": ids, "identity_id": pd.array([f for _, f in rows], dtype="Int32")})
    result = agreement(frame, truth)
    labels_true = [t for t, _ in rows]
    labels_found = [1000 + i if f is None else f for i, (_, f) in enumerate(rows)]
    (_, wrong), (missed, both) = pair_confusion_matrix(labels_true, labels_found) // 2
    assert (result.wrong_pairs, result.missed_pairs) == (wrong, missed)
    assert result.precision == (both / (both + wrong) if both + wrong else 1.0)
    assert result.recall == (both / (both + missed) if both + missed else 1.0)
    assert result.f1 == pytest.approx(2 * both / (2 * both + wrong + missed) if both + wrong + missed else 1.0)
    assert result.adjusted_rand == pytest.approx(adjusted_rand_score(labels_true, labels_found))


def test_agreement_names_an_image_without_truth():
    frame = pd.DataFrame({"image_id": ["a", "b"], "identity_id": pd.array([0, 0], dtype="Int32")})
    with pytest.raises(DatasetError, match="first 'b'"):
        agreement(frame, {"a": "x"})


@pytest.fixture(scope="module")
def aged():
    ids, vectors, _ = simulate_embeddings(400, 400, 40, dim=256, near_duplicates=0.0, seed=31)
    rng = np.random.default_rng(1)
    ages = {name: float(age) for name, age in zip(ids, rng.choice([20, 22, 24, 28, 35, 50], len(ids)), strict=True)}
    for name in ids[:20]:
        del ages[name]
    embeddings = Embeddings.checked(ids, vectors)
    built = build_reference_set(ids, vectors, BuildConfig(test=0, val=0))
    return embeddings, candidates(embeddings, built.pairs, built.identities, max_distance=0.4, min_distance=0.1), ages


def test_matched_sets_share_targets_and_counts_and_keep_the_dead_zone_empty(aged):
    embeddings, chosen, ages = aged
    sets = build_age_sets(embeddings, chosen, ages, AgeSetConfig(same_max=5, cross_min=10, max_references=3))
    same, cross = (sets[sets["benchmark"] == name] for name in (SAME, CROSS))
    assert len(same) > 50
    pd.testing.assert_series_equal(same.groupby("target_id").size(), cross.groupby("target_id").size())
    assert same.groupby("target_id").size().max() == 3
    assert (same["age_gap"].abs() <= 5).all()
    assert (cross["age_gap"].abs() >= 10).all()
    for row in sets.itertuples():
        assert row.age_gap == ages[row.reference_id] - ages[row.target_id]
    # Every target with candidates on both sides is in.
    gap = chosen["reference_id"].map(ages) - chosen["target_id"].map(ages)
    both = set(chosen["target_id"][gap.abs() <= 5]) & set(chosen["target_id"][gap.abs() >= 10])
    assert set(same["target_id"]) == both


def test_each_side_is_in_farthest_point_order(aged):
    embeddings, chosen, ages = aged
    sets = build_age_sets(
        embeddings, chosen, ages, AgeSetConfig(same_max=5, cross_min=10, max_references=None, matched=False)
    )
    full = pd.DataFrame(
        cdist(embeddings.vectors.astype(float), embeddings.vectors.astype(float), "cosine"),
        embeddings.image_ids,
        embeddings.image_ids,
    )
    for (_, target), rows in sets.groupby(["benchmark", "target_id"]):
        names = sorted(rows["reference_id"])
        order = farthest_point_order(full.loc[target, names].to_numpy(), full.loc[names, names].to_numpy())
        assert list(rows["reference_id"]) == [names[i] for i in order]
    gap = (chosen["reference_id"].map(ages) - chosen["target_id"].map(ages)).abs()
    assert len(sets) == (gap <= 5).sum() + (gap >= 10).sum()


def test_the_summary_tells_the_gaps(aged):
    embeddings, chosen, ages = aged
    sets = build_age_sets(embeddings, chosen, ages)
    summary = summarise_age_sets(sets).set_index("benchmark")
    for name, rows in sets.groupby("benchmark"):
        gap = rows["age_gap"].abs().astype(float)
        assert summary.at[name, "references"] == len(rows)
        assert summary.at[name, "gap_median"] == gap.median()
        assert summary.at[name, "gap_max"] == gap.max()
        assert summary.at[name, "older_share"] == pytest.approx((rows["age_gap"] > 0).mean())
    assert list(summarise_age_sets(sets.iloc[:0]).columns) == list(summary.reset_index().columns)


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_an_identity_of_exact_duplicates_has_two_sides(copies):
    units = unit(np.tile(np.random.default_rng(3).standard_normal(8), (copies, 1)))
    second = unit(np.random.default_rng(4).standard_normal((copies, 8)))
    ids = [f"{i}" for i in range(copies)]
    identities = pd.DataFrame({"image_id": ids, "identity_id": pd.array([0] * copies, dtype="Int32")})
    row = audit_identities(
        Embeddings.checked(ids, units), identities, max_distance=0.3,
        second=Embeddings.checked(ids, second), second_max_distance=0.5,
    ).iloc[0]  # fmt: skip
    assert row["smaller_side"] >= 1
    assert row["weakest_a"] != row["weakest_b"]
    assert row["gap"] == pytest.approx(0.0, abs=1e-6)
    sides = cdist(second.astype(np.float64), second.astype(np.float64), "cosine")
    assert 0.0 < row["second_gap"] <= sides.max() + 1e-6  # what the second network says of them, and not 0 from a NaN


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"same_max": 10, "cross_min": 10}, "same_max=10 must be below cross_min=10 years"),
        ({"same_max": -1}, "same_max=-1: expected a number of at least 0"),
        ({"min_references": 0}, "min_references=0: expected a whole number of at least 1"),
        ({"min_references": 3, "max_references": 2}, "max_references=2 is below min_references=3"),
    ],
)
def test_a_senseless_definition_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        AgeSetConfig(**values)
