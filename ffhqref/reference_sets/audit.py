"""Looking for identities that are two people: chains, bridges, and what a second network says.

Connected components join two people by one wrong pair. For every identity this
module finds its *weakest edge*: the longest edge of the minimum spanning tree of all its images. Every path between
the two sides of that edge contains a step at least as long, so if the identity is two people, this is where they were
joined. Whether they were is told by the mean distance between the two sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError, DatasetError, TableError
from ffhqref.datasets.stage import ImageRow
from ffhqref.faces.store import embed_images
from ffhqref.reference_sets.pairs import pairs_of
from ffhqref.reference_sets.vectors import Embeddings, check_distance, distances_to

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.engine.base import Engine
    from ffhqref.engine.run import Progress
    from ffhqref.faces.stage import EmbedStage


def audit_identities(
    embeddings: Embeddings,
    identities: pd.DataFrame,
    *,
    max_distance: float,
    second: Embeddings | None = None,
    second_max_distance: float | None = None,
) -> pd.DataFrame:
    """Return one row an identity of several images, the most suspicious first.

    Args:
        embeddings: those the identities were made from.
        identities: image_id, identity_id.
        max_distance: the threshold of a reference.
        second: embeddings of the same images by another network.
        second_max_distance: below this the second network sees one person.

    Returns:
        identity_id; size; diameter (largest distance of two of its images); mean_distance; direct_share (share of its
        pairs below ``max_distance``; 1: a clique); weakest_edge with weakest_a, weakest_b and smaller_side (images on
        the smaller side of it); gap (mean distance between the two sides); suspicious (the two sides are on average
        no references of each other: gap >= ``max_distance``); with a second network second_disagreement (share of the
        pairs below ``max_distance`` that it calls two people) and second_gap (its mean distance between the two
        sides). Sorted by gap, largest first, then by identity_id.

    Raises:
        ConfigError: a second network without its threshold.
        DatasetError: an image without embedding.
    """
    import pandas as pd

    if (second is None) != (second_max_distance is None):
        raise ConfigError("audit: the second embeddings and their threshold second_max_distance go together")
    check_distance("max_distance", max_distance)
    known = identities[identities["identity_id"].notna()]
    rows = embeddings.positions(known["image_id"])
    number = known["identity_id"].to_numpy(np.int64)
    order = np.lexsort((rows, number))
    groups = np.split(rows[order], np.flatnonzero(np.diff(number[order])) + 1) if len(rows) else []
    found = []
    for identity, members in zip(np.unique(number), groups, strict=True):
        if len(members) < 2:  # of a release some of whose images are not here
            continue
        chain = _chain(embeddings.units(members), max_distance)
        entry = {
            "identity_id": int(identity),
            "size": len(members),
            "diameter": chain.diameter,
            "mean_distance": chain.mean_distance,
            "direct_share": chain.direct_share,
            "weakest_edge": chain.weakest_edge,
            "weakest_a": embeddings.image_ids[members[chain.weakest[0]]],
            "weakest_b": embeddings.image_ids[members[chain.weakest[1]]],
            "smaller_side": int(min(chain.side.sum(), (~chain.side).sum())),
            "gap": chain.gap,
            "suspicious": chain.gap >= max_distance,
        }
        if second is not None and second_max_distance is not None:
            units = second.units(second.positions(embeddings.image_ids[members]))
            entry["second_disagreement"] = _disagreement(
                embeddings.units(members), units, max_distance, second_max_distance
            )
            entry["second_gap"] = _gap(units, chain.side)
        found.append(entry)
    columns = [
        "identity_id", "size", "diameter", "mean_distance", "direct_share", "weakest_edge", "weakest_a", "weakest_b",
        "smaller_side", "gap", "suspicious",
    ]  # fmt: skip
    if second is not None:
        columns += ["second_disagreement", "second_gap"]
    frame = pd.DataFrame(found, columns=columns)
    return frame.sort_values(["gap", "identity_id"], ascending=[False, True], ignore_index=True)


@dataclass(frozen=True, eq=False)
class _Chain:
    diameter: float
    mean_distance: float
    direct_share: float
    weakest_edge: float
    weakest: tuple[int, int]
    side: NDArray[np.bool_]
    gap: float


def _chain(units: NDArray[np.float64], max_distance: float) -> _Chain:
    """Grow the minimum spanning tree image by image (Prim): memory of a few rows however large the identity."""
    n = len(units)
    parent = np.zeros(n, np.intp)
    reach = np.full(n, np.inf)
    inside = np.zeros(n, bool)
    joined: list[int] = []
    lengths = np.full(n, -1.0)  # the first image joins by no edge, and never is the weakest one
    diameter, total, direct = 0.0, 0.0, 0
    newest = 0
    for _ in range(n):
        inside[newest] = True
        joined.append(newest)
        row = distances_to(units, newest)
        diameter = max(diameter, float(row.max()))
        total += float(row.sum())
        direct += int((row < max_distance).sum()) - 1
        nearer = (row < reach) & ~inside
        reach[nearer], parent[nearer] = row[nearer], newest
        open_reach = np.where(inside, np.inf, reach)
        newest = int(np.argmin(open_reach))
        if not inside[newest]:
            lengths[newest] = reach[newest]
    cut = int(np.argmax(lengths))
    side = np.zeros(n, bool)
    side[cut] = True
    for node in joined:  # parents join before their children
        side[node] |= node != joined[0] and side[parent[node]]
    return _Chain(
        diameter=diameter,
        mean_distance=total / (n * (n - 1)),
        direct_share=direct / (n * (n - 1)),
        weakest_edge=float(lengths[cut]),
        weakest=(min(int(parent[cut]), cut), max(int(parent[cut]), cut)),
        side=side,
        gap=_gap(units, side),
    )


def _gap(units: NDArray[np.float64], side: NDArray[np.bool_]) -> float:
    """Mean distance between two sides: one minus the product of their mean unit vectors."""
    return max(0.0, 1.0 - float((units[side].mean(axis=0) * units[~side].mean(axis=0)).sum()))


def _disagreement(
    units: NDArray[np.float64], second: NDArray[np.float64], max_distance: float, second_max_distance: float
) -> float:
    same = differ = 0
    for i in range(len(units)):
        near = distances_to(units, i) < max_distance
        near[i] = False
        same += int(near.sum())
        differ += int((near & (distances_to(second, i) >= second_max_distance)).sum())
    return differ / same if same else 0.0


def calibrate_threshold(
    distances: NDArray[np.floating],
    second_distances: NDArray[np.floating],
    second_max_distance: float,
    thresholds: Sequence[float] | NDArray[np.floating],
) -> pd.DataFrame:
    """Compare a network's decisions at many thresholds with a second network's decision on the same pairs.

    The threshold of highest F1 is the one at which the first network agrees best with a second whose threshold is
    known. Take pairs well beyond any plausible threshold, or the recall is blind to what was left out.

    Args:
        distances: [M] distances of M pairs by the first network.
        second_distances: [M] distances of the same pairs by the second.
        second_max_distance: below this the second network sees one person.
        thresholds: the first network's thresholds to try.

    Returns:
        threshold, precision, recall, f1 (the second network's decision as truth; NaN where undefined), pairs (how
        many the first network accepts); in the order of ``thresholds``.

    Raises:
        DatasetError: the two arrays differ in length.
    """
    import pandas as pd

    if len(distances) != len(second_distances):
        raise DatasetError(f"calibration: {len(distances)} distances against {len(second_distances)} of the second")
    truth = np.asarray(second_distances) < second_max_distance
    rows = []
    for threshold in thresholds:
        accepted = np.asarray(distances) < threshold
        both, n = int((accepted & truth).sum()), int(accepted.sum())
        precision = both / n if n else float("nan")
        recall = both / int(truth.sum()) if truth.any() else float("nan")
        f1 = 2.0 * both / (n + int(truth.sum())) if n or truth.any() else float("nan")
        rows.append((float(threshold), precision, recall, f1, n))
    return pd.DataFrame(rows, columns=["threshold", "precision", "recall", "f1", "pairs"])


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    labels: Sequence[str] | None = None,
    *,
    side: int = 128,
    columns: int = 10,
) -> NDArray[np.uint8]:
    """Draw identities one below the other, each over as many lines as it needs.

    Args:
        rows: for each identity its images, uint8 RGB [H, W, 3] of any size.
        labels: one line of text for each identity, drawn above it.
        side: pixels of a thumbnail.
        columns: thumbnails a line.

    Returns:
        uint8 RGB [height, columns * side, 3].
    """
    from PIL import Image, ImageDraw

    text_height = 16 if labels is not None else 0
    heights = [text_height + side * max(1, -(-len(row) // columns)) for row in rows]
    sheet = Image.new("RGB", (columns * side, max(1, sum(heights))), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for k, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if labels is not None:
            draw.text((4, top + 2), labels[k], fill="black")
        for i, picture in enumerate(row):
            thumbnail = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(thumbnail, (side * (i % columns), top + text_height + side * (i // columns)))
        top += height
    return np.asarray(sheet, dtype=np.uint8).copy()


def embed_again(
    images: pd.DataFrame,
    image_ids: Sequence[str],
    stage: EmbedStage,
    folder: Path,
    *,
    engine: Engine,
    progress: Progress | None = None,
) -> Embeddings:
    """Return the embeddings of the same images by another network.

    Args:
        images: the table.
        image_ids: which, in this order.
        stage: of the other network.
        folder: of the stored vectors.
        engine: where the network runs.
        progress: called as work goes on.

    Raises:
        TableError: an image cannot be embedded.
    """
    wanted = images.set_index("image_id").loc[list(image_ids)].reset_index()[["image_id", "path", "sha256"]]
    rows = [ImageRow(*row) for row in wanted.itertuples(index=False, name=None)]
    made = embed_images(stage, rows, folder, engine=engine, progress=progress)
    if made.errors:
        name, reason = next(iter(made.errors.items()))
        raise TableError(f"audit: {len(made.errors)} images cannot be embedded again, first {name}: {reason}")
    return Embeddings.checked(made.image_ids, made.vectors)


def worst_identities(
    identities: pd.DataFrame, worst: pd.DataFrame, image_of: Callable[[str], NDArray[np.uint8]]
) -> NDArray[np.uint8] | None:
    """Return a contact sheet of identities, one a line with its figures; None without any.

    Args:
        identities: the table.
        worst: rows of `audit_identities`.
        image_of: image id to the image, 128x128.
    """
    images, labels = [], []
    for row in worst.itertuples(index=False):
        members = identities.loc[identities["identity_id"] == row.identity_id, "image_id"]
        images.append([image_of(name) for name in members])
        labels.append(
            f"identity {row.identity_id}: gap {row.gap:.3f}, diameter {row.diameter:.3f}, "
            f"weakest edge {row.weakest_a} - {row.weakest_b} at {row.weakest_edge:.3f}"
        )
    return contact_sheet(images, labels) if images else None


def calibration(first: Embeddings, second: Embeddings, limit: float, max_distance: float) -> pd.DataFrame:
    """Return `calibrate_threshold` over the pairs up to twice a threshold.

    Args:
        first: embeddings whose threshold is asked for.
        second: of the same images by a network whose threshold is known.
        limit: that threshold.
        max_distance: the present threshold of the first.
    """
    widest = 2.0 * max_distance
    pairs = pairs_of(first, min(widest, 1.9))
    left, right = first.positions(pairs["image_a"]), first.positions(pairs["image_b"])
    theirs = second.pair_distances(second.positions(pairs["image_a"]), second.positions(pairs["image_b"]))
    steps = np.linspace(0.02 * widest, widest, 50)
    return calibrate_threshold(first.pair_distances(left, right), theirs, limit, steps)
