"""Checking a reference set, ours or a downloaded one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ffhqref.reference_sets.vectors import Embeddings, stored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.reference_sets.release import Release
    from ffhqref.store.workspace import Workspace

    Finding = tuple[str, str, str | None, str, str | None, str]
    """severity, check, split, image_id, other_id, detail."""

TOLERANCE = 1e-5
"""How far a stored distance may be from the recomputed one."""


@dataclass(frozen=True)
class Limits:
    """What a reference set promises; None is not checked. The defaults are FFHQ-Ref's (ReF-LDM, section 3)."""

    max_distance: float | None = 0.4
    """References are nearer, in every split."""
    min_distance: float | None = 0.1
    """References in val and test are at least this far."""
    min_references: int | None = 2
    """References of a val or test target."""
    max_references: int | None = 9
    """References of a val or test target."""
    known_people: bool = False
    """People are known and not the network's: references may be farther, and only near-duplicates leak."""

    @property
    def near(self) -> float | None:
        """Nearer images in different splits are told."""
        return self.min_distance if self.known_people else self.max_distance


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known beside the lists; None is not checked."""

    images: Collection[str] | None = None
    """Images whose files exist."""
    sha256: Mapping[str, str] | None = None
    """Image id to hash of the file, to find one image under two ids."""
    pairs: pd.DataFrame | None = None
    """Table ``pairs``, to find near images in different splits."""
    embeddings: Embeddings | None = None
    """To recompute distances."""
    targets: Mapping[str, str] | None = None
    """Target to split as the lists name them, targets without a reference too."""

    @classmethod
    def of_workspace(cls, workspace: Workspace, images: pd.DataFrame) -> Evidence:
        """Collect what a workspace knows about the images of its table ``images``."""
        good = images[images["error"].isna()]
        there = [
            image_id
            for image_id, path in zip(good["image_id"], good["path"], strict=True)
            if workspace.image(path).is_file()
        ]
        return cls(
            images=there,
            sha256=dict(zip(images["image_id"], images["sha256"], strict=True)),
            pairs=workspace.read("pairs") if workspace.has("pairs") else None,
            embeddings=Embeddings.of_table(workspace.read("embeddings")) if workspace.has("embeddings") else None,
        )

    def checks(self) -> dict[str, bool]:
        """Return in words what can be checked, and whether it is."""
        return {
            "lists": True,
            "files": self.images is not None,
            "duplicates": self.sha256 is not None,
            "near images across splits": self.pairs is not None,
            "distances": self.embeddings is not None,
        }


def is_meant(name: str, files: Collection[str], listed: Collection[str]) -> bool:
    """Return whether a reference set can be of a data set.

    Args:
        name: of the data set. The sample, every default, has ids that FFHQ has too: all images must be its own.
        files: ids of its images.
        listed: ids that the reference set names.
    """
    shared = set(files) & set(listed)
    return shared == set(listed) if name == "sample" else bool(shared)


def identified(
    release: Release, sources: Sequence[tuple[str, Mapping[str, str], Evidence]]
) -> tuple[Release, Evidence]:
    """Find out of which images a release is, and return it with their ids and with what is known of them.

    Args:
        release: as read.
        sources: name, image id to path and evidence of the data sets that it may be of; what a later one knows wins,
            but for the files, which the first one tells.
    """
    images: Collection[str] | None = None
    found = Evidence()
    for name, files, known in sources:
        matched = release.matched(files)
        if is_meant(name, files, [matched.image_id(image) for image in release.names]):
            release, found = matched, known
            images = known.images if images is None else images
    return release, replace(found, images=images, targets=release.targets)


def validate_reference_set(
    identities: pd.DataFrame,
    references: pd.DataFrame,
    limits: Limits | None = None,
    known: Evidence | None = None,
) -> pd.DataFrame:
    """Return everything that is wrong with a reference set.

    Args:
        identities: image_id, identity_id, split.
        references: table ``references``; distances may be NaN.
        limits: what it promises.
        known: what there is beside the lists to check them against.

    Returns:
        severity (``error``: the set breaks a promise; ``warning``: look at it), check, split, image_id, other_id (may
        be null), detail; sorted by severity, check and ids. Empty: nothing found. The checks: missing_image,
        unknown_image, self_reference, doubled_reference, rank, identity_leak (an identity in two splits), split_leak
        (a target and its reference in two splits), other_identity, too_far, too_near, too_few, too_many,
        no_reference, distance (stored and recomputed differ), duplicate_file (an error across splits or between a val
        or test target and its reference), near_across_splits (a warning).
    """
    import pandas as pd

    limits, known = limits or Limits(), known or Evidence()
    images, sha256, pairs, embeddings = known.images, known.sha256, known.pairs, known.embeddings
    split_of = dict(zip(identities["image_id"], identities["split"], strict=True))
    found = _identity_findings(identities)
    exact = np.full(len(references), np.nan)
    if embeddings is not None:
        exact = embeddings.known_distances(references["target_id"], references["reference_id"])
    found += _row_findings(identities, references, limits, exact)
    found += _count_findings(references, limits)
    alone = sorted((known.targets or {}).keys() - set(references["target_id"]))
    found += [("error", "no_reference", split_of[name], name, None, "a target without any reference") for name in alone]
    if images is not None:
        named = sorted({*references["target_id"], *references["reference_id"]} - set(images))
        found += [("error", "missing_image", split_of.get(name), name, None, "no such image") for name in named]
    if sha256 is not None:
        strict = references[references["split"].isin(["val", "test"])]
        found += _duplicate_files(sha256, split_of, set(zip(strict["target_id"], strict["reference_id"], strict=True)))
    if pairs is not None:
        for a, b, distance in zip(pairs["image_a"], pairs["image_b"], pairs["distance"], strict=True):
            near = limits.near is None or distance < limits.near
            if near and a in split_of and b in split_of and split_of[a] != split_of[b]:
                detail = f"distance {distance:.6f}, {split_of[a]} and {split_of[b]}"
                found.append(("warning", "near_across_splits", split_of[a], a, b, detail))
    frame = pd.DataFrame(found, columns=["severity", "check", "split", "image_id", "other_id", "detail"])
    return frame.sort_values(["severity", "check", "image_id", "other_id"], ignore_index=True, kind="stable")


def _identity_findings(identities: pd.DataFrame) -> list[Finding]:
    known = identities[identities["identity_id"].notna()]
    first_of: dict[int, dict[str, str]] = {}
    for name, who, split in zip(known["image_id"], known["identity_id"], known["split"], strict=True):
        first_of.setdefault(int(who), {}).setdefault(str(split), name)
    found: list[Finding] = []
    for who, first in first_of.items():
        if len(first) > 1:
            splits = sorted(first)
            detail = f"identity {who} is in {' and '.join(splits)}"
            found.append(("error", "identity_leak", splits[0], first[splits[0]], first[splits[1]], detail))
    return found


def _row_findings(
    identities: pd.DataFrame, references: pd.DataFrame, limits: Limits, exact: NDArray[np.float64]
) -> list[Finding]:
    split_of = dict(zip(identities["image_id"], identities["split"], strict=True))
    known = identities[identities["identity_id"].notna()]
    identity_of = dict(zip(known["image_id"], known["identity_id"].astype("int64"), strict=True))
    found: list[Finding] = []
    seen: set[tuple[str, str]] = set()
    columns = (references[column] for column in ("target_id", "reference_id", "distance", "split"))
    for (target, reference, distance, split), recomputed in zip(zip(*columns, strict=True), exact, strict=True):
        faults: list[tuple[str, str]] = []
        if target == reference:
            faults.append(("self_reference", "the target itself is listed as its reference"))
        if (target, reference) in seen:
            faults.append(("doubled_reference", "listed twice"))
        seen.add((target, reference))
        for name in dict.fromkeys((target, reference)):
            if name not in split_of:
                faults.append(("unknown_image", f"'{name}' is not in the identities"))
            elif split_of[name] != split:
                faults.append(("split_leak", f"'{name}' belongs to {split_of[name]}"))
        if target in split_of and reference in split_of and identity_of.get(target) != identity_of.get(reference):
            faults.append(("other_identity", "target and reference are two identities"))
        faults += _distance_faults(split, distance, recomputed, limits)
        found += [("error", check, split, target, reference, detail) for check, detail in faults]
    return found


def _distance_faults(split: str, distance: float, recomputed: np.float64, limits: Limits) -> Iterator[tuple[str, str]]:
    measured = float(stored(np.array([recomputed]))[0]) if np.isfinite(recomputed) else float(distance)
    if limits.max_distance is not None and not limits.known_people and measured >= limits.max_distance:
        yield "too_far", f"distance {measured:.6f}, expected below {limits.max_distance}"
    if split != "train" and limits.min_distance is not None and measured < limits.min_distance:
        yield "too_near", f"distance {measured:.6f}, expected at least {limits.min_distance}"
    if abs(recomputed - distance) > TOLERANCE:
        yield "distance", f"stored {distance:.6f}, recomputed {recomputed:.6f}"


def _count_findings(references: pd.DataFrame, limits: Limits) -> list[Finding]:
    found: list[Finding] = []
    for key, ranks in references.groupby(["target_id", "split"])["rank"]:
        target, split = map(str, cast("tuple[str, str]", key))
        n = len(ranks)
        if sorted(ranks) != list(range(n)):
            found.append(("error", "rank", split, target, None, f"ranks {sorted(ranks)} do not count from 0"))
        if split == "train":
            continue
        if limits.min_references is not None and n < limits.min_references:
            detail = f"{n} references, expected at least {limits.min_references}"
            found.append(("error", "too_few", split, target, None, detail))
        if limits.max_references is not None and n > limits.max_references:
            detail = f"{n} references, expected at most {limits.max_references}"
            found.append(("error", "too_many", split, target, None, detail))
    return found


def _duplicate_files(
    sha256: Mapping[str, str], split_of: Mapping[str, str], listed: set[tuple[str, str]]
) -> list[Finding]:
    by_hash: dict[str, list[str]] = {}
    for name in sorted(sha256):
        by_hash.setdefault(sha256[name], []).append(name)
    found: list[Finding] = []
    for names in by_hash.values():
        for other in names[1:]:
            first = names[0]
            across = split_of.get(first) != split_of.get(other)
            leaks = across or (first, other) in listed or (other, first) in listed
            detail = "the same file" + (f", in {split_of.get(first)} and {split_of.get(other)}" if across else "")
            found.append(("error" if leaks else "warning", "duplicate_file", split_of.get(first), first, other, detail))
    return found
