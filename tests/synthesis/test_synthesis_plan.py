"""The plan of poses: deterministic, every bucket once, never the own image or person."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffhqref.core.errors import ConfigError
from ffhqref.core.options import read_options
from ffhqref.store import tables
from ffhqref.synthesis.options import SynthesisOptions
from ffhqref.synthesis.plan import make_buckets, make_plan
from ffhqref.synthesis.vectors import PoseVectors, read_vectors


@st.composite
def pools(draw):
    count = draw(st.integers(1, 40))
    clusters = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    names = [f"{n:05d}" for n in range(count)]
    buckets = pd.DataFrame(
        {
            "image_id": names,
            "pose_bucket": draw(st.lists(st.integers(0, clusters[0] - 1), min_size=count, max_size=count)),
            "expression_bucket": draw(st.lists(st.integers(0, clusters[1] - 1), min_size=count, max_size=count)),
        }
    )
    people = {name: draw(st.integers(0, 5)) for name in names if draw(st.booleans())}
    targets = draw(st.lists(st.sampled_from([*names, "outside"]), min_size=1, max_size=8, unique=True))
    return buckets, clusters, people, targets


@settings(max_examples=60, deadline=None)
@given(pools(), st.integers(1, 4), st.integers(0, 2**31))
def test_every_bucket_once_and_never_the_own_person(pool, tries, seed):
    buckets, clusters, people, targets = pool
    plan = make_plan(targets, buckets, people, clusters, tries=tries, seed=seed)
    first = plan[plan["attempt"] == 0]
    every = {(target, i, j) for target in targets for i in range(clusters[0]) for j in range(clusters[1])}
    found = list(zip(first["target_id"], first["pose_bucket"], first["expression_bucket"], strict=True))
    assert len(found) == len(set(found))
    assert set(found) == every
    place = {row.image_id: (row.pose_bucket, row.expression_bucket) for row in buckets.itertuples()}
    for (target, i, j), part in plan.groupby(["target_id", "pose_bucket", "expression_bucket"]):
        others = {
            name
            for name, bucket in place.items()
            if bucket == (i, j)
            and name != target
            and not (name in people and target in people and people[name] == people[target])
        }
        poses = part.sort_values("attempt")["pose_id"].tolist()
        if not others:
            assert len(poses) == 1
            assert part["pose_id"].isna().all()
            assert "another person" in part["error"].iloc[0]
            continue
        assert sorted(part["attempt"]) == list(range(tries))
        assert set(poses) <= others
        assert len(set(poses)) == min(tries, len(others)), "another pose each time while there are any"
        assert part["error"].isna().all()
    assert plan["seed"].is_unique
    tables.to_arrow("synthesis_plan", plan)


@settings(max_examples=20, deadline=None)
@given(pools(), st.integers(0, 2**31))
def test_a_target_s_plan_depends_on_nothing_but_itself_its_pool_and_the_seed(pool, seed):
    buckets, clusters, people, targets = pool
    plan = make_plan(targets, buckets, people, clusters, tries=3, seed=seed)

    def same(one, other):  # as tables: an all-empty column has no type in a frame
        return tables.to_arrow("synthesis_plan", one).equals(tables.to_arrow("synthesis_plan", other))

    shuffled = buckets.sample(frac=1.0, random_state=seed % 1000)
    assert same(plan, make_plan(targets[::-1], shuffled, people, clusters, tries=3, seed=seed))
    alone = make_plan(targets[:1], buckets, people, clusters, tries=3, seed=seed)
    assert same(alone, plan[plan["target_id"] == targets[0]])
    fewer = make_plan(targets, buckets, people, clusters, tries=1, seed=seed)
    assert same(fewer, plan[plan["attempt"] == 0])
    assert not same(plan, plan.assign(seed=plan["seed"] + 1))


def test_another_seed_is_another_plan_and_every_pose_is_as_likely():
    names = [f"{n:05d}" for n in range(11)]
    buckets = pd.DataFrame({"image_id": names, "pose_bucket": 0, "expression_bucket": 0})
    targets = [f"t{n}" for n in range(4000)]
    people = dict.fromkeys([*targets, "00004"], "one")
    plan = make_plan(targets, buckets, people, (1, 1), tries=2, seed=1)
    for attempt in (0, 1):
        counts = plan.loc[plan["attempt"] == attempt, "pose_id"].value_counts()
        assert set(counts.index) == set(names) - {"00004"}
        assert counts.min() > 400 - 5 * 19, counts  # five standard deviations of a binomial of 4000 and 1/10
        assert counts.max() < 400 + 5 * 19, counts
    other = make_plan(targets, buckets, people, (1, 1), tries=2, seed=2)
    assert 0.05 < (plan["pose_id"] == other["pose_id"]).mean() < 0.15
    assert not set(plan["seed"]) & set(other["seed"])


@pytest.mark.parametrize("wrong", [[3], [3, 11], [0, 3], "3x3", None, [2.0, 2], [True, 2]])
def test_clusters_that_the_folder_names_cannot_hold_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"synthesis\.clusters"):
        read_options(SynthesisOptions, {"clusters": wrong}, "synthesis")
    assert read_options(SynthesisOptions, {"clusters": [10, 1]}, "synthesis").clusters == (10, 1)


def random_vectors(count, seed=0):
    draw = np.random.default_rng(seed)
    names = [f"{n:05d}" for n in range(count)]
    pose, smile = draw.normal(0, 10, (count, 2)), draw.random((count, 1))
    return PoseVectors.of({name: (p, s) for name, p, s in zip(names, pose, smile, strict=True)}, "test")


def test_buckets_are_k_means_and_numbered_from_left_to_right():
    vectors = random_vectors(600)
    buckets = make_buckets(vectors, (3, 3), 2024)
    pose, smile = buckets["pose_bucket"].to_numpy(), buckets["expression_bucket"].to_numpy()
    centres = np.stack([vectors.pose[pose == k].mean(axis=0) for k in range(3)])
    assert (np.diff(centres[:, 0]) > 0).all()
    nearest = np.linalg.norm(vectors.pose[:, None] - centres[None], axis=-1).argmin(axis=1)
    assert (nearest == pose).all(), "a fixed point of Lloyd's iteration"
    for k in range(3):
        inside = vectors.expression[pose == k, 0]
        parts = [inside[smile[pose == k] == j] for j in range(3)]
        assert all(len(part) for part in parts)
        assert parts[0].max() < parts[1].min() <= parts[1].max() < parts[2].min(), "in one dimension, intervals"


def test_buckets_depend_neither_on_order_nor_on_chance():
    vectors = random_vectors(300)
    items = list(zip(vectors.image_ids, vectors.pose, vectors.expression, strict=True))
    backwards = PoseVectors.of({name: (p, s) for name, p, s in items[::-1]}, "test")
    first = make_buckets(vectors, (3, 2), 7)
    pd.testing.assert_frame_equal(first, make_buckets(backwards, (3, 2), 7))


def test_fewer_expressions_than_clusters_leave_buckets_empty_and_the_plan_says_so():
    names = [f"{n:05d}" for n in range(30)]
    vectors = PoseVectors.of({name: ([float(k % 3), 0.0], [0.0]) for k, name in enumerate(names)}, "test")
    buckets = make_buckets(vectors, (3, 3), 1)
    assert set(buckets["expression_bucket"]) == {0}
    plan = make_plan(names[:1], buckets, {}, (3, 3), tries=2, seed=1)
    empty = plan[plan["expression_bucket"] > 0]
    assert len(empty) == 6
    assert empty["pose_id"].isna().all()
    with pytest.raises(ConfigError, match="only 3 different poses"):
        make_buckets(vectors, (4, 1), 1)


def test_ffhq_features_give_nine_full_buckets(shared):
    """All of FFHQ: 3 x 3 clusters of head pose and smile, and a plan for some."""
    path = shared / "ffhq" / "ffhq_features.csv.gz"
    frame = pd.read_csv(io.BytesIO(gzip.decompress(path.read_bytes())), dtype={"ffhq_id": str})
    vectors = read_vectors(path, set(frame["ffhq_id"]), ["yaw", "pitch", "roll"], ["smile"])
    complete = frame.dropna(subset=["yaw", "pitch", "roll", "smile"])
    assert list(vectors.image_ids) == sorted(complete["ffhq_id"])
    expected = complete.set_index("ffhq_id").loc[list(vectors.image_ids)]
    assert np.array_equal(vectors.pose, expected[["yaw", "pitch", "roll"]].to_numpy())
    buckets = make_buckets(vectors, (3, 3), 2024)
    sizes = buckets.groupby(["pose_bucket", "expression_bucket"]).size()
    assert len(sizes) == 9
    assert sizes.min() > 1000
    plan = make_plan(vectors.image_ids[:50], buckets, {}, (3, 3), tries=3, seed=2024)
    assert len(plan) == 50 * 27
    assert (plan["pose_id"] != plan["target_id"]).all()
