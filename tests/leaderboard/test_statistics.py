"""Intervals, tests and rank intervals against simulation, enumeration and closed forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ffhqref.leaderboard.statistics import (
    cluster_sums,
    max_t_p_values,
    mean_interval,
    naive_interval,
    paired_tests,
    proportion_interval,
    rank_intervals,
)


def people(rng, n_identities, most=9):
    return np.repeat(np.arange(n_identities), rng.integers(1, most + 1, n_identities))


def correlated(rng, identities, columns, share=0.5):
    """Standard normal values of which ``share`` of the variance belongs to the person."""
    person = rng.normal(size=(identities.max() + 1, columns))[identities] * np.sqrt(share)
    return person + rng.normal(size=(len(identities), columns)) * np.sqrt(1 - share)


SHAPES = {
    "normal": (lambda z: z, 0.0),
    "skewed": (lambda z: np.exp(0.7 * z), np.exp(0.245)),
    "cosine-like": (lambda z: 1 - np.exp(0.6 * z - 2), 1 - np.exp(0.18 - 2)),
}


@pytest.mark.parametrize("n_identities", [12, 24, 150])
@pytest.mark.parametrize("shape", SHAPES)
def test_interval_covers_the_mean_as_often_as_it_says(n_identities, shape):
    rng = np.random.default_rng(n_identities)
    transform, truth = SHAPES[shape]
    covered, naive, draws = 0, 0, 0
    for _ in range(8):  # the sizes of the identities are part of chance
        identities = people(rng, n_identities)
        values = transform(correlated(rng, identities, 400))
        found = mean_interval(values, identities, n_bootstrap=800)
        covered += int(((found.low <= truth) & (truth <= found.high)).sum())
        without = naive_interval(values, n_bootstrap=200)
        naive += int(((without.low <= truth) & (truth <= without.high)).sum())
        draws += 400
    assert 0.93 <= covered / draws <= 0.97
    assert naive / draws < 0.80, "the naive bootstrap is expected to fail: that is why it is not used"


@pytest.mark.parametrize("n_identities", [3, 4, 5, 6, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_few_people_give_wide_but_useful_intervals(n_identities, shape):
    rng = np.random.default_rng(n_identities)
    transform, truth = SHAPES[shape]
    covered, widths, draws = 0, [], 0
    for _ in range(40):
        identities = people(rng, n_identities)
        values = correlated(rng, identities, 150)
        found = mean_interval(transform(values), identities, n_bootstrap=500)
        covered += int(((found.low <= truth) & (truth <= found.high)).sum())
        if shape == "normal":
            widths.append(np.median(found.high - found.low))
        draws += 150
    assert 0.93 <= covered / draws <= 0.97
    # Not wider than twice Student's interval of as many independent people.
    exact = 2 * stats.t.ppf(0.975, n_identities - 1) * np.sqrt(0.7 / n_identities)
    assert not widths or np.median(widths) < 2 * exact


def test_mean_is_over_cases_and_missing_values_are_left_out():
    values = np.array([[1.0], [2.0], [np.nan], [9.0]])
    found = mean_interval(values, np.array([0, 0, 1, 1]))
    assert found.mean[0] == 4.0
    assert (found.n[0], found.n_identities[0]) == (3, 2)


def test_columns_do_not_depend_on_their_neighbours_or_on_case_order():
    rng = np.random.default_rng(1)
    identities = people(rng, 20)
    values = rng.normal(size=(len(identities), 3))
    values[identities == 4, 1] = np.nan  # another set of identities in one column
    together = mean_interval(values, identities, seed=3, n_bootstrap=300)
    order = rng.permutation(len(values))
    shuffled = mean_interval(values[order], identities[order], seed=3, n_bootstrap=300)
    for column in range(3):
        alone = mean_interval(values[:, [column]], identities, seed=3, n_bootstrap=300)
        assert alone.low[0] == pytest.approx(together.low[column], abs=1e-12)
        assert shuffled.low[column] == pytest.approx(together.low[column], abs=1e-9)


def test_what_cannot_be_known_is_nan_and_what_does_not_vary_is_a_point():
    one_person = mean_interval(np.array([[1.0], [3.0]]), np.zeros(2, int))
    assert one_person.mean[0] == 2.0
    assert np.isnan(one_person.low[0])
    nothing = mean_interval(np.full((3, 1), np.nan), np.arange(3))
    assert np.isnan(nothing.mean[0])
    assert nothing.n[0] == 0
    constant = mean_interval(np.full((6, 1), 0.1), np.arange(6))
    assert constant.low[0] == pytest.approx(0.1, abs=1e-12)
    assert constant.high[0] == pytest.approx(0.1, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-3, 1e4), shift=st.floats(-1e3, 1e3), seed=st.integers(0, 1000))
def test_interval_follows_a_change_of_unit(scale, shift, seed):
    rng = np.random.default_rng(seed)
    identities = people(rng, 10, most=4)
    values = rng.normal(size=(len(identities), 1))
    plain = mean_interval(values, identities, n_bootstrap=200)
    other = mean_interval(values * scale + shift, identities, n_bootstrap=200)
    assert other.low[0] == pytest.approx(plain.low[0] * scale + shift, rel=1e-6, abs=1e-6 * scale)
    assert other.high[0] == pytest.approx(plain.high[0] * scale + shift, rel=1e-6, abs=1e-6 * scale)


def test_cluster_sums_against_a_loop():
    rng = np.random.default_rng(2)
    identities = rng.permutation(people(rng, 7))
    values = rng.normal(size=(len(identities), 2))
    values[rng.random(values.shape) < 0.2] = np.nan
    sums, counts = cluster_sums(values, identities)
    for row, person in enumerate(np.unique(identities)):
        assert sums[row] == pytest.approx(np.nansum(values[identities == person], axis=0))
        assert counts[row].tolist() == (~np.isnan(values[identities == person])).sum(axis=0).tolist()


def test_p_values_equal_an_enumeration_of_all_signs():
    sums = np.random.default_rng(3).normal(0.5, 1, size=(7, 3))
    unit = sums / np.sqrt((sums**2).sum(axis=0))
    largest = np.array([np.abs(np.array(s) @ unit).max() for s in itertools.product([-1, 1], repeat=7)])
    expected = [(largest >= abs(unit[:, k].sum()) - 1e-9).mean() for k in range(3)]
    assert max_t_p_values(sums).tolist() == pytest.approx(expected)


def test_p_values_of_one_pair_are_those_of_scipys_sign_flips():
    difference = np.random.default_rng(4).normal(0.4, 1, 40)
    expected = stats.permutation_test(
        (difference,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", n_resamples=20000, rng=0
    ).pvalue
    assert max_t_p_values(difference[:, None], n_flips=20000)[0] == pytest.approx(expected, abs=0.01)


def test_five_people_cannot_decide():
    assert max_t_p_values(np.ones((5, 1)))[0] == 2.0**-4


@pytest.mark.parametrize("n_identities", [8, 30])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_false_positives_under_no_difference(n_identities, shape):
    rng = np.random.default_rng(5)
    transform, _ = SHAPES[shape]
    wrong, rounds = 0, 300
    for round_ in range(rounds):
        identities = people(rng, n_identities)
        # Six equally good methods that share the difficulty of person and case.
        shared = correlated(rng, identities, 1)
        own = np.stack([correlated(rng, identities, 1)[:, 0] for _ in range(6)], axis=1)
        tests = paired_tests(transform(0.7 * shared + 0.7 * own), identities, seed=round_, n_bootstrap=300)
        wrong += bool((tests.p_adjusted <= 0.05).any())
    # Binomial error of 300 rounds at 5 % is 1.3 %; more than 5 % + 2 errors would contradict the claim.
    assert wrong / rounds <= 0.05 + 2 * 0.0126


def test_rank_intervals_contain_the_true_ranks_and_narrow_with_data():
    rng = np.random.default_rng(6)
    quality = np.array([0.0, 0.05, 0.1, 0.3, 0.6, 0.9])
    truth = 6 - np.argsort(np.argsort(quality))
    covered, rounds, width = 0, 200, {}
    for n_identities in (15, 120):
        widths = []
        for round_ in range(rounds // 2):
            identities = people(rng, n_identities)
            own = np.stack([correlated(rng, identities, 1)[:, 0] for _ in range(6)], axis=1)
            values = quality + correlated(rng, identities, 1) + 0.5 * own
            tests = paired_tests(values, identities, seed=round_, n_bootstrap=400)
            rank, low, high = rank_intervals(values.mean(axis=0), tests, higher_is_better=True)
            assert (low <= rank).all()
            assert (rank <= high).all()
            covered += bool(((low <= truth) & (truth <= high)).all())
            widths.append((high - low).mean())
        width[n_identities] = np.mean(widths)
    assert covered / rounds >= 0.95 - 0.03
    assert width[120] < width[15]
    assert width[120] < 1.5, "with 120 people the clear differences must be found"


def test_direction_turns_the_ranks():
    values = np.random.default_rng(7).normal([0, 5, 10], 1, size=(60, 3))
    tests = paired_tests(values, np.arange(60), n_bootstrap=200)
    up = rank_intervals(values.mean(axis=0), tests, higher_is_better=True)
    down = rank_intervals(values.mean(axis=0), tests, higher_is_better=False)
    assert [x.tolist() for x in up] == [[3, 2, 1]] * 3
    assert [x.tolist() for x in down] == [[1, 2, 3]] * 3


def test_equal_methods_share_a_rank():
    values = np.random.default_rng(8).normal(size=(20, 1)).repeat(3, axis=1)
    tests = paired_tests(values, np.arange(20), n_bootstrap=100)
    rank, low, high = rank_intervals(values.mean(axis=0), tests, higher_is_better=True)
    assert rank.tolist() == [1, 1, 1]
    assert low.tolist() == [1, 1, 1]
    assert high.tolist() == [3, 3, 3]
    assert tests.p_adjusted.tolist() == [1.0, 1.0, 1.0]


def covers(counts, make, *, rounds=300, binary=False):
    """Share of rounds in which the interval holds the true mean; all columns of a round are one draw."""
    rng = np.random.default_rng(7)
    people = np.repeat(np.arange(len(counts)), counts)
    columns = [make(rng, people) for _ in range(rounds)]
    values, truth = np.stack([values for values, _ in columns], axis=1), np.array([truth for _, truth in columns])
    found = mean_interval(values, people, n_bootstrap=400, binary=np.full(rounds, binary))
    return np.mean((found.low <= truth + 1e-12) & (truth - 1e-12 <= found.high))


def person_and_case(rng, people):
    person = rng.normal(size=people.max() + 1)
    return person[people] + 0.7 * rng.normal(size=len(people)), 0.0


@pytest.mark.parametrize("counts", [[20, 1, 1, 1, 1, 1], [40, 2, 2, 2, 2, 2], [10, 2, 2, 2, 2, 2]])
def test_coverage_where_one_person_holds_most_of_the_cases(counts):
    assert covers(counts, person_and_case) > 0.92


@pytest.mark.parametrize("n_people", [2, 4, 6])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_coverage_of_rare_events(n_people, rate):
    def events(rng, people):
        person = rng.beta(2 * rate, 2 * (1 - rate), people.max() + 1)
        return (rng.random(len(people)) < person[people]).astype(float), rate

    assert covers([3] * n_people, events, binary=True) > 0.93


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_event_that_never_or_always_happens_has_a_wide_interval(value):
    found = mean_interval(np.full((12, 1), value), np.repeat(np.arange(4), 3), binary=np.array([True]))
    assert found.high[0] - found.low[0] == pytest.approx(1 - 0.025 ** (1 / 4))
    assert value in (found.low[0], found.high[0])


def test_proportions_of_independent_cases_are_clopper_and_pearsons():
    hits = np.array([1.0] * 7 + [0.0] * 33)
    low, high = proportion_interval(hits > 0, np.arange(40))
    exact = stats.binomtest(7, 40).proportion_ci()
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.005)


def test_two_methods_without_any_event_differ_by_nothing_known():
    values = np.zeros((12, 2))
    found = paired_tests(values, np.repeat(np.arange(4), 3), binary=True).difference
    assert (found.mean[0], found.low[0]) == (0, 0)
    assert found.high[0] > 0.5
    values[0, 0] = values[11, 1] = 1
    found = paired_tests(values, np.repeat(np.arange(4), 3), binary=True).difference
    assert found.low[0] < -0.3
    assert found.high[0] > 0.3
