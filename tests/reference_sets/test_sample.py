"""The builder on the embedded sample: identities found by dlib's network against the truth, which it never reads."""

import csv

import numpy as np
import pytest

from ffhqref.core.images import read_rgb
from ffhqref.faces import embed, make_embedder
from ffhqref.reference_sets.agreement import agreement
from ffhqref.reference_sets.build import build_reference_set
from ffhqref.reference_sets.options import BuildConfig


@pytest.fixture(scope="module")
def sample(sample_folder):
    pytest.importorskip("dlib")
    with (sample_folder / "metadata.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    embedder = make_embedder("dlib")
    vectors = np.concatenate([embed(read_rgb(sample_folder / row["file"])[None], embedder) for row in rows])
    return rows, [row["file"][:-4] for row in rows], vectors


@pytest.mark.parametrize(
    ("method", "threshold", "least"), [("average", 0.07, 0.97), ("components", 0.047, 0.97), ("hdbscan", 0.055, 0.97)]
)
def test_identities_of_the_sample(sample, method, threshold, least):
    rows, ids, vectors = sample
    config = BuildConfig(
        max_distance=0.08,
        min_distance=0.005,
        grouping=method,
        grouping_threshold=threshold,
        test=6,
        val=3,
        min_references=1,
    )
    built = build_reference_set(ids, vectors, config)
    truth = {row["file"][:-4]: row["identity"] for row in rows}
    assert agreement(built.identities, truth).f1 >= least
    found = built.identities.set_index("image_id")["identity_id"]
    assert all(found.isna()[row["file"][:-4]] for row in rows if row["kind"] == "singleton")
    copies = {frozenset((row["file"][:-4], row["copy_of"][:-4])) for row in rows if row["copy_of"]}
    strict = built.references[built.references["split"] != "train"]
    listed = {frozenset(pair) for pair in zip(strict["target_id"], strict["reference_id"], strict=True)}
    assert len(strict) > 50
    assert not copies & listed
    known = built.identities.dropna(subset="identity_id")
    assert (known.groupby("identity_id")["split"].nunique() == 1).all()
