"""Checking a reference set, ours or a downloaded one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from ffhqref.reference_sets.vectors import Embeddings, stored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    Finding = tuple[str, str, str | None, str, str | None, str]
    """severity, check, split, image_id, other_id, detail."""

TOLERANCE = 1e-5
"""How far a stored distance may be from the recomputed one."""


@dataclass(frozen=True)
class Limits:
    """What a reference set promises; None is not checked. The defaults are FFHQ-Ref's (protocols.md 1.2)."""

    max_distance: float | None = 0.4
    """References are nearer, in every split."""
    min_distance: float | None = 0.1
    """References in val and test are at least this far."""
    min_references: int | None = 2
    """References of a val or test target."""
    max_references: int | None = 9
    """References of a val or test target."""


def validate_reference_set(
    identities: pd.DataFrame,
    references: pd.DataFrame,
    limits: Limits | None = None,
    *,
    images: Collection[str] | None = None,
    sha256: Mapping[str, str] | None = None,
    pairs: pd.DataFrame | None = None,
    embeddings: Embeddings | None = None,
) -> pd.DataFrame:
    """Return everything that is wrong with a reference set.

    Args:
        identities: image_id, identity_id, split.
        references: table ``references``; distances may be NaN.
        limits: what it promises.
        images: image ids whose files exist.
        sha256: image id to hash of the file, to find one picture under two ids.
        pairs: table ``pairs``, to find near images in different splits.
        embeddings: to recompute distances.

    Returns:
        severity (``error``: the set breaks a promise; ``warning``: look at it), check, split, image_id, other_id (may
        be null), detail; sorted by severity, check and ids. Empty: nothing found. The checks: missing_image,
        unknown_image, self_reference, doubled_reference, rank, identity_leak (an identity in two splits), split_leak
        (a target and its reference in two splits), other_identity, too_far, too_near, too_few, too_many, distance
        (stored and recomputed differ), duplicate_file (an error across splits or between a val or test target and its
        reference), near_across_splits (a warning).
    """
    import pandas as pd

    limits = limits or Limits()
    split_of = dict(zip(identities["image_id"], identities["split"], strict=True))
    found = _identity_findings(identities)
    exact = np.full(len(references), np.nan)
    if embeddings is not None:
        exact = embeddings.known_distances(references["target_id"], references["reference_id"])
    found += _row_findings(identities, references, limits, exact)
    found += _count_findings(references, limits)
    if images is not None:
        named = sorted({*references["target_id"], *references["reference_id"]} - set(images))
        found += [("error", "missing_image", split_of.get(name), name, None, "no such picture") for name in named]
    if sha256 is not None:
        strict = references[references["split"].isin(["val", "test"])]
        found += _duplicate_files(sha256, split_of, set(zip(strict["target_id"], strict["reference_id"], strict=True)))
    if pairs is not None:
        for a, b, distance in zip(pairs["image_a"], pairs["image_b"], pairs["distance"], strict=True):
            near = limits.max_distance is None or distance < limits.max_distance
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
    if limits.max_distance is not None and measured >= limits.max_distance:
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
