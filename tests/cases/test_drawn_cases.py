"""Benchmarks whose people, targets and references are drawn: FaceMe's CelebRef-HQ test."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest

from ffhqref.cases.benchmark import Benchmark
from ffhqref.cases.cases import draw_people, draw_references
from ffhqref.core.errors import ConfigError, DatasetError


def tables(people: int, pictures: int = 8) -> tuple[pd.DataFrame, pd.DataFrame]:
    names = {person: [f"{person:03d}_{k}" for k in range(pictures)] for person in range(people)}
    identities = pd.DataFrame(
        [{"image_id": name, "identity_id": person} for person, mine in names.items() for name in mine]
    )
    references = pd.DataFrame(
        [
            {"target_id": target, "reference_id": other, "rank": rank, "split": "test"}
            for mine in names.values()
            for target in mine
            for rank, other in enumerate(name for name in mine if name != target)
        ]
    )
    return references, identities


def test_one_target_each_of_that_many_people():
    references, identities = tables(30)
    person = dict(zip(identities["image_id"], identities["identity_id"], strict=True))
    drawn = draw_people(references, identities, "test", 12, 2024)
    assert len(drawn) == 12
    assert len({person[target] for target in drawn}) == 12
    assert drawn == draw_people(references.sample(frac=1, random_state=3), identities, "test", 12, 2024)
    assert drawn != draw_people(references, identities, "test", 12, 2025)
    # Everybody comes in sooner or later, with any of the images.
    often = Counter(target for seed in range(200) for target in draw_people(references, identities, "test", 12, seed))
    assert {person[target] for target in often} == set(range(30))
    assert len(often) > 200
    # Who else is in the split does not change a person's target.
    fewer = references[references["target_id"].map(person) < 20]
    both = set(draw_people(references, identities, "test", 30, 1)) & set(fewer["target_id"])
    assert both == set(draw_people(fewer, identities, "test", 20, 1))
    with pytest.raises(DatasetError, match="30 with a target"):
        draw_people(references, identities, "test", 31, 1)


def test_number_and_choice_of_references_are_uniform():
    references, _ = tables(60)
    drawn = draw_references(references, (1, 4), 7)
    pd.testing.assert_frame_equal(drawn, draw_references(references.sample(frac=1, random_state=1), (1, 4), 7))
    sizes = drawn.groupby("target_id").size()
    assert len(sizes) == 480
    counts = Counter(sizes)
    assert sorted(counts) == [1, 2, 3, 4]
    assert all(abs(count - 120) < 4 * (480 * 0.25 * 0.75) ** 0.5 for count in counts.values())
    assert (drawn["reference_id"] != drawn["target_id"]).all()
    assert not drawn.duplicated(["target_id", "reference_id"]).any()
    assert all(list(group["rank"]) == list(range(len(group))) for _, group in drawn.groupby("target_id"))
    before = references.set_index(["target_id", "reference_id"])["rank"]
    ranks = Counter(before[key] for key in zip(drawn["target_id"], drawn["reference_id"], strict=True))
    assert len(ranks) == 7  # not only the nearest ones
    assert max(ranks.values()) < 1.5 * min(ranks.values())
    few = draw_references(references[references["rank"] < 2], (3, 4), 7)
    assert set(few.groupby("target_id").size()) == {2}  # all there are


@pytest.mark.parametrize(
    "wrong", [{"people": 0}, {"people": 1.5}, {"reference_counts": [4, 1]}, {"reference_counts": [0, 4]},
              {"reference_counts": [1]}, {"people": 3, "split": None, "degradation": None, "lq_folder": "."}]
)  # fmt: skip
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Benchmark.of("x", {"degradation": "faceme", "split": "test", **wrong})
    assert Benchmark.of("x", {"degradation": "faceme", "split": "test", "reference_counts": [1, 4]}).people is None
