"""Intervals and tests that treat the person, not the image, as the unit of chance.

Images of one person are not independent: a method that knows a face does well on all of that person's images.
Every resampling here therefore draws *identities* (clusters), never cases. The estimand stays the field's own: the
plain mean over cases, so that a number with an interval is the number a paper would print.

The interval of a mean is the equal-tailed studentised ("bootstrap-t") cluster bootstrap with a jackknife standard
error. Simulations with correlated identities (tests/leaderboard/test_statistics.py) led to that choice: percentile
and BCa cover 87–91 % with a dozen identities, the cluster t interval falls to 90 % when values are skewed, as cosines
and LPIPS are, and resampling single cases covers about two thirds. With fewer than ten identities the bootstrap
quantiles become wild, so each is limited to ``QUANTILE_LIMIT`` times Student's quantile (with three identities, where
nearly every quantile meets the limit, to ``QUANTILE_LIMIT_OF_THREE`` times); and none may be smaller than Student's,
which costs 4 % of width and lifts the coverage with six people from 91–93 % to 93–96 %. ``benchmarks/coverage.py``
repeats the simulation from 3 to 150 people.

Where one person holds most of the cases, the number of people says too much: the coverage with six people of whom one
holds 20 of 25 cases was 89 %. Widened for the effective number of people it is 95 %. Values that are 0 or 1 throughout
have an exact interval (`proportion_interval`), for the bootstrap of a rare event has no spread.

The sign-flip test is exact for differences that are symmetric about zero, whatever their scale (it is studentised by
construction: flips leave the sum of squares as it is). With 10 to 20 people and strongly skewed differences it rejects
at 5 % in up to 10 % of simulations; intervals of the difference, which are studentised and follow the skewness, then
tell more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILE_LIMIT = 2.0
"""A studentised bootstrap quantile may be at most this many times the Student quantile."""
QUANTILE_LIMIT_OF_THREE = 1.4
"""The same with three identities."""

_EXACT_IDENTITIES = 11
"""Up to this many identities all sign patterns are enumerated (2**10) in place of drawing them."""

ALPHA = 0.05
"""Family-wise error of "A beats B" within a benchmark and metric, and of a comparison of two benchmarks."""


@dataclass(frozen=True)
class MeanInterval:
    """Means and their intervals, one entry a column."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]
    """Cases with a value."""
    n_identities: NDArray[np.int64]
    """Identities with at least one such case."""


@dataclass(frozen=True)
class PairedTests:
    """Comparisons of methods on shared cases, one entry a pair."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    difference: MeanInterval
    """Of ``first`` minus ``second``; the interval is for this pair alone."""
    p_adjusted: NDArray[np.float64]
    """Two-sided, corrected for all pairs together (family-wise error)."""

    def among(self, methods: NDArray[np.int64]) -> PairedTests:
        """Return the tests among some methods, which are renumbered in the given order.

        The p-values stay corrected for all pairs, also those left out.
        """
        place = np.full(int(max(self.second, default=0)) + 1, -1)
        place[methods] = np.arange(len(methods))
        rows = (place[self.first] >= 0) & (place[self.second] >= 0)
        d = self.difference
        picked = MeanInterval(d.mean[rows], d.low[rows], d.high[rows], d.n[rows], d.n_identities[rows])
        return PairedTests(place[self.first[rows]], place[self.second[rows]], picked, self.p_adjusted[rows])


def cluster_sums(
    values: NDArray[np.float64], identities: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Add up the cases of each identity.

    Args:
        values: [cases, columns]; NaN marks a case without a value.
        identities: [cases], any integers.

    Returns:
        Sums and numbers of values, both float64 [identities, columns].
    """
    _, codes = np.unique(identities, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    ordered = values[order]
    known = ~np.isnan(ordered)
    sums = np.add.reduceat(np.where(known, ordered, 0.0), starts, axis=0)
    counts = np.add.reduceat(known.astype(np.float64), starts, axis=0)
    return sums, counts


def mean_interval(
    values: NDArray[np.float64],
    identities: NDArray[np.int64],
    *,
    seed: int = 0,
    n_bootstrap: int = 2000,
    level: float = 0.95,
    binary: NDArray[np.bool_] | None = None,
) -> MeanInterval:
    """Return the mean over cases of each column with its confidence interval over identities.

    Args:
        values: float64 [cases, columns]; NaN marks a case without a value, which is left out of that column.
        identities: [cases], equal numbers for images of one person.
        seed: of the resampling; the same draws serve all columns.
        n_bootstrap: resamples.
        level: probability that the interval is to contain the mean of the population.
        binary: [columns], those of 0 and 1 (or, as differences, of -1, 0 and 1); see `proportion_interval`.

    Returns:
        Entries of shape [columns]. Without a value the mean is NaN; with a single identity, and where a value is
        infinite, the limits are NaN, for nothing can be said.
    """
    values = np.asarray(values, dtype=np.float64)
    endless = np.isinf(values).any(axis=0)
    if endless.any():
        finite = np.where(endless, np.where(np.isnan(values), np.nan, 0.0), values)
        found = mean_interval(finite, identities, seed=seed, n_bootstrap=n_bootstrap, level=level, binary=binary)
        low, high = (np.where(endless, np.nan, limit) for limit in (found.low, found.high))
        mean = np.where(endless, np.nansum(np.where(endless, values, 0.0), axis=0), found.mean)
        return replace(found, mean=mean, low=low, high=high)
    sums, counts = cluster_sums(values, identities)
    present = counts > 0
    total = counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(axis=0) / total
    low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    n_identities = present.sum(axis=0)
    # Columns that lack the same identities share their draws; nearly always all columns do.
    patterns, member = np.unique(present, axis=1, return_inverse=True)
    for index in range(patterns.shape[1]):
        rows = patterns[:, index]
        if rows.sum() < 2:
            continue
        columns = np.flatnonzero(member.reshape(-1) == index)
        low[columns], high[columns] = _studentised(
            sums[np.ix_(rows, columns)], counts[np.ix_(rows, columns)], seed, n_bootstrap, level
        )
    of_binary = np.zeros(len(mean), bool) if binary is None else binary & (n_identities >= 2)
    for column in np.flatnonzero(of_binary):
        low[column], high[column] = _of_differences(values[:, column], identities, level)
    return MeanInterval(mean, low, high, total.astype(np.int64), n_identities)


def _of_differences(values: NDArray[np.float64], identities: NDArray[np.int64], level: float) -> tuple[float, float]:
    """Return the interval of a mean of values -1, 0 and 1: exact for 0 and 1, by Bonferroni's inequality for both."""
    known = ~np.isnan(values)
    values, identities = values[known], identities[known]
    if not (values < 0).any():
        return proportion_interval(values > 0, identities, level=level)
    if not (values > 0).any():
        low, high = proportion_interval(values < 0, identities, level=level)
        return -high, -low
    half = (1 + level) / 2
    gains, losses = (proportion_interval(part, identities, level=half) for part in (values > 0, values < 0))
    return gains[0] - losses[1], gains[1] - losses[0]


def proportion_interval(
    hits: NDArray[np.bool_], identities: NDArray[np.int64], *, level: float = 0.95
) -> tuple[float, float]:
    """Return the confidence interval of a share of cases, over identities.

    The interval of Korn and Graubard (1998): Clopper and Pearson's exact one for as many independent cases as the
    clusters are worth, by their variance and their degrees of freedom. Where all cases agree there is no variance to
    measure: a person then counts as one case. The bootstrap has no spread there and would claim certainty.

    Args:
        hits: [cases].
        identities: [cases], equal numbers for images of one person.
        level: probability that the interval is to contain the share in the population.

    >>> low, high = proportion_interval(np.zeros(12, bool), np.repeat(np.arange(4), 3))
    >>> low, round(high, 3)  # 1 - 0.025 ** (1 / 4)
    (0.0, 0.602)
    """
    from scipy import stats

    sums, counts = cluster_sums(np.asarray(hits, np.float64)[:, None], identities)
    groups, total = len(sums), float(counts.sum())
    share = float(sums.sum()) / total
    size = float(groups)
    residual = sums - share * counts
    variance = groups / (groups - 1) * float((residual**2).sum()) / total**2
    if 0 < share < 1 and variance > 0:
        size = min(share * (1 - share) / variance, total)
        tail = (1 + level) / 2
        size *= float(stats.t.ppf(tail, total - 1) / stats.t.ppf(tail, groups - 1)) ** 2
    hit = share * size
    low = 0.0 if share == 0 else float(stats.beta.ppf((1 - level) / 2, hit, size - hit + 1))
    high = 1.0 if share == 1 else float(stats.beta.ppf((1 + level) / 2, hit + 1, size - hit))
    return low, high


def naive_interval(
    values: NDArray[np.float64], *, seed: int = 0, n_bootstrap: int = 2000, level: float = 0.95
) -> MeanInterval:
    """Return the usual percentile bootstrap over single cases, as if they were independent.

    For comparison only: with correlated images its coverage is far below ``level``.
    """
    rng = np.random.default_rng(seed)
    n = len(values)
    draws = rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap) @ values / n
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    size = np.full(values.shape[1], n)
    return MeanInterval(values.mean(axis=0), low, high, size, size)


def _studentised(
    sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int, n_bootstrap: int, level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from scipy import stats

    groups = len(sums)
    total = counts.sum(axis=0)
    mean = sums.sum(axis=0) / total
    # Centred and scaled columns keep the differences of large squares below exact.
    residual = sums - mean * counts
    scale = np.sqrt((residual**2).sum(axis=0))
    flat = scale <= 1e-12 * np.maximum(np.abs(mean) * total, 1e-300)
    residual = residual / np.where(flat, 1.0, scale)
    remaining = total - counts
    # The leave-one-identity-out mean minus the mean is -residual / remaining.
    jackknife = -residual / remaining
    error = np.sqrt((groups - 1) / groups * ((jackknife - jackknife.mean(axis=0)) ** 2).sum(axis=0))
    t_limit = float(stats.t.ppf((1 + level) / 2, groups - 1))
    if groups == 2:
        lower = upper = np.full_like(mean, t_limit)
    else:
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(groups, np.full(groups, 1 / groups), size=n_bootstrap).astype(np.float64)
        # Columns without missing values share their counts: one product then serves all.
        same = bool((counts == counts[:, :1]).all())
        sizes = counts[:, :1] if same else counts
        drawn = weights @ sizes
        shift = (weights @ residual) / drawn
        spread = (
            weights @ (residual**2) - 2 * shift * (weights @ (residual * counts)) + shift**2 * (weights @ (sizes**2))
        )
        drawn_error = np.sqrt(np.maximum(groups / (groups - 1) * spread, 0.0)) / drawn
        # A draw of one identity repeated has no spread: its t is infinite, on the side of its shift.
        with np.errstate(divide="ignore", invalid="ignore"):
            t = shift / np.where(drawn_error > 1e-9 * error, drawn_error, 0.0)
        t = np.where(np.isnan(t), 0.0, t)
        bound = (QUANTILE_LIMIT_OF_THREE if groups == 3 else QUANTILE_LIMIT) * t_limit
        t = np.clip(t, -bound, bound)
        below, above = np.quantile(t, [(1 - level) / 2, (1 + level) / 2], axis=0)
        lower, upper = np.maximum(above, t_limit), np.maximum(-below, t_limit)
    half = np.where(flat, 0.0, error * scale) * _dominance(counts, t_limit, level)
    return mean - lower * half, mean + upper * half


def _dominance(counts: NDArray[np.float64], t_limit: float, level: float) -> NDArray[np.float64]:
    """Return how much wider intervals are where few people hold most of the cases.

    The jackknife then rests on fewer people than there are. Kish's effective number gives the degrees of freedom, two
    at least; half as much again is allowed for, which leaves the usual spread of one to nine cases a person as it is.
    """
    from scipy import stats

    groups = len(counts)
    effective = np.minimum(1.5 * counts.sum(axis=0) ** 2 / (counts**2).sum(axis=0), groups)
    limit = stats.t.ppf((1 + level) / 2, np.maximum(effective - 1, min(2, groups - 1)))
    return np.asarray(np.maximum(limit / t_limit, 1.0))


def paired_tests(
    values: NDArray[np.float64],
    identities: NDArray[np.int64],
    *,
    seed: int = 0,
    n_bootstrap: int = 2000,
    level: float = 0.95,
    binary: bool = False,
) -> PairedTests:
    """Compare all pairs of methods on the cases that both have.

    The test flips the signs of whole identities' summed differences, which is exact when a difference is as likely as
    its negative, with any number of identities. Family-wise error is controlled by the largest statistic of all
    pairs under the same flips (single-step max-T, Westfall and Young), which unlike Bonferroni or Holm knows that the
    pairs depend on each other. With G identities no p-value can be below 2**(1-G): five people cannot decide at 5 %.

    Args:
        values: float64 [cases, methods]; NaN marks a case without a value.
        identities: [cases].
        seed: of the flips and of the intervals.
        n_bootstrap: flips, and resamples of the intervals.
        level: of the intervals.
        binary: values are 0 and 1.
    """
    first, second = np.triu_indices(values.shape[1], k=1)
    with np.errstate(invalid="ignore"):  # of two infinite values nothing is known
        differences = values[:, first] - values[:, second]
    interval = mean_interval(
        differences, identities, seed=seed, n_bootstrap=n_bootstrap, level=level, binary=np.full(len(first), binary)
    )
    sums, _ = cluster_sums(differences, identities)
    return PairedTests(first, second, interval, max_t_p_values(sums, seed=seed, n_flips=n_bootstrap))


def max_t_p_values(sums: NDArray[np.float64], *, seed: int = 0, n_flips: int = 2000) -> NDArray[np.float64]:
    """Return two-sided sign-flip p-values of columns of cluster sums, corrected for all columns together.

    Args:
        sums: float64 [identities, columns]: an identity's summed differences.
        seed: of the flips.
        n_flips: random flips, where they are too many to enumerate.
    """
    if sums.shape[1] == 0:
        return np.zeros(0)
    norm = np.sqrt((sums**2).sum(axis=0))
    units = np.divide(sums, norm, out=np.zeros_like(sums), where=norm > 0)
    groups = len(sums)
    observed = np.abs(units.sum(axis=0))
    if groups <= _EXACT_IDENTITIES:
        # The overall sign does not matter: the first identity keeps its own.
        bits = np.arange(1 << (groups - 1))[:, None] >> np.arange(groups - 1)
        signs = np.concatenate([np.ones((len(bits), 1)), 1.0 - 2.0 * (bits & 1)], axis=1)
        extra = 0
    else:
        rng = np.random.default_rng(seed)
        signs = 1.0 - 2.0 * rng.integers(0, 2, size=(n_flips, groups))
        extra = 1  # the observed pattern is one of the possible flips
    largest = np.abs(signs.astype(np.float32) @ units.astype(np.float32)).max(axis=1)
    largest.sort()
    at_least = len(largest) - np.searchsorted(largest, observed - 1e-5, side="left")
    p: NDArray[np.float64] = (at_least + extra) / (len(largest) + extra)
    return np.where(norm > 0, p, 1.0)


def rank_intervals(
    means: NDArray[np.float64], tests: PairedTests, *, higher_is_better: bool, alpha: float = 0.05
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return rank, lowest and highest rank that the data leave open, 1 being the best.

    A method can be at best one rank below the number of methods that are significantly better, at worst above
    those that are significantly worse. As the tests' family-wise error is ``alpha``, all intervals together contain
    the true ranks with probability at least 1 - ``alpha``.

    Args:
        means: float64 [methods]; equal means share the smaller rank.
        tests: of the same methods in the same order.
        higher_is_better: direction of the metric.
        alpha: family-wise error of "A beats B".
    """
    sign = 1.0 if higher_is_better else -1.0
    score = sign * means
    rank = 1 + (score[None, :] > score[:, None]).sum(axis=1)
    gain = sign * tests.difference.mean
    sure = tests.p_adjusted <= alpha
    better, worse = np.zeros(len(means), np.int64), np.zeros(len(means), np.int64)
    for winners, losers, won in (
        (tests.first, tests.second, sure & (gain > 0)),
        (tests.second, tests.first, sure & (gain < 0)),
    ):
        np.add.at(worse, winners[won], 1)
        np.add.at(better, losers[won], 1)
    # Shared cases can order two methods otherwise than their means do; the rank itself stays inside.
    low = np.minimum(1 + better, rank)
    high = np.maximum(len(means) - worse, rank)
    return rank, low, high
