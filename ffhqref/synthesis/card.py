"""The data card of a synthetic set, and the sheet of images to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.reference_sets.audit import contact_sheet
from ffhqref.reference_sets.card import FILTERS, page_environment

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.synthesis.base import RendererInfo

CLASSES = 10
"""Classes of the similarity's histogram."""
REASONS = 8
"""Reasons of failure that the card lists."""


@dataclass(frozen=True)
class SyntheticCard:
    """What the card says."""

    renderer: RendererInfo
    targets: int
    buckets: int
    accepted: int
    missing: int
    complete: int
    """Targets with an image in every bucket."""
    statuses: Mapping[str, int]
    """Status to number of attempts."""
    by_bucket: tuple[tuple[str, int, int, int], ...]
    """Name, pose images in the pool, accepted, missing."""
    similarities: tuple[tuple[str, int, int], ...]
    """Class by its lower end, accepted and rejected attempts in it."""
    reasons: tuple[tuple[str, int], ...]
    """Why attempts failed."""
    settings: Mapping[str, str]


def describe(
    info: RendererInfo,
    buckets: pd.DataFrame,
    attempts: pd.DataFrame,
    references: pd.DataFrame,
    settings: Mapping[str, str],
) -> SyntheticCard:
    """Collect the card's numbers.

    Args:
        info: of the renderer.
        buckets: from `ffhqref.synthesis.plan.make_buckets`.
        attempts: table ``synthesis_attempts``.
        references: table ``synthetic_references``.
        settings: choices to print, by name.
    """
    accepted = references[references["status"] == "accepted"]
    whole = references.groupby("target_id")["status"].apply(lambda part: bool((part == "accepted").all()))
    pool = buckets.groupby(["pose_bucket", "expression_bucket"]).size().to_dict()
    lines = []
    for (i, j), part in references.groupby(["pose_bucket", "expression_bucket"]):
        got = int((part["status"] == "accepted").sum())
        lines.append((f"{i}_{j}", int(pool.get((i, j), 0)), got, len(part) - got))
    failed = attempts.loc[attempts["status"] == "failed", "error"].value_counts()
    return SyntheticCard(
        renderer=info,
        targets=int(references["target_id"].nunique()),
        buckets=len(lines),
        accepted=len(accepted),
        missing=len(references) - len(accepted),
        complete=int(whole.sum()),
        statuses={str(name): int(count) for name, count in sorted(attempts["status"].value_counts().items())},
        by_bucket=tuple(lines),
        similarities=_histogram(attempts),
        reasons=tuple((str(reason), int(count)) for reason, count in failed.head(REASONS).items()),
        settings=dict(settings),
    )


def _rows(frame: pd.DataFrame) -> list[Any]:
    return list(frame.itertuples(index=False))


def _histogram(attempts: pd.DataFrame) -> tuple[tuple[str, int, int], ...]:
    known = attempts[attempts["similarity"].notna()]
    if known.empty:
        return ()
    values = known["similarity"].to_numpy(np.float64)
    edges = np.linspace(values.min(), values.max() + 1e-9, CLASSES + 1)
    good = (known["status"] == "accepted").to_numpy()
    counts = [np.histogram(values[chosen], edges)[0] for chosen in (good, ~good)]
    return tuple((f"{edges[k]:.3f}", int(counts[0][k]), int(counts[1][k])) for k in range(CLASSES))


def to_markdown(card: SyntheticCard) -> str:
    """Return the card as GitHub-flavoured Markdown."""
    environment = page_environment(escape=False)
    environment.filters |= FILTERS
    return str(environment.get_template("synthetic.md.j2").render(card=card))


def sheet(
    references: pd.DataFrame,
    targets: Sequence[str],
    image_of: Callable[[str], NDArray[np.uint8]],
    made: Callable[[str], NDArray[np.uint8]],
    *,
    side: int = 128,
) -> NDArray[np.uint8]:
    """Draw targets one below the other: the target and its references, and below these their pose images.

    A bucket without a reference is grey.

    Args:
        references: table ``synthetic_references``.
        targets: whom to draw.
        image_of: reads an image of the data set by its id.
        made: reads a reference by its path.
        side: pixels of a thumbnail.

    Returns:
        uint8 RGB [height, width, 3].
    """
    rows, labels = [], []
    grey = np.full((side, side, 3), 190, np.uint8)
    columns = 1
    for target in targets:
        part = references[references["target_id"] == target].sort_values(["pose_bucket", "expression_bucket"])
        columns = max(columns, 1 + len(part))
        images, poses, words = [image_of(target)], [np.full_like(grey, 255)], []
        for row in _rows(part):
            there = row.status == "accepted"
            images.append(made(row.path) if there else grey)
            poses.append(image_of(row.pose_id) if there else grey)
            word = f"{row.similarity:.3f}" if there else "missing"
            words.append(f"{row.pose_bucket}_{row.expression_bucket} {word}")
        rows += [images, poses]
        labels += [f"{target}: {', '.join(words)}", "the pose images"]
    return contact_sheet(rows, labels, side=side, columns=columns)
