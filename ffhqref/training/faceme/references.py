"""Which references a sample gets: the published pool, with its two peculiarities as switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.seeding import case_seed

if TYPE_CHECKING:
    from ffhqref.training.faceme.lists import Feature, Sample

MOST = 4
"""References of a sample at most, in the paper and in the published code."""


@dataclass(frozen=True)
class PoolRules:
    """What may be drawn.

    Attributes:
        own_embedding: the target's own features are in the pool, as published. With m references they are among the
            n used with probability n / (m + 1) for m ≥ 3: a leak of expression and lighting. False: left out.
        growing: in each epoch the pool holds one more copy of the target's own features, as in the published script
            when it loads in the main process (its code's default). False, as with worker processes (its README's
            command): one copy always.
    """

    own_embedding: bool = True
    growing: bool = False


def pool_of(sample: Sample, epoch: int, rules: PoolRules) -> tuple[Feature, ...]:
    """Return what the references of a sample are drawn from in an epoch (counted from 0), references first."""
    copies = (epoch + 1 if rules.growing else 1) if rules.own_embedding else 0
    return sample.references + (sample.own,) * copies


def pick(sample: Sample, seed: int, epoch: int, rules: PoolRules) -> tuple[Feature, ...]:
    """Return `MOST` references of a sample in random order; a batch uses the first n of them.

    Draws are keyed by (seed, sample, epoch): the worker and the place in the batch do not matter. A pool of fewer is
    filled up by draws with replacement, so that one image may be there twice, as published.
    """
    rng = np.random.default_rng(case_seed(seed, "references", sample.name, epoch))
    pool = pool_of(sample, epoch, rules)
    short = max(0, MOST - len(pool))
    pool += tuple(pool[int(rng.integers(len(pool)))] for _ in range(short))
    return tuple(pool[int(index)] for index in rng.permutation(len(pool))[:MOST])
