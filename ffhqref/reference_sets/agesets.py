"""Same-age and cross-age sets: ffhqref's own protocol.

MeInTime and TimeWeaver report on such sets and published neither lists nor rules. *What is built
here is ours and its results are not comparable with theirs.*

Rule: the age gap of a reference is its age minus its target's. Up to ``same_max`` years it is same-age, from
``cross_min`` years on cross-age, and between the two it is neither, because age labels err by some years. Matched
sets hold the same targets with the same number of references on both sides, so that the two differ in the references'
age and not in how hard the targets are or how much the restorer is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import DatasetError
from ffhqref.core.options import told_value
from ffhqref.reference_sets.options import AgeSetConfig
from ffhqref.reference_sets.references import Exclusions, candidates, order_references

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.reference_sets.vectors import Embeddings

SAME, CROSS = "same_age", "cross_age"

LABEL = "ffhqref's own same-age/cross-age protocol; not comparable with MeInTime or TimeWeaver"
"""To be shown wherever results on these sets are."""


def age_references(
    embeddings: Embeddings,
    *,
    references: pd.DataFrame,
    identities: pd.DataFrame,
    pairs: pd.DataFrame | None,
    ages: Mapping[str, float],
    split: str,
    max_distance: float,
    min_distance: float,
    exclusions: Exclusions | None = None,
    config: AgeSetConfig | None = None,
    needed: str | None = None,
) -> dict[str, pd.DataFrame]:
    """Return both sides of a built reference set's split, each in the form of the table ``references``.

    References are chosen among all admissible neighbours of a target (in train, near-duplicates too), not only among
    those that the reference table kept.

    Args:
        embeddings: of every image.
        references: table ``references``; its targets in ``split`` are the ones considered.
        identities: table ``identities``.
        pairs: table ``pairs``; None: the reference table is all there is, as with a published set, whose manual
            rejections are in no table.
        ages: image id to years.
        split: train, val or test.
        max_distance: of the set that was built.
        min_distance: of the set that was built.
        exclusions: verdicts it was built with.
        config: the definition of the sides.
        needed: the side that must not be empty.

    Returns:
        `SAME` and `CROSS`, each target_id, reference_id, rank, distance, age_gap, split.

    Raises:
        DatasetError: the needed side is empty; with the gaps that there are and options that give targets.
    """
    import pandas as pd

    mine = references[references["split"] == split]
    chosen = mine[mine["distance"].notna()]
    if pairs is not None:
        chosen = candidates(
            embeddings,
            pairs,
            identities,
            max_distance=max_distance,
            min_distance=0.0 if split == "train" else min_distance,
            exclusions=None if split == "train" else exclusions,
        )
        chosen = chosen[chosen["target_id"].isin(set(mine["target_id"]))]
    sets = build_age_sets(embeddings, chosen, ages, config)
    if needed is not None and not (sets["benchmark"] == needed).any():
        raise DatasetError(f"{needed}: {explain_empty(chosen, ages, config or AgeSetConfig(), needed)}")
    sets["split"] = pd.Series([split] * len(sets), dtype="str")
    return {name: sets[sets["benchmark"] == name].drop(columns="benchmark") for name in (SAME, CROSS)}


@dataclass(frozen=True, eq=False)
class _Gaps:
    """Absolute age gaps of pairs whose ages are known, and the number of each pair's target."""

    target: NDArray[np.intp]
    years: NDArray[np.float64]

    @classmethod
    def of(cls, chosen: pd.DataFrame, ages: Mapping[str, float]) -> _Gaps:
        _, target = np.unique(chosen["target_id"].to_numpy(object), return_inverse=True)
        pairs = zip(chosen["target_id"], chosen["reference_id"], strict=True)
        years = np.abs([ages.get(r, np.nan) - ages.get(t, np.nan) for t, r in pairs])
        known = np.isfinite(years)
        return cls(target[known], years[known])


def _targets(gaps: _Gaps, config: AgeSetConfig) -> NDArray[np.int64]:
    """Return how many targets the same-age and the cross-age set have, int [2]."""
    most = int(gaps.target.max(initial=-1)) + 1
    same, cross = (
        np.bincount(gaps.target[side], minlength=most) >= config.min_references
        for side in (gaps.years <= config.same_max, gaps.years >= config.cross_min)
    )
    return np.array([(same & cross).sum()] * 2 if config.matched else [same.sum(), cross.sum()], np.int64)


def explain_empty(chosen: pd.DataFrame, ages: Mapping[str, float], config: AgeSetConfig, side: str) -> str:
    """Return why no target has references on the sides asked for, with what there is and options that give targets.

    Args:
        chosen: admissible target_id, reference_id.
        ages: image id to years.
        config: the definition that gives nothing.
        side: `SAME` or `CROSS`.
    """
    gaps = _Gaps.of(chosen, ages)
    sides = {SAME: f"at most {config.same_max:g}", CROSS: f"at least {config.cross_min:g}"}
    asked = f"both {sides[SAME]} and {sides[CROSS]}" if config.matched else sides[side]
    said = f"no target has references {asked} years away"
    if not len(gaps.years):
        return f"{said}: of no target and reference both ages are known; give dataset.ages=FILE or ages.model=NAME"
    said += f"; gaps are {gaps.years.min():.0f} to {gaps.years.max():.0f} years"
    index = (SAME, CROSS).index(side)
    found: dict[bool, str] = {}
    most = 0
    for matched, options in _alternatives(gaps, config):
        tried = [(int(_targets(gaps, config.model_copy(update=each))[index]), each) for each in options]
        targets, best = max(tried, key=lambda entry: entry[0], default=(0, {}))
        if matched not in found and targets > most:
            words = " ".join(f"age_sets.{key}={told_value(value)}" for key, value in best.items())
            found[matched], most = f"{words} gives {targets} target{'s' * (targets > 1)}", targets
    return f"{said}: {', '.join(found.values()) or 'no age_sets.same_max and cross_min give targets'}"


def _alternatives(gaps: _Gaps, config: AgeSetConfig) -> Iterator[tuple[bool, list[dict[str, float | bool]]]]:
    """Yield options to try, and whether they match targets: groups of those that change less first."""
    years = range(int(gaps.years.max()), 0, -1)
    cross: list[dict[str, float | bool]] = [{"cross_min": year} for year in years if year > config.same_max]
    yield config.matched, cross
    yield config.matched, [{"same_max": year} for year in range(int(np.ceil(config.cross_min)))]
    both: list[dict[str, float | bool]] = [{"same_max": s, "cross_min": c} for c in years for s in range(c)]
    yield config.matched, both
    if config.matched:
        yield False, [{**options, "matched": False} for options in cross]
        yield False, [{**options, "matched": False} for options in both]


def build_age_sets(
    embeddings: Embeddings, chosen: pd.DataFrame, ages: Mapping[str, float], config: AgeSetConfig | None = None
) -> pd.DataFrame:
    """Return the same-age and the cross-age set.

    Args:
        embeddings: of every image.
        chosen: admissible target_id, reference_id, distance, as `candidates` returns them, of the targets wanted
            (usually the test split). Before truncation: a target's references in the reference table may all be of
            one side.
        ages: image id to years; pairs with an unknown age are in neither set.
        config: the definition.

    Returns:
        benchmark (`SAME` or `CROSS`), target_id, reference_id, rank (int32, from 0), age_gap (float32, years),
        distance (float32); sorted by benchmark, target_id, rank.
    """
    import pandas as pd

    config = config or AgeSetConfig()
    pairs = zip(chosen["target_id"], chosen["reference_id"], strict=True)
    gap = np.array([ages.get(r, np.nan) - ages.get(t, np.nan) for t, r in pairs], dtype=np.float64)
    sides = {SAME: chosen[np.abs(gap) <= config.same_max], CROSS: chosen[np.abs(gap) >= config.cross_min]}
    ranked = {
        name: order_references(
            embeddings,
            side,
            min_references=config.min_references,
            max_references=config.max_references,
            ages=ages,
        )
        for name, side in sides.items()
    }
    if config.matched:
        counts = [frame["target_id"].value_counts() for frame in ranked.values()]
        keep = pd.concat(counts, axis=1, join="inner").min(axis=1).to_dict()
        # The first k of a longer farthest-point order are the farthest-point order of length k.
        ranked = {
            name: frame[frame["rank"].to_numpy() < frame["target_id"].map(keep).fillna(0).to_numpy()]
            for name, frame in ranked.items()
        }
    parts = [frame.assign(benchmark=name) for name, frame in ranked.items()]
    columns = ["benchmark", "target_id", "reference_id", "rank", "age_gap", "distance"]
    result = pd.concat(parts)[columns].sort_values(["benchmark", "target_id", "rank"], ignore_index=True)
    result["benchmark"] = result["benchmark"].astype("str")
    return result


def summarise_age_sets(sets: pd.DataFrame) -> pd.DataFrame:
    """Return how large the sets are and how their gaps are distributed.

    Args:
        sets: from `build_age_sets`.

    Returns:
        One row a benchmark: benchmark, targets, references, references_per_target; the smallest, quartiles and
        largest of the absolute gap in years (gap_min, gap_q25, gap_median, gap_q75, gap_max); older_share (references
        older than their target); mean_distance (the two sets' difference in it tells how much harder one is).
    """
    import pandas as pd

    rows = []
    for name, frame in sets.groupby("benchmark", sort=True):
        gap = frame["age_gap"].to_numpy(np.float64)
        quartiles = np.quantile(np.abs(gap), [0.0, 0.25, 0.5, 0.75, 1.0])
        targets = int(frame["target_id"].nunique())
        rows.append(
            {
                "benchmark": name,
                "targets": targets,
                "references": len(frame),
                "references_per_target": len(frame) / targets,
                **dict(zip(["gap_min", "gap_q25", "gap_median", "gap_q75", "gap_max"], quartiles, strict=True)),
                "older_share": float((gap > 0).mean()),
                "mean_distance": float(frame["distance"].to_numpy(np.float64).mean()),
            }
        )
    columns = [
        "benchmark", "targets", "references", "references_per_target", "gap_min", "gap_q25", "gap_median", "gap_q75",
        "gap_max", "older_share", "mean_distance",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
