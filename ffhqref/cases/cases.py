"""Cases: what one benchmark asks of every restorer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.cases.reference_folder import LAYOUTS
from ffhqref.core.errors import ConfigError, DatasetError, did_you_mean
from ffhqref.core.seeding import case_seed
from ffhqref.reference_sets.groups import component_labels, number_groups
from ffhqref.store.schemas import SPECS
from ffhqref.store.workspace import OWN

if TYPE_CHECKING:
    import pandas as pd


SPLITS = ("train", "val", "test")
AGES = ("same", "cross")


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark is made of. Its low-quality pictures are synthesised, or taken from a folder."""

    name: str
    degradation: str | None = None
    """Preset that makes the low-quality pictures from the targets, or None when they come from ``lq_folder``."""
    lq_folder: str | None = None
    """Folder of published low-quality pictures, matched to the targets by file stem."""
    split: str | None = None
    """Split whose targets are the cases; None: every picture of ``lq_folder``, without ground truth."""
    references: int | None = 5
    """At most this many references a case, the first by rank; None: all."""
    reference_folder: str | None = None
    """Folder of references of the pictures in ``lq_folder``, where those are no targets of a split."""
    reference_list: str | None = None
    """CSV that says which reference is whose (`ffhqref.cases.reference_list`); None: the folder's layout says it."""
    reference_layout: str | None = None
    """A key of `ffhqref.cases.reference_folder.LAYOUTS`; None: the one that fits."""
    reference_source: str = "unknown"
    """What those references are: ``real``, ``synthetic:<renderer>`` or ``unknown``."""
    people: int | None = None
    """That many people of the split, one target each, drawn by the run's seed; None: every target."""
    reference_counts: tuple[int, int] | None = None
    """Least and most references of a case; how many and which are drawn by the run's seed, as FaceMe's CelebRef-HQ
    test does (1 to 4). None: the first ``references`` by rank."""
    ages: str | None = None
    """``same`` or ``cross``: references of that side of the age sets (`ffhqref.reference_sets.agesets`), chosen
    from all direct neighbours; None: the references table."""
    published_set: str | None = None
    """Name that papers give to this very set of pictures; only then are published numbers shown beside."""
    published_degradation: str = ""
    """Level as papers print it."""
    counts: tuple[int, ...] = ()
    """Numbers of pictures that sources state for this set; more than one when they disagree."""

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> Benchmark:  # noqa: C901 -- rewritten with issue 12
        """Make a benchmark from its config, checked.

        Raises:
            ConfigError: an unknown key, a wrong value, or a contradiction between keys.
        """
        known = [field.name for field in fields(cls) if field.name != "name"]
        for key in options:
            if key not in known:
                raise ConfigError(f"unknown key 'benchmark.{name}.{key}'.{did_you_mean(key, known)} Known: {known}")
        drawn = options.get("reference_counts")
        pairs = {"counts": tuple(options.get("counts") or ()), "reference_counts": tuple(drawn) if drawn else None}
        made = cls(name, **{**options, **pairs})
        if made.split is not None and made.split not in SPLITS:
            hint = did_you_mean(made.split, SPLITS)
            raise ConfigError(f"benchmark.{name}.split={made.split}: unknown split.{hint} Known: {', '.join(SPLITS)}")
        if made.ages is not None and made.ages not in AGES:
            hint = did_you_mean(str(made.ages), AGES)
            raise ConfigError(f"benchmark.{name}.ages={made.ages}: expected same or cross, or null.{hint}")
        if made.ages is not None and made.split is None:
            raise ConfigError(
                f"benchmark.{name}.split: expected one of {', '.join(SPLITS)} to choose references by age"
            )
        if made.references is not None and (not isinstance(made.references, int) or made.references < 1):
            raise ConfigError(f"benchmark.{name}.references={made.references}: expected 1 or more, or null for all")
        if made.people is not None and (not isinstance(made.people, int) or made.people < 1 or made.split is None):
            raise ConfigError(f"benchmark.{name}.people={made.people}: expected 1 or more, of a split; or null for all")
        numbers = made.reference_counts
        if numbers is not None and not (
            len(numbers) == 2 and all(isinstance(n, int) for n in numbers) and 1 <= numbers[0] <= numbers[1]
        ):
            raise ConfigError(
                f"benchmark.{name}.reference_counts={list(numbers)}: expected [LEAST, MOST], for instance [1, 4]"
            )
        if (made.degradation is None) == (made.lq_folder is None):
            raise ConfigError(
                f"benchmark '{name}' needs its low-quality pictures: benchmark.{name}.lq_folder=FOLDER of published "
                f"ones, or benchmark.{name}.degradation=PRESET to make them (one of the two)"
            )
        if made.degradation is not None and made.split is None:
            raise ConfigError(f"benchmark.{name}.split: expected one of {', '.join(SPLITS)} to degrade the targets of")
        if made.lq_folder is not None and not Path(str(made.lq_folder)).expanduser().is_dir():
            raise ConfigError(f"benchmark.{name}.lq_folder: no such folder: {made.lq_folder}")
        made._check_given_references("reference_folder" in options)
        return made

    @property
    def gives_references(self) -> bool:
        """Whether references come from a folder or list of their own, not from the table ``references``."""
        return self.reference_folder is not None or self.reference_list is not None

    def _check_given_references(self, expected: bool) -> None:
        key = f"benchmark.{self.name}"
        if expected and not self.gives_references and self.split is None:
            raise ConfigError(
                f"benchmark '{self.name}' needs the references of its pictures: {key}.reference_folder=FOLDER, or "
                f"{key}.reference_list=CSV"
            )
        if self.gives_references and self.split is not None:
            raise ConfigError(
                f"{key}.reference_folder: the references of a split come from the reference set; give one of "
                f"{key}.split and {key}.reference_folder"
            )
        if self.gives_references and self.reference_counts is not None:
            raise ConfigError(f"{key}.reference_counts: only drawn for a split; use {key}.references=NUMBER")
        if self.reference_layout is not None and self.reference_layout not in LAYOUTS:
            hint = did_you_mean(str(self.reference_layout), LAYOUTS)
            raise ConfigError(
                f"{key}.reference_layout={self.reference_layout}: unknown layout.{hint} Known: {', '.join(LAYOUTS)}"
            )
        if self.reference_layout is not None and self.reference_list is not None:
            raise ConfigError(f"{key}.reference_layout: a list says which reference is whose; leave out one of the two")
        if not re.fullmatch(r"unknown|real|synthetic(:.+)?", str(self.reference_source)):
            raise ConfigError(
                f"{key}.reference_source={self.reference_source}: expected unknown, real, or synthetic:NAME"
            )


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

    The draw is keyed by the seed and the person's pictures, so that other people in the split do not change a
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
    return _typed(pd.DataFrame(rows, columns=list(SPECS["cases"].columns)))


def make_blind_cases(
    benchmark: str,
    lq_paths: Mapping[str, str],
    references: Mapping[str, Sequence[str]] | None = None,
    max_references: int | None = None,
) -> pd.DataFrame:
    """Return the ``cases`` of a set that has no ground truth, for instance LFW-Test.

    Cases that share a reference show one person, who gets an ``identity_id`` of this benchmark's own, so that
    statistics count people.

    Args:
        benchmark: its name.
        lq_paths: case id to the low-quality picture, relative to the workspace.
        references: case id to pictures of the person, best first, each relative to the workspace; none by default.
        max_references: a case takes at most so many; None: all.
    """
    import pandas as pd

    given = references or {}
    person = _people(sorted(lq_paths), given)
    empty = {"gt_path": None, "age": None, "age_gap": None}
    rows: list[dict[str, Any]] = [
        {
            "benchmark": benchmark,
            "case_id": name,
            "target_id": name,
            "identity_id": person.get(name),
            "lq_path": path,
            "reference_paths": [OWN + mine for mine in given.get(name, ())][:max_references],
            **empty,
        }
        for name, path in sorted(lq_paths.items())
    ]
    return _typed(pd.DataFrame(rows, columns=list(SPECS["cases"].columns)))


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


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    frame["identity_id"] = frame["identity_id"].astype("Int32")
    frame["age"] = frame["age"].astype("float32")
    frame["age_gap"] = frame["age_gap"].astype("float32")
    return frame
