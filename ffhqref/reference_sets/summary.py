"""What a user is told of a reference set, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ffhqref.datasets.stage import describe_small
from ffhqref.reference_sets.agreement import ONE_PERSON, TWO_PEOPLE, UNKNOWN, agreement
from ffhqref.reference_sets.groups import group_identities
from ffhqref.reference_sets.release import summarise_differences

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from rich.table import Table

    from ffhqref.reference_sets.build import ReferenceSet
    from ffhqref.reference_sets.options import BuildConfig
    from ffhqref.reference_sets.validate import Evidence
    from ffhqref.reference_sets.vectors import Embeddings

_SHOWN = 5
"""Images that are named one by one; of more than these only the number is told."""


def describe_images(images: pd.DataFrame) -> list[str]:
    """Return which images of the table ``images`` were left out, and why, and how many are enlarged."""
    good = images[images["error"].isna()]
    broken = images[images["error"].notna()]
    first = broken.head(_SHOWN)
    lines = [f"left out: {path}: {error}" for path, error in zip(first["path"], first["error"], strict=True)]
    if len(broken) > _SHOWN:
        lines.append(f"left out: {len(broken) - _SHOWN} more, see the column error of tables/images.parquet")
    return lines + describe_small(dict(zip(good["path"], good["width"], strict=True)), "images")


def describe_sources(sources: pd.DataFrame, small: int, min_face: int) -> list[str]:
    """Return how large faces are in what images were aligned from, and how many are too small for targets.

    Args:
        sources: the table.
        small: images that are no targets for it.
        min_face: of the build.
    """
    if sources.empty:
        return []
    face, grey = sources["face"], int(sources["grey"].sum())
    line = f"sources: faces of {face.min():.0f} to {face.max():.0f} pixels (median {face.median():.0f}), {grey} grey"
    if small:
        line += (
            f"; {small} of {len(sources)} are smaller than build.min_face={min_face} and no targets in val and test, "
            "but references"
        )
    return [line]


def describe_set(
    built: ReferenceSet, truth: Mapping[str, str] | None = None, *, known_people: bool = False
) -> list[str]:
    """Return the size of each split, suspicious identities, and the agreement with the truth where there is one.

    Args:
        built: the reference set.
        truth: person by image id, of the images whose person is known.
        known_people: whether the identities are that truth.
    """
    lines = [
        f"{split:>5}: {count['images']} images of {count['identities']} identities, {count['targets']} targets "
        f"with {count['references']} references"
        for split, count in built.counts().items()
    ]
    lines += _describe_audit(built, truth or {})
    if truth and not known_people:
        known = built.identities[built.identities["image_id"].isin(truth)]
        score = agreement(known, truth)
        exact = f"pairwise F1 {score.f1:.3f}, precision {score.precision:.3f}, recall {score.recall:.3f}"
        lines.append(f"agreement with the true identities: {exact}")
    return lines


def _describe_audit(built: ReferenceSet, truth: Mapping[str, str]) -> list[str]:
    """Return how many identities look like two people by distance, and how many are by the known people."""
    suspicious = built.audit[built.audit["suspicious"]]
    if suspicious.empty:
        return []
    line = (
        f"audit: {len(suspicious)} of {len(built.audit)} identities fall into two sides that are on average farther "
        f"apart (up to {suspicious['gap'].max():.3g}) than the threshold of a reference: one varied person, or two "
    )
    members = built.identities[built.identities["identity_id"].isin(suspicious["identity_id"])]
    people = members["image_id"].map(truth).groupby(members["identity_id"]).nunique()
    if truth:
        line += f"merged; by the known people {int((people > 1).sum())} of them are two"
    else:
        line += "merged; look at the worst with `ffhqref audit`"
    return [line]


def describe_known(
    built: ReferenceSet, embeddings: Embeddings, people: Mapping[str, str], config: BuildConfig, differing: pd.DataFrame
) -> list[str]:
    """Return what a user must know of a set whose people are known, and how far the network agrees.

    Args:
        built: the set, of ``identity="truth"``.
        embeddings: of its images.
        people: image id to person.
        config: of the build.
        differing: from `ffhqref.reference_sets.agreement.disagreements`.
    """
    known = [name for name in embeddings.image_ids if name in people]
    persons = {people[name] for name in known}
    lines = [f"identities from truth: {len(known)} images of {len(persons)} people"]
    if len(known) < len(embeddings):
        lines[0] += f"; {len(embeddings) - len(known)} images of nobody known have no references"
    threshold = config.max_distance if config.grouping_threshold is None else config.grouping_threshold
    near = built.pairs[built.pairs["distance"] < threshold]
    grouped = group_identities(embeddings, near, threshold, config.grouping)
    score = agreement(grouped[grouped["image_id"].isin(people)], people)
    lines.append(
        f"the network alone at {threshold:g}: precision {score.precision:.3f}, recall {score.recall:.3f}; "
        "a better threshold: `ffhqref audit`"
    )
    counts = differing["what"].value_counts()
    told = {
        ONE_PERSON: f"of one person at {config.max_distance:g} or more",
        TWO_PEOPLE: "of two people nearer",
        UNKNOWN: "of a known and an unknown person nearer",
    }
    said = [f"{counts[what]} pairs {words}" for what, words in told.items() if counts.get(what)]
    lines.append(f"disagreements with the network: {', '.join(said) or 'none'}")
    return lines


def describe_neighbours(built: ReferenceSet, max_distance: float) -> list[str]:
    """Return how many near images lie in different splits: one person may be in both.

    The published grouping (components) puts all near images into one identity, the others do not.

    Args:
        built: the reference set.
        max_distance: nearer images count as one person.
    """
    split_of = dict(zip(built.identities["image_id"], built.identities["split"], strict=True))
    near = built.pairs[built.pairs["distance"] < max_distance]
    across = [
        (a, b)
        for a, b in zip(near["image_a"], near["image_b"], strict=True)
        if isinstance(split_of.get(a), str) and isinstance(split_of.get(b), str) and split_of[a] != split_of[b]
    ]
    if not across:
        return []
    first, second = across[0]
    return [
        (
            f"{len(across)} pairs of images nearer than {max_distance:g} lie in different splits, first '{first}' "
            f"({split_of[first]}) and '{second}' ({split_of[second]}): one person may be in both; see `ffhqref "
            "validate`, or build with embedder.grouping=components"
        )
    ]


def describe_differences(ours: pd.DataFrame, theirs: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """Return how far a release and our builder agree, one line a split; arguments as of `summarise_differences`."""
    return [
        f"release, {row.split}: {row.targets} targets; of our builder's from the same embeddings {row.equal} have "
        f"the same references, {row.reordered} in another order, {row.changed} others, {row.elsewhere} another "
        f"split; {row.absent} are no targets there, {row.ours_only} only there"
        for row in summarise_differences(ours, theirs, differences).itertuples(index=False)
    ]


def findings_table(found: pd.DataFrame, first: int) -> Table:
    """Return the findings of `validate_reference_set` as a table for the terminal, the first ones of each kind."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("severity", "check", "count", "split", "image", "other", "what"):
        table.add_column(column, overflow="fold")
    for (severity, check), group in found.groupby(["severity", "check"]):
        shown = group.head(first).astype(object)
        rows = shown.where(shown.notna(), "").itertuples(index=False)
        for place, row in enumerate(rows):
            kind = (severity, check, f"{len(group):,}") if place == 0 else ("", "", "")
            cells = (*kind, row.split, row.image_id, row.other_id, row.detail)
            table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def describe_findings(found: pd.DataFrame, references: pd.DataFrame, known: Evidence) -> str:
    """Return how much was checked and found, two lines."""
    checks = known.checks()
    done, left = ([name for name, is_done in checks.items() if is_done == wanted] for wanted in (True, False))
    errors = int((found["severity"] == "error").sum())
    return (
        f"{references['target_id'].nunique()} targets with {len(references)} references: {errors} errors, "
        f"{len(found) - errors} warnings\nchecked: {', '.join(done)}"
        + (f"; not checked: {', '.join(left)} (build the set's workspace first, see root=)\n" if left else "\n")
    )
