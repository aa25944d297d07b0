"""Pairs against exact rational arithmetic and SciPy."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.reference_sets import pairs as pairs_module
from ffhqref.reference_sets.pairs import find_pairs
from ffhqref.reference_sets.simulate import simulate_embeddings
from ffhqref.reference_sets.vectors import Embeddings


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def names(n):
    return [f"{i:05d}" for i in range(n)]


def as_set(frame):
    return set(zip(frame["image_a"], frame["image_b"], strict=True))


def is_pair_exactly(a, b, threshold):
    """1 - a.b/|a||b| < threshold, decided in rational arithmetic on the float32 values."""
    a, b = ([Fraction(float(x)) for x in row] for row in (a, b))
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    need = 1 - Fraction(threshold)
    squares = sum(x * x for x in a) * sum(y * y for y in b)
    left, right = dot * abs(dot), need * abs(need) * squares
    return left > right


@given(
    st.integers(2, 40), st.integers(1, 24), st.floats(0.01, 1.9), st.integers(0, 10**6), st.integers(1, 17),
    st.sampled_from(["float32", "bfloat16"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_equals_rational_brute_force(n, dim, threshold, seed, block, precision):
    vectors = unit(np.random.default_rng(seed).standard_normal((n, dim)) + 0.7)
    ids = names(n)
    expected = {
        (ids[i], ids[j])
        for i in range(n)
        for j in range(i + 1, n)
        if is_pair_exactly(vectors[i], vectors[j], threshold)
    }
    assert as_set(find_pairs(ids, vectors, threshold, block=block, precision=precision)) == expected


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_planted_ties_around_the_threshold(precision):
    """Pairs whose distance is the threshold give or take a few 1e-8, each in its own plane of a big set."""
    rng = np.random.default_rng(3)
    base, _ = np.linalg.qr(rng.standard_normal((256, 256)))
    vectors, offsets = [], np.arange(-40, 41) * 1e-8
    for k, offset in enumerate(offsets):
        cosine = 1.0 - (0.4 + offset)
        vectors += [base[2 * k], cosine * base[2 * k] + np.sqrt(1 - cosine**2) * base[2 * k + 1]]
    vectors = unit(vectors)
    ids = names(len(vectors))
    expected = {
        (ids[2 * k], ids[2 * k + 1])
        for k in range(len(offsets))
        if is_pair_exactly(vectors[2 * k], vectors[2 * k + 1], 0.4)
    }
    assert 10 < len(expected) < 71, "the planted pairs must straddle the threshold"
    found = find_pairs(ids, vectors, 0.4, block=32, precision=precision)
    assert as_set(found) == expected
    assert (found["distance"].to_numpy() < 0.4).all()
    assert (found["distance"].to_numpy(np.float64) < 0.4).all()


def test_distance_equal_to_the_threshold_is_no_pair():
    vectors = np.array([[1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]], np.float32)  # distance exactly 0.5 in binary
    assert len(find_pairs(["a", "b"], vectors, 0.5)) == 0
    assert len(find_pairs(["a", "b"], vectors, float(np.nextafter(0.5, 1)))) == 1


def test_distances_agree_with_scipy():
    ids, vectors, _ = simulate_embeddings(300, 200, 60, dim=64, seed=1)
    found = find_pairs(ids, vectors, 0.5)
    full = cdist(vectors.astype(np.float64), vectors.astype(np.float64), "cosine")
    index = {name: i for i, name in enumerate(ids)}
    expected = [full[index[a], index[b]] for a, b in zip(found["image_a"], found["image_b"], strict=True)]
    np.testing.assert_allclose(found["distance"], expected, atol=1e-7)
    assert len(found) == (full[np.triu_indices(300, 1)] < 0.5).sum()


def test_same_bytes_for_every_block_thread_number_precision_and_order():
    ids, vectors, _ = simulate_embeddings(700, 500, 150, dim=96, seed=2)
    first = find_pairs(ids, vectors, 0.4)
    assert len(first) > 300
    shuffled = np.random.default_rng(0).permutation(len(ids))
    before = torch.get_num_threads()
    try:
        for block, threads, precision in [
            (17, 1, "float32"),
            (64, 2, "bfloat16"),
            (333, 1, "auto"),
            (5000, 2, "float32"),
        ]:
            torch.set_num_threads(threads)
            again = find_pairs([ids[i] for i in shuffled], vectors[shuffled], 0.4, block=block, precision=precision)
            assert again.equals(first)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_a_cuda_device_finds_the_pairs_of_the_cpu(cuda, precision):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(90, 32)) + rng.normal(size=(6, 32))[rng.integers(0, 6, 90)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"{index:03d}" for index in range(90)]
    expected = find_pairs(ids, vectors, 0.4, block=32)
    assert len(expected) > 50
    found = find_pairs(ids, vectors, 0.4, block=32, device=cuda, precision=precision)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize("users_choice", [True, False])
def test_products_are_summed_in_float32_whatever_cublas_may_do_elsewhere(monkeypatch, users_choice):
    flags, product, seen = torch.backends.cuda.matmul, torch.mm, []

    def watched(*args, **kwargs):
        seen.append(flags.allow_bf16_reduced_precision_reduction)
        return product(*args, **kwargs)

    monkeypatch.setattr(torch, "mm", watched)
    before = flags.allow_bf16_reduced_precision_reduction
    try:
        flags.allow_bf16_reduced_precision_reduction = users_choice
        find_pairs(names(40), unit(np.random.default_rng(0).standard_normal((40, 16))), 0.4, precision="bfloat16")
        assert flags.allow_bf16_reduced_precision_reduction == users_choice
    finally:
        flags.allow_bf16_reduced_precision_reduction = before
    assert seen == [False]


def test_identical_vectors_are_at_distance_zero():
    vectors = unit(np.random.default_rng(0).standard_normal((1, 512)).repeat(4, axis=0))
    found = find_pairs(names(4), vectors, 1e-6)
    assert len(found) == 6
    assert (found["distance"] >= 0).all()
    assert (found["distance"] < 1e-6).all()


def test_ids_are_ordered_as_text():
    vectors = unit([[1, 0.1], [1, 0], [1, -0.1]])
    found = find_pairs(["b", "É", "B"], vectors, 0.4)
    assert list(zip(found["image_a"], found["image_b"], strict=True)) == [("B", "b"), ("B", "É"), ("b", "É")]
    assert list(found.columns) == ["image_a", "image_b", "distance"]
    assert found["distance"].dtype == np.float32


@pytest.mark.parametrize("n", [0, 1])
def test_few_images_have_no_pairs(n):
    assert len(find_pairs(names(n), np.ones((n, 1), np.float32), 0.4)) == 0


def test_the_progress_ends_at_the_number_of_tiles():
    seen = []
    ids, vectors, _ = simulate_embeddings(100, 0, 0, dim=8)
    find_pairs(ids, vectors, 0.1, block=30, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k, 10) for k in range(1, 11)]


def bad(change):
    vectors = unit(np.random.default_rng(0).standard_normal((5, 8)))
    change(vectors)
    return vectors


@pytest.mark.parametrize(
    ("ids", "vectors", "words"),
    [
        (["a", "b", "a", "c", "d"], bad(lambda v: None), "'a' occurs more than once"),
        (["a", "b", "c", "d", ""], bad(lambda v: None), "non-empty string"),
        (["a", "b", "c", "d", None], bad(lambda v: None), "non-empty string"),
        (["a", "b", "c", "d", 7], bad(lambda v: None), "non-empty string"),
        (["a", "b", "c", "d"], bad(lambda v: None), "4 image ids need vectors"),
        (list("abcde"), bad(lambda v: v.__setitem__((2, 3), np.nan)), "'c' holds NaN"),
        (list("abcde"), bad(lambda v: v.__setitem__((2, 3), np.inf)), "'c' holds NaN"),
        (list("abcde"), bad(lambda v: v.__setitem__(3, 0)), "'d' is zero"),
        (list("abcde"), bad(lambda v: v.__imul__(2)), "length 2, expected 1"),
        (list("abcde"), bad(lambda v: None)[0], "need vectors"),
    ],
)
def test_bad_embeddings_are_named(ids, vectors, words):
    with pytest.raises(DatasetError, match=words):
        find_pairs(ids, vectors, 0.4)


@pytest.mark.parametrize("threshold", [-0.1, 2.1, float("nan"), True, "0.4", None])
def test_a_threshold_that_is_no_distance_is_refused(threshold):
    with pytest.raises(ConfigError, match="cosine distance"):
        find_pairs(names(2), unit([[1, 0], [0, 1]]), threshold)


def test_other_wrong_arguments():
    vectors = unit([[1, 0], [0, 1]])
    with pytest.raises(ConfigError, match="precision"):
        find_pairs(names(2), vectors, 0.4, precision="half")
    with pytest.raises(ConfigError, match="block"):
        find_pairs(names(2), vectors, 0.4, block=0)


def test_a_threshold_that_takes_everything_is_refused_instead_of_filling_the_memory(monkeypatch):
    monkeypatch.setattr(pairs_module, "MAX_PAIRS", 1000)
    ids, vectors, _ = simulate_embeddings(100, 0, 0, dim=8)
    with pytest.raises(DatasetError, match="threshold is too large"):
        find_pairs(ids, vectors, 1.9)


def test_an_image_without_embedding_is_named():
    embeddings = Embeddings.checked(["b", "a"], unit([[1, 0], [0, 1]]))
    assert list(embeddings.image_ids) == ["a", "b"]
    with pytest.raises(DatasetError, match="'c' has no embedding"):
        embeddings.positions(["a", "c"])


@pytest.mark.slow
def test_published_scale_rows_equal_brute_force():
    """70,000 x 512: every pair of 200 random rows, against one float64 matrix product."""
    ids, vectors, _ = simulate_embeddings()
    found = find_pairs(ids, vectors, 0.4)
    rows = np.random.default_rng(5).choice(len(ids), 200, replace=False)
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    distance = 1.0 - wide[rows] @ wide.T
    assert np.abs(distance - 0.4).min() > 1e-12, "no tie that the order of summation could decide"
    expected = {
        tuple(sorted((ids[rows[i]], ids[j]))) for i, j in zip(*np.nonzero(distance < 0.4), strict=True) if rows[i] != j
    }
    chosen = {ids[i] for i in rows}
    of_rows = {pair for pair in as_set(found) if pair[0] in chosen or pair[1] in chosen}
    assert of_rows == expected
    assert len(expected) > 50
