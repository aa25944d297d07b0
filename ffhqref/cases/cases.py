"""Cases: what one benchmark asks of every restorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import DatasetError
from ffhqref.core.seeding import case_seed
from ffhqref.reference_sets.groups import component_labels, number_groups
from ffhqref.store.schemas import SPECS
from ffhqref.store.workspace import OWN

if TYPE_CHECKING:
    import pandas as pd


def pick_targets(references: pd.DataFrame, identities: pd.DataFrame, split: str, limit: int | None = None) -> list[str]:
    """Return the targets of a split, sorted.

    Args:
        references: table ``references``.
        identities: table ``identities``.
        split: train, val or test.
        limit: at most this many, taken in turn from the identities so that few targets still show many people.
    """
    targets = sorted(set(references.loc[references["split"] == split, "target_id"]))
    if limit is None or len(targets) <= limit:
        return targets
    person = dict(zip(identities["image_id"], identities["identity_id"], strict=True))
    turn: dict[Any, int] = {}
    order = []
    for target in targets:
        turn[person[target]] = turn.get(person[target], -1) + 1
        order.append((turn[person[target]], target))
    return sorted(target for _, target in sorted(order)[:limit])


def draw_people(references: pd.DataFrame, identities: pd.DataFrame, split: str, people: int, seed: int) -> list[str]:
    """Return one target each of some people of a split, sorted.

    The draw is keyed by the seed and the person's images, so that other people in the split do not change a
    person's target.

    Args:
        references: table ``references``.
        identities: table ``identities``.
        split: train, val or test.
        people: how many.
        seed: of the draw.

    Raises:
        DatasetError: the split has fewer people with a target.
    """
    person = dict(zip(identities["image_id"], identities["identity_id"], strict=True))
    targets: dict[Any, list[str]] = {}
    for target in sorted(set(references.loc[references["split"] == split, "target_id"])):
        targets.setdefault(person[target], []).append(target)
    if len(targets) < people:
        raise DatasetError(
            f"{people} people are asked for, split '{split}' has {len(targets)} with a target; raise dataset.{split}, "
            "or lower the benchmark's people"
        )
    drawn = sorted(targets.values(), key=lambda mine: case_seed(seed, "person", mine[0]))[:people]
    return sorted(min(mine, key=lambda target: case_seed(seed, "target", target)) for mine in drawn)


def draw_references(references: pd.DataFrame, counts: tuple[int, int], seed: int) -> pd.DataFrame:
    """Return some references of every target: how many, which and in which order is drawn, keyed by (seed, target).

    Args:
        references: table ``references``.
        counts: least and most of a target, each number alike; a target that has fewer gets all.
        seed: of the draw.
    """
    import numpy as np
    import pandas as pd

    least, most = counts
    parts = []
    for target, group in references.sort_values(["target_id", "rank"]).groupby("target_id"):
        rng = np.random.default_rng(case_seed(seed, "references", str(target)))
        count = int(rng.integers(least, most + 1))
        chosen = group.iloc[rng.permutation(len(group))[:count]]
        parts.append(chosen.assign(rank=np.arange(len(chosen), dtype=np.int32)))
    return pd.concat(parts, ignore_index=True) if parts else references.iloc[:0]


def make_cases(
    benchmark: str,
    targets: list[str],
    *,
    images: pd.DataFrame,
    identities: pd.DataFrame,
    references: pd.DataFrame,
    ages: Mapping[str, float],
    lq_paths: Mapping[str, str],
    max_references: int | None,
) -> pd.DataFrame:
    """Return the ``cases`` of one benchmark: one row for each target, ``case_id`` being the target's id.

    Args:
        benchmark: its name.
        targets: target ids.
        images: table ``images``; gives the paths of ground truth and references.
        identities: table ``identities``.
        references: table ``references``, or one side of the age sets; a case takes the first ``max_references`` of
            a target by rank.
        ages: image id to years.
        lq_paths: target id to the low-quality image, relative to the workspace.
        max_references: at most this many; None: all.

    Returns:
        Rows with ``gt_path`` and ``reference_paths`` relative to the data set's root. ``age_gap`` is the mean
        absolute gap in years over the references used, null where an age is unknown.
    """
    import pandas as pd

    path = dict(zip(images["image_id"], images["path"], strict=True))
    person = dict(zip(identities["image_id"], identities["identity_id"], strict=True))
    wanted = set(targets)
    mine = references[references["target_id"].isin(wanted)].sort_values(["target_id", "rank"])
    chosen = {str(target): group.head(max_references or len(group)) for target, group in mine.groupby("target_id")}
    rows = []
    for target in targets:
        group = chosen[target]
        gap = group["age_gap"].abs().mean(skipna=False)
        rows.append(
            {
                "benchmark": benchmark,
                "case_id": target,
                "target_id": target,
                "identity_id": person[target],
                "lq_path": lq_paths[target],
                "gt_path": path[target],
                "reference_paths": [path[reference] for reference in group["reference_id"]],
                "age": ages.get(target),
                "age_gap": gap,
            }
        )
    return typed_cases(pd.DataFrame(rows, columns=list(SPECS["cases"].columns)))


def make_blind_cases(
    benchmark: str,
    lq_paths: Mapping[str, str],
    references: Mapping[str, Sequence[str]] | None = None,
    max_references: int | None = None,
    truths: Mapping[str, str] | None = None,
    people: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the ``cases`` of a set of images from outside, such as LFW-Test, most of which have no ground truth.

    Cases that share a reference show one person, who gets an ``identity_id`` of this benchmark's own, so that
    statistics count people.

    Args:
        benchmark: its name.
        lq_paths: case id to the low-quality image, relative to the workspace.
        references: case id to images of the person, best first, each relative to the workspace; none by default.
        max_references: a case takes at most so many; None: all.
        truths: case id to its ground truth, relative to the workspace; none by default.
        people: case id to the person shown; None: those of shared references.
    """
    import pandas as pd

    given = references or {}
    if people is None:
        person = _people(sorted(lq_paths), given)
    else:
        number = {name: index for index, name in enumerate(sorted(set(people.values())))}
        person = {case_id: number[name] for case_id, name in people.items()}
    empty = {"age": None, "age_gap": None}
    rows: list[dict[str, Any]] = [
        {
            "benchmark": benchmark,
            "case_id": name,
            "target_id": name,
            "identity_id": person.get(name),
            "lq_path": path,
            "gt_path": OWN + truths[name] if truths else None,
            "reference_paths": [OWN + mine for mine in given.get(name, ())][:max_references],
            **empty,
        }
        for name, path in sorted(lq_paths.items())
    ]
    return typed_cases(pd.DataFrame(rows, columns=list(SPECS["cases"].columns)))


def _people(names: Sequence[str], references: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Number the groups of cases that are linked by shared references; a case that shares none is left out."""
    import numpy as np

    users: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        for path in references.get(name, ()):
            users.setdefault(path, []).append(index)
    links = [(mine[0], other) for mine in users.values() for other in mine[1:]]
    if not links:
        return {}
    first, second = np.array(links, dtype=np.intp).T
    groups = number_groups(np.array(names, dtype=object), component_labels(len(names), first, second))
    known = groups.dropna(subset=["identity_id"])
    return {str(name): int(number) for name, number in zip(known["image_id"], known["identity_id"], strict=True)}


def typed_cases(frame: pd.DataFrame) -> pd.DataFrame:
    """Return cases with the types of the table where rows may have none."""
    frame["identity_id"] = frame["identity_id"].astype("Int32")
    frame["age"] = frame["age"].astype("float32")
    frame["age_gap"] = frame["age_gap"].astype("float32")
    return frame
