"""Cases: what one benchmark asks of every restorer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
        references: table ``references``; a case takes the first ``max_references`` of a target by rank.
        ages: image id to years.
        lq_paths: target id to the low-quality picture, relative to the workspace.
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
    frame = pd.DataFrame(rows)
    frame["age"] = frame["age"].astype("float32")
    frame["age_gap"] = frame["age_gap"].astype("float32")
    return frame
