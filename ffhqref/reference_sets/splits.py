"""Identity-disjoint train, val and test.

ReF-LDM splits by identity: 150 identities to test, 300 to val, the rest to train, and in its split
of the whole of FFHQ every image without reference is train (68,411 = 70,000 - 732 - 857). It does not say how the 150
and 300 were drawn, only that the races were balanced on purpose. Here each identity gets a number from the seed and
its smallest image id, and the first ones by that number are taken: the draw does not depend on the order of the
images, and adding people changes little of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.core.seeding import case_seed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd

SPLITS = ("train", "val", "test")


def split_identities(
    identities: pd.DataFrame,
    *,
    test: float,
    val: float,
    seed: int,
    targets: Collection[str] | None = None,
    attribute: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the identities with a column ``split``: train, val or test for every image.

    Test is drawn first, then val; images without identity and all remaining identities are train. Sizes count
    identities: an int is a number of them, a float below 1 a fraction of all of them (rounded half to even).

    Args:
        identities: image_id, identity_id (null: no identity) and any further columns.
        test: size of test.
        val: size of val.
        seed: of the draw.
        targets: image ids that satisfy the rules of a val or test target; an identity without any is left to train.
            All images count when None.
        attribute: image id to a label (race, gender, age class, ...). Test and val then hold as equally many
            identities of each label as there are; an identity has the label most of its images have (ties: the first
            in alphabetical order; images not in the mapping count as ``"unknown"``).

    Raises:
        ConfigError: a size that is no count or fraction, or more identities asked for than qualify.
    """
    known = identities[identities["identity_id"].notna()]
    number = known["identity_id"].to_numpy(np.int64)
    image = known["image_id"].to_numpy(object)
    names: dict[int, str] = {}
    able: set[int] = set()
    allowed = None if targets is None else set(targets)
    for who, name in zip(number.tolist(), image, strict=True):
        names[who] = min(names.get(who, name), name)
        if allowed is None or name in allowed:
            able.add(who)
    drawn = sorted(able, key=lambda who: (case_seed(seed, "split", names[who]), names[who]))
    labels = {} if attribute is None else _identity_labels(number.tolist(), list(image), attribute)
    chosen: dict[int, str] = {}
    for split, size in (("test", test), ("val", val)):
        count = _count(split, size, len(names))
        left = [who for who in drawn if who not in chosen]
        if count > len(left):
            taken = " and test has its own" if split == "val" and test else ""
            raise ConfigError(
                f"split: {count} identities asked for {split}, but only {len(left)} of {len(names)} qualify{taken}: "
                f"lower the size of {split}, the minimum number of references or the minimum distance"
            )
        for who in _balanced(left, count, labels):
            chosen[who] = split
    result = identities.copy()
    result["split"] = "train"
    result.loc[known.index, "split"] = [chosen.get(who, "train") for who in number.tolist()]
    return result


def _count(split: str, size: float, identities: int) -> int:
    if isinstance(size, bool) or not isinstance(size, (int, float)) or size < 0:
        raise ConfigError(f"size of {split} must be a number of identities or a fraction of them, got {size!r}")
    if isinstance(size, int):
        return size
    if size >= 1.0:
        raise ConfigError(f"size of {split}: a fraction must be below 1, got {size}; write a count without a point")
    return round(size * identities)


def _identity_labels(number: list[int], image: list[str], attribute: Mapping[str, str]) -> dict[int, str]:
    votes: dict[int, dict[str, int]] = {}
    for who, name in zip(number, image, strict=True):
        label = str(attribute.get(name, "unknown"))
        counts = votes.setdefault(who, {})
        counts[label] = counts.get(label, 0) + 1
    return {who: min(counts, key=lambda label: (-counts[label], label)) for who, counts in votes.items()}


def _balanced(drawn: list[int], count: int, labels: Mapping[int, str]) -> list[int]:
    """Return the first ``count`` of ``drawn``, taking the labels in turns until each runs out."""
    queues: dict[str, list[int]] = {}
    for who in drawn:
        queues.setdefault(labels.get(who, ""), []).append(who)
    turns = {who: turn for queue in queues.values() for turn, who in enumerate(queue)}
    return sorted(drawn, key=lambda who: turns[who])[:count]  # stable: within a turn, the order drawn
