"""What a user is told of a reference set: numbers that are counted by hand here."""

import numpy as np
import pandas as pd
import pytest

from ffhqref.reference_sets.build import ReferenceSet, build_reference_set
from ffhqref.reference_sets.options import BuildConfig
from ffhqref.reference_sets.release import imported, make_release
from ffhqref.reference_sets.simulate import simulate_embeddings
from ffhqref.reference_sets.summary import describe_differences, describe_images, describe_set
from ffhqref.reference_sets.vectors import Embeddings


def made(references, audit=(False, False)):
    identities = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "identity_id": pd.array([0, 0, 0, 1, 1, None], dtype="Int32"),
            "size": [3, 3, 3, 2, 2, 1],
            "split": ["test", "test", "test", "train", "train", None],
        }
    )
    references = pd.DataFrame(references, columns=["target_id", "reference_id", "rank", "split"])
    audit = pd.DataFrame({"identity_id": [0, 1], "suspicious": list(audit), "gap": [0.071, 0.02]})
    return ReferenceSet(pd.DataFrame(), identities, references, audit)


REFERENCES = [("a", "b", 0, "test"), ("a", "c", 1, "test"), ("b", "a", 0, "test"), ("d", "e", 0, "train")]


def test_splits_are_counted():
    assert describe_set(made(REFERENCES)) == [
        "train: 2 images of 1 identities, 1 targets with 1 references",
        "  val: 0 images of 0 identities, 0 targets with 0 references",
        " test: 3 images of 1 identities, 2 targets with 3 references",
        "  all: 5 images of 2 identities, 3 targets with 4 references",
    ]


def test_suspicion_and_agreement_are_told_where_there_is_something_to_tell():
    suspicious = made(REFERENCES, audit=(True, False))
    told = (
        "audit: 1 of 2 identities fall into two sides that are on average farther apart (up to 0.071) than "
        "the threshold of a reference: one varied person, or two merged; "
    )
    assert describe_set(suspicious)[4] == told + "look at the worst with `ffhqref audit`"
    one = dict.fromkeys("abc", "P") | dict.fromkeys("de", "R")
    assert describe_set(suspicious, one)[4] == told + "by the known people 0 of them are two"
    lines = describe_set(suspicious, {"a": "P", "b": "P", "c": "Q", "d": "R", "e": "R"})
    assert lines[4] == told + "by the known people 1 of them are two"
    # put together: ab, ac, bc, de; that belong together: ab, de
    assert lines[5] == "agreement with the true identities: pairwise F1 0.667, precision 0.500, recall 1.000"
    assert len(lines) == 6


@pytest.mark.parametrize(("broken", "named", "more"), [(0, 0, None), (5, 5, None), (7, 5, 2)])
def test_at_most_five_pictures_are_named(broken, named, more):
    errors = ["not an image"] * broken + [None] * 3
    paths = [f"{number}.png" for number in range(len(errors))]
    images = pd.DataFrame({"path": paths, "width": 512, "error": errors})
    lines = describe_images(images)
    assert lines[:named] == [f"left out: {number}.png: not an image" for number in range(named)]
    assert lines[named:] == ([f"left out: {more} more, see the column error of tables/images.parquet"] if more else [])


def test_a_release_takes_the_place_of_what_was_built():
    ids, vectors, _ = simulate_embeddings(300, 160, 40, dim=64, seed=5)
    built = build_reference_set(ids, vectors, BuildConfig(test=5, val=5))
    embeddings = Embeddings.checked(ids, vectors)
    target = built.references.loc[built.references["split"] == "test", "target_id"].iloc[0]
    known = built.references[built.references["target_id"] != target]
    release = make_release(built.identities[built.identities["identity_id"].notna()], known)
    theirs, differences = imported(release, built, embeddings, dict.fromkeys(ids, 30.0))
    assert theirs.identities["image_id"].tolist() == sorted(ids), "every image, listed or not"
    assert theirs.pairs is built.pairs
    assert theirs.audit.empty
    assert np.allclose(theirs.references["age_gap"], 0)
    assert differences[["kind", "target_id", "ours"]].values.tolist() == [["target", target, "test"]]
    (line,) = [
        line for line in describe_differences(built.references, theirs.references, differences) if "test" in line
    ]
    count = known.loc[known["split"] == "test", "target_id"].nunique()
    assert line == (
        f"release, test: {count} targets; of our builder's from the same embeddings {count} have the same references, "
        "0 in another order, 0 others, 0 another split; 0 are no targets there, 1 only there"
    )
