"""Randomness keyed by (seed, case), never by order or worker."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator


def case_seed(seed: int, *parts: str | int) -> int:
    """Return a 63-bit seed for one case: the same on every machine, in every order.

    Args:
        seed: the run's seed.
        parts: what names the case, for instance the level and the image id.

    >>> case_seed(2024, "severe", "00042") == case_seed(2024, "severe", "00042")
    True
    >>> case_seed(2024, "a", "bc") == case_seed(2024, "ab", "c")
    False
    """
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch, and put Python's and NumPy's back afterwards."""
    import numpy as np
    import torch

    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
