"""Properties of the whole builder, its splits and its references."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from ffhqref.core.errors import ConfigError
from ffhqref.core.options import read_options
from ffhqref.reference_sets.agreement import disagreements
from ffhqref.reference_sets.build import build_reference_set
from ffhqref.reference_sets.options import BuildConfig
from ffhqref.reference_sets.references import (
    Exclusions,
    candidates,
    farthest_point_order,
    identity_pairs,
    order_references,
)
from ffhqref.reference_sets.simulate import simulate_embeddings
from ffhqref.reference_sets.splits import split_identities
from ffhqref.reference_sets.summary import describe_neighbours
from ffhqref.reference_sets.validate import Evidence, Limits, validate_reference_set
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store.tables import read_table, to_arrow, write_table


def sets_equal(one, other):
    return all(getattr(one, f.name).equals(getattr(other, f.name)) for f in dataclasses.fields(one))


@st.composite
def worlds(draw):
    images = draw(st.integers(20, 120))
    grouped = draw(st.integers(10, images))
    people = draw(st.integers(2, grouped // 4))
    ids, vectors, _ = simulate_embeddings(
        images,
        grouped,
        people,
        dim=draw(st.sampled_from([12, 48])),
        near_duplicates=0.3,
        seed=draw(st.integers(0, 10**6)),
    )
    config = BuildConfig(
        max_distance=draw(st.sampled_from([0.3, 0.4, 0.55])),
        min_distance=draw(st.sampled_from([0.0, 0.1, 0.25])),
        grouping=draw(st.sampled_from(["components", "average", "complete", "hdbscan"])),
        grouping_threshold=draw(st.sampled_from([None, 0.3, 0.5])),
        test=draw(st.sampled_from([0, 1, 0.1])),
        val=draw(st.sampled_from([0, 1])),
        min_references=draw(st.integers(1, 2)),
        max_references=draw(st.sampled_from([2, 5, None])),
        seed=draw(st.integers(0, 5)),
    )
    return ids, vectors, config


@given(worlds(), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_properties_of_a_built_set(world, shuffle):
    ids, vectors, config = world
    try:
        built = build_reference_set(ids, vectors, config)
    except ConfigError as error:
        if "qualify" not in str(error):
            raise
        return  # too few people for the split: said, not bent
    identities, references = built.identities, built.references
    known = identities[identities["identity_id"].notna()]
    assert (known.groupby("identity_id")["split"].nunique() == 1).all(), "an identity crosses splits"
    assert set(identities["split"]) <= {"train", "val", "test"}
    assert (identities.loc[identities["identity_id"].isna(), "split"] == "train").all()

    full = pd.DataFrame(cdist(vectors.astype(np.float64), vectors.astype(np.float64), "cosine"), ids, ids)
    who, split = identities.set_index("image_id")["identity_id"], identities.set_index("image_id")["split"]
    distance = np.array(
        [full.at[t, r] for t, r in zip(references["target_id"], references["reference_id"], strict=True)]
    )
    assert (distance < config.max_distance + 1e-12).all(), "a reference is no direct neighbour"
    strict = (references["split"] != "train").to_numpy(bool)
    assert (distance[strict] >= config.min_distance - 1e-12).all(), "a near-duplicate is a reference"
    np.testing.assert_allclose(references["distance"], distance, atol=2e-7)
    for column in ("target_id", "reference_id"):
        assert (references[column].map(split) == references["split"]).all()
    assert (references["target_id"].map(who) == references["reference_id"].map(who)).all()
    assert (references["target_id"] != references["reference_id"]).all()

    for target, rows in references.groupby("target_id"):
        near = full.loc[target, [n for n in ids if n != target and who[n] is not pd.NA and who[n] == who[target]]]
        near = near[near < config.max_distance]
        in_train = split[target] == "train"
        admissible = near if in_train else near[near >= config.min_distance]
        most = len(admissible) if in_train or config.max_references is None else config.max_references
        assert len(rows) == min(len(admissible), most), "a direct neighbour is missing"
        assert len(rows) >= (1 if in_train else config.min_references)
        assert list(rows["rank"]) == list(range(len(rows)))
        expected = brute_farthest_point(admissible, full, len(rows))
        if expected is not None:
            assert list(rows["reference_id"]) == expected

    order = np.random.default_rng(shuffle).permutation(len(ids))
    again = build_reference_set(
        [ids[i] for i in order], vectors[order], config.model_copy(update={"block": int(shuffle % 50) + 1})
    )
    assert sets_equal(again, built), "the order of the images or the tile size matters"
    assert validate_reference_set(
        identities,
        references,
        Limits(config.max_distance, config.min_distance, config.min_references, config.max_references),
        Evidence(images=ids, embeddings=Embeddings.checked(ids, vectors)),
    ).empty
    for name, frame in (("pairs", built.pairs), ("identities", identities), ("references", references)):
        to_arrow(name, frame)


def brute_farthest_point(to_target, full, count):
    """Farthest-point order by definition; None when a near-tie leaves it open."""
    left = list(to_target.index)
    between = full.loc[left, left].to_dict()
    to_target = to_target.to_dict()
    order = []
    while len(order) < count:
        score = {n: -to_target[n] if not order else min(between[n][c] for c in order) for n in left}
        best = sorted(score.values(), reverse=True)
        if len(best) > 1 and best[0] - best[1] < 1e-7:
            return None
        order.append(max(left, key=score.__getitem__))
        left.remove(order[-1])
    return order


def test_farthest_point_ties_go_to_the_first():
    between = np.ones((4, 4)) - np.eye(4)
    assert list(farthest_point_order(np.array([0.2, 0.1, 0.1, 0.3]), between)) == [1, 0, 2, 3]
    assert list(farthest_point_order(np.array([0.2, 0.1, 0.1, 0.3]), between, 2)) == [1, 0]
    assert list(farthest_point_order(np.zeros(0), np.zeros((0, 0)))) == []


def test_exact_copies_do_not_disturb_the_order():
    """Copies are exact ties; the smaller id must win whatever the threads do with the arithmetic."""
    _, vectors, _ = simulate_embeddings(1, 0, 0, dim=64)
    rng = np.random.default_rng(0)
    rows = vectors[0] + 0.35 * rng.standard_normal((6, 64)) / 8
    rows = np.concatenate([rows, rows[[2, 2, 4]]])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    names = [f"{i}" for i in range(9)]
    built = build_reference_set(names, rows, BuildConfig(test=0, val=0))
    listed = built.references.groupby("target_id")["reference_id"].agg(list)
    for target, references in listed.items():
        for first, second in (("2", "6"), ("6", "7"), ("4", "8")):
            if target not in (first, second):
                assert references.index(first) < references.index(second)


def test_published_sizes_and_one_split_for_everybody():
    ids, vectors, _ = simulate_embeddings(3000, 1200, 400, seed=7)
    built = build_reference_set(ids, vectors, BuildConfig(test=15, val=0.05, seed=1))
    counts = built.counts()
    assert counts["test"]["identities"] == 15
    assert counts["val"]["identities"] == round(0.05 * counts["all"]["identities"])
    assert counts["all"]["images"] == sum(counts[s]["images"] for s in ("train", "val", "test"))
    assert len(built.identities) == 3000
    per_target = built.references[built.references["split"] != "train"].groupby("target_id").size()
    assert per_target.between(2, 9).all()
    assert (built.references.loc[built.references["split"] == "train", "distance"] < 0.1).any(), "train has no minimum"


def test_the_draw_is_keyed_by_seed_and_survives_other_people(tmp_path):
    ids, vectors, _ = simulate_embeddings(600, 400, 120, dim=256, seed=8)
    config = BuildConfig(test=10, val=10, seed=1)
    one = build_reference_set(ids, vectors, config).identities
    assert not one.equals(build_reference_set(ids, vectors, config.model_copy(update={"seed": 2})).identities)
    more_val = build_reference_set(ids, vectors, config.model_copy(update={"val": 20})).identities
    assert set(one.loc[one["split"] == "test", "image_id"]) == set(
        more_val.loc[more_val["split"] == "test", "image_id"]
    )
    write_table(tmp_path, "identities", one)
    assert read_table(tmp_path, "identities").equals(one)


def frame_of_identities(count, per=2):
    who = np.repeat(np.arange(count), per)
    return pd.DataFrame(
        {"image_id": [f"{i:04d}" for i in range(len(who))], "identity_id": pd.array(who, dtype="Int32")}
    )


def test_balancing_takes_the_labels_in_turns():
    frame = frame_of_identities(100)
    label = {name: "rare" if int(who) < 8 else "common" for name, who in zip(*frame.values.T, strict=True)}
    for size, rare in ((10, 5), (20, 8)):
        split = split_identities(frame, test=size, val=0, seed=3, attribute=label)
        chosen = split[split["split"] == "test"].drop_duplicates("identity_id")["image_id"].map(label)
        assert (chosen == "rare").sum() == rare
    plain = split_identities(frame, test=20, val=0, seed=3)
    assert (plain[plain["split"] == "test"]["image_id"].map(label) == "rare").sum() < 8


@pytest.mark.parametrize("size", [-1, 1.5, True, "3", None])
def test_a_size_that_is_neither_count_nor_fraction_is_refused(size):
    with pytest.raises(ConfigError, match="size of test"):
        split_identities(frame_of_identities(10), test=size, val=0, seed=0)


def test_more_identities_than_there_are_is_said():
    with pytest.raises(ConfigError, match="only 6 of 10 qualify"):
        split_identities(frame_of_identities(10), test=4, val=7, seed=0)


def test_exclusions_hold_in_both_directions_and_leave_identities_alone():
    ids, vectors, _ = simulate_embeddings(200, 200, 25, dim=256, seed=9)
    config = BuildConfig(test=20, val=0, min_references=1)
    before = build_reference_set(ids, vectors, config)
    rows = before.references[before.references["split"] == "test"]
    target, reference = rows.iloc[0][["target_id", "reference_id"]]
    gone = rows.iloc[-1]["target_id"]
    after = build_reference_set(
        ids, vectors, config, exclusions=Exclusions.of(pairs=[(reference, target)], targets=[gone])
    )
    listed = set(zip(after.references["target_id"], after.references["reference_id"], strict=True))
    assert (target, reference) not in listed
    assert (reference, target) not in listed
    assert gone not in set(after.references["target_id"])
    assert gone in set(after.references["reference_id"]), "an excluded target may still be a reference"
    assert after.identities.equals(before.identities)


def test_age_gap_is_reference_minus_target():
    ids, vectors, _ = simulate_embeddings(50, 50, 10, dim=256, seed=10)
    ages = {name: 20.0 + i for i, name in enumerate(ids[:-1])}
    references = build_reference_set(ids, vectors, BuildConfig(test=0, val=0), ages=ages).references
    for target, reference, gap in zip(*(references[c] for c in ("target_id", "reference_id", "age_gap")), strict=True):
        if ids[-1] in (target, reference):
            assert np.isnan(gap)
        else:
            assert gap == ages[reference] - ages[target]
    assert references["age_gap"].isna().any()


def test_known_identities_give_references_at_any_distance():
    ids, vectors, person = simulate_embeddings(120, 100, 12, dim=64, seed=11)
    counts = pd.Series(person).value_counts()
    who = pd.array([int(p) if counts[p] > 1 else pd.NA for p in person], dtype="Int32")
    identities = pd.DataFrame({"image_id": ids, "identity_id": who})
    embeddings = Embeddings.checked(ids, vectors)
    pairs = identity_pairs(embeddings, identities)
    assert len(pairs) == (counts * (counts - 1) // 2).sum()
    assert (pairs["image_a"] < pairs["image_b"]).all()
    chosen = candidates(embeddings, pairs, identities, max_distance=2.0)
    assert len(chosen) == 2 * len(pairs)
    assert chosen["distance"].max() > 0.4
    capped = order_references(embeddings, chosen, max_references=3)
    assert capped.groupby("target_id").size().max() == 3


def test_the_shared_matrix_and_the_one_a_target_agree(monkeypatch):
    ids, vectors, _ = simulate_embeddings(150, 150, 5, dim=64, near_duplicates=0.3, seed=12)
    config = BuildConfig(test=0, val=0)
    expected = build_reference_set(ids, vectors, config).references
    monkeypatch.setattr("ffhqref.reference_sets.references._MATRIX_LIMIT", 3)
    assert build_reference_set(ids, vectors, config).references.equals(expected)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_distance": 5}, "max_distance"),
        ({"min_distance": 0.4}, "leaves no reference"),
        ({"grouping": "single"}, "grouping=single: expected components, average, "),
        ({"grouping_threshold": -1}, "grouping_threshold"),
        ({"min_references": 0}, "min_references"),
        ({"max_references": 1}, "max_references=1 is below"),
        ({"train_max_references": 0}, "train_max_references=0"),
        ({"max_dist": 0.4}, "unknown key 'max_dist'. Did you mean 'max_distance'"),
        ({"max_distance": "x"}, "max_distance=x: expected a number from 0 to 2"),
        ({"min_references": "x"}, "min_references=x: expected a whole number of at least 1$"),
        ({"min_references": None}, "min_references=null: expected a whole number"),
        ({"max_references": "x"}, "max_references=x: expected a whole number of at least 1 or null"),
        ({"train_max_references": 2.5}, "train_max_references=2.5: expected a whole number of at least 1 or null"),
        ({"test": "abc"}, "test=abc: expected a number of at least 0"),
        ({"test": True}, "test=true: expected a number"),
        ({"val": 1.5}, "val=1.5: expected a number of identities"),
        ({"val": -1}, "val=-1: expected a number of at least 0"),
        ({"seed": "x"}, "seed=x: expected a whole number"),
        ({"block": 0}, "block=0: expected a whole number of at least 1"),
        ({"grouping": ["a"]}, r"grouping=\['a'\]: expected components"),
    ],
)
def test_a_wrong_config_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        read_options(BuildConfig, values)


def test_the_defaults_are_the_published_ones():
    config = BuildConfig()
    assert (config.max_distance, config.min_distance, config.grouping) == (0.4, 0.1, "components")
    assert (config.test, config.val, config.min_references, config.max_references) == (150, 300, 2, 9)


def test_no_images_and_nobody_twice_give_empty_tables():
    for ids, vectors in (([], np.zeros((0, 4))), (["a", "b"], np.eye(2))):
        built = build_reference_set(ids, vectors, BuildConfig(test=0, val=0))
        assert len(built.identities) == len(ids)
        assert not len(built.pairs)
        assert not len(built.references)
        assert not len(built.audit)
        for name in ("pairs", "identities", "references"):
            to_arrow(name, getattr(built, name))


@pytest.mark.parametrize("grouping", ["components", "average", "complete"])
def test_near_images_in_two_splits_are_told(grouping):
    ids, vectors, _ = simulate_embeddings(600, 420, 60, dim=64, seed=5)
    config = BuildConfig(test=10, val=5, grouping=grouping, grouping_threshold=0.3, min_references=1)
    built = build_reference_set(ids, vectors, config)
    split = dict(zip(built.identities["image_id"], built.identities["split"], strict=True))
    cosine = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    near = [(a, b) for a, b in zip(*np.where(np.triu(1 - cosine < config.max_distance, 1)), strict=True)]
    across = sum(split[ids[a]] != split[ids[b]] for a, b in near)
    lines = describe_neighbours(built, config.max_distance)
    assert across > 0 or grouping == "components"
    assert [line.partition(",")[0] for line in lines] == [
        f"{across} pairs of images nearer than 0.4 lie in different splits"
    ] * (across > 0)
    whole = BuildConfig(test=10, val=5, min_references=1)  # one threshold: nothing near is apart
    assert describe_neighbours(build_reference_set(ids, vectors, whole), whole.max_distance) == []


@given(worlds(), st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_known_people_are_the_identities_whatever_the_network_says(world, seed):
    ids, vectors, config = world
    rng = np.random.default_rng(seed)
    people = {name: f"p{rng.integers(len(ids) // 4)}" for name in ids if rng.random() < 0.9}
    config = config.model_copy(update={"identity": "truth", "test": 1, "val": 1, "min_references": 1})
    built = build_reference_set(ids, vectors, config, people=people)
    number = dict(zip(built.identities["image_id"], built.identities["identity_id"], strict=True))
    split = dict(zip(built.identities["image_id"], built.identities["split"], strict=True))
    place = {name: row for row, name in enumerate(ids)}
    distance = cdist(vectors, vectors, "cosine")
    found = {(row.target_id, row.reference_id) for row in built.references.itertuples()}
    for a in ids:
        for b in ids:
            one = a != b and a in people and people[a] == people.get(b)
            assert not one or number[a] == number[b]
            far = distance[place[a], place[b]] - config.min_distance
            if abs(far) < 1e-6 or config.max_references is not None:
                continue
            assert ((a, b) in found) == (one and (split[a] == "train" or far > 0))
    limits = Limits(config.max_distance, config.min_distance, 1, config.max_references, known_people=True)
    known = Evidence(embeddings=Embeddings.checked(ids, vectors))
    assert validate_reference_set(built.identities, built.references, limits, known).empty

    differing = disagreements(built.pairs, people, config.max_distance)
    expected = {
        (a, b)
        for a in ids
        for b in ids
        if a < b and (a in people or b in people)
        if (people.get(a) == people.get(b)) != (distance[place[a], place[b]] < config.max_distance)
    }
    assert set(zip(differing["image_a"], differing["image_b"], strict=True)) == expected


def test_truth_without_people_is_refused():
    with pytest.raises(ConfigError, match=r"build.identity=truth: the data set tells nobody"):
        build_reference_set(["a", "b"], np.eye(2), BuildConfig(identity="truth", test=0, val=0))
