"""Choosing the distance below which two images show one person: against known people, or from the distances alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.escape import csv_text
from ffhqref.core.files import write_atomic
from ffhqref.core.images import save_png
from ffhqref.reference_sets.agreement import agreement
from ffhqref.reference_sets.audit import contact_sheet
from ffhqref.reference_sets.groups import group_identities
from ffhqref.reference_sets.pairs import pairs_of
from ffhqref.reference_sets.references import identity_pairs
from ffhqref.reference_sets.vectors import Embeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from ffhqref.reference_sets.options import BuildConfig

STEPS = 100
"""Thresholds that are tried."""

MOST_IMAGES = 4000
"""Images of known people that the curve is made from, whole people; their pairs fit in memory at any threshold."""

BIN = 0.0005
"""Width of a bin of the histogram: dlib's distances of one person end at 0.06."""

FEWEST_PAIRS = 5
"""Pairs below a valley; fewer are no mode of one person's images."""

BEYOND = 1.25
"""Without a better threshold, distances up to so many times the present one are near misses."""


def threshold_curve(embeddings: Embeddings, people: Mapping[str, str], grouping: str) -> pd.DataFrame:
    """Return how well the identities at each threshold agree with known people.

    The curve ends where nearer pairs are five times those of one person: no threshold beyond is of use.

    Args:
        embeddings: of the images; those of nobody known are left out.
        people: image id to person.
        grouping: how pairs become identities, see `group_identities`.

    Returns:
        threshold, precision, recall, f1 (over pairs of images, of the identities made), pairs (nearer ones). Empty
        where no two images are of one person.
    """
    import pandas as pd

    columns = ["threshold", "precision", "recall", "f1", "pairs"]
    known = _some_people(embeddings, people)
    ours = {name: people[name] for name in known.image_ids}
    numbers = pd.Series(pd.factorize(pd.Series(ours))[0], dtype="Int64")
    same = identity_pairs(known, pd.DataFrame({"image_id": known.image_ids, "identity_id": numbers}))["distance"]
    if same.empty:
        return pd.DataFrame(columns=columns, dtype="float64")
    widest = min(1.2 * float(np.quantile(same, 0.99)), 2.0)
    pairs = pairs_of(known, widest)
    rows = []
    for threshold in np.linspace(widest / STEPS, widest, STEPS):
        near = pairs[pairs["distance"] < threshold]
        if len(near) > 5 * len(same) + len(known):
            break
        score = agreement(group_identities(known, near, float(threshold), grouping), ours)
        rows.append((float(threshold), score.precision, score.recall, score.f1, len(near)))
    return pd.DataFrame(rows, columns=columns)


def _some_people(embeddings: Embeddings, people: Mapping[str, str]) -> Embeddings:
    """Return the images of known people, of the first people by name where they are more than `MOST_IMAGES`."""
    known = sorted((people[name], name) for name in embeddings.image_ids if name in people)
    if len(known) > MOST_IMAGES:
        last = known[MOST_IMAGES][0]
        known = [(person, name) for person, name in known if person < last]
    rows = np.sort(embeddings.positions(name for _, name in known))
    return Embeddings(embeddings.image_ids[rows], embeddings.vectors[rows])


def best_of(curve: pd.DataFrame) -> pd.Series | None:
    """Return the row of the highest F1, the middle one where several have it; None for an empty curve."""
    if curve.empty:
        return None
    best = np.flatnonzero(curve["f1"] >= curve["f1"].max() - 1e-9)
    first = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)[0]
    return curve.iloc[int(first[len(first) // 2])]


def distance_histogram(embeddings: Embeddings) -> NDArray[np.int64]:
    """Return how many pairs of images lie in each bin of `BIN` from 0 to 2."""
    counts = np.zeros(round(2.0 / BIN) + 1, np.int64)
    wide = embeddings.vectors
    for start in range(0, len(wide), 512):
        block = wide[start : start + 512]
        cosines = block @ wide[start:].T
        later = np.triu_indices(len(block), 1, cosines.shape[1])
        bins = np.clip((1.0 - cosines[later]) / BIN, 0, len(counts) - 1).astype(np.int64)
        counts += np.bincount(bins, minlength=len(counts))
    return counts


def find_valley(counts: NDArray[np.int64]) -> float | None:
    """Return the distance between the pairs of one person and those of two, where the histogram has such a valley.

    The histogram is smoothed by 3 % of the distance at which most pairs lie; the valley is where it falls lowest below
    the highest point to its left. No valley: fewer than `FEWEST_PAIRS` pairs lie before it, or it falls by less than
    a third.

    Args:
        counts: from `distance_histogram`.
    """
    from scipy.ndimage import gaussian_filter1d

    if not counts.sum():
        return None
    rough = gaussian_filter1d(counts.astype(np.float64), 20)
    mode = int(rough.argmax())
    smooth = gaussian_filter1d(counts.astype(np.float64), max(1.0, 0.03 * mode))[: mode + 1]
    left = np.maximum.accumulate(smooth)
    depth = smooth / np.maximum(left, 1e-300)
    begun = np.cumsum(counts[: mode + 1]) >= FEWEST_PAIRS
    depth[~begun] = 1.0
    lowest = np.flatnonzero(depth <= depth.min() + 1e-9)
    if depth[lowest[0]] > 2 / 3:
        return None
    return float((lowest[0] + lowest[-1]) / 2 * BIN)


@dataclass(frozen=True, eq=False)
class Alone:
    """The images without a partner."""

    images: int
    beyond: int
    """Of these, those with a near miss."""
    near: pd.DataFrame
    """image_id, other_id, distance: the near misses, nearest first."""


def find_near_misses(embeddings: Embeddings, identities: pd.DataFrame, threshold: float) -> Alone:
    """Return the images without identity whose nearest image is nearer than a threshold that is not the build's.

    Args:
        embeddings: of every image.
        identities: the table.
        threshold: distances below it are near misses.
    """
    import pandas as pd

    single = identities.loc[identities["identity_id"].isna(), "image_id"]
    rows = embeddings.positions(single)
    found: dict[tuple[str, str], float] = {}
    beyond = 0
    for start in range(0, len(rows), 512):
        part = rows[start : start + 512]
        cosines = embeddings.vectors[part] @ embeddings.vectors.T
        cosines[np.arange(len(part)), part] = -2.0
        nearest = cosines.argmax(axis=1)
        for row, other, distance in zip(part, nearest, embeddings.pair_distances(part, nearest), strict=True):
            if distance < threshold:
                beyond += 1
                first, second = sorted((embeddings.image_ids[row], embeddings.image_ids[other]))
                found[first, second] = float(distance)
    items = sorted((distance, *names) for names, distance in found.items())
    near = pd.DataFrame([(a, b, d) for d, a, b in items], columns=["image_id", "other_id", "distance"])
    return Alone(len(rows), beyond, near)


def near_miss_sheet(near: pd.DataFrame, image_of: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.uint8] | None:
    """Return a contact sheet of near misses, a pair a line; None without any."""
    rows, labels = [], []
    for first, second, distance in zip(near["image_id"], near["other_id"], near["distance"], strict=True):
        rows.append([image_of(first), image_of(second)])
        labels.append(f"{distance:.3f}  {first} - {second}")
    return contact_sheet(rows, labels, columns=4) if rows else None


def advise(
    embeddings: Embeddings,
    identities: pd.DataFrame,
    people: Mapping[str, str],
    config: BuildConfig,
    folder: Path,
    image_of: Callable[[str], NDArray[np.uint8]],
    most: int,
) -> list[str]:
    """Write what helps to choose a threshold; return what is told of it.

    Writes ``threshold.csv`` (see `threshold_curve`) where people are known, else ``distances.csv`` (the histogram: the
    lower end of each bin, and the pairs in it), and ``audit_near.png``.

    Args:
        embeddings: of every image.
        identities: the table.
        people: image id to person, where that is known.
        config: of the build.
        folder: of the files.
        image_of: image id to its pixels.
        most: pairs on the contact sheet.
    """
    curve = threshold_curve(embeddings, people, config.grouping)
    best = best_of(curve)
    if best is not None:
        proposed, table, file = float(best["threshold"]), curve, folder / "threshold.csv"
        said = (
            f"against the known people embedder.max_distance={proposed:.3g} is best: "
            f"precision {best['precision']:.3f}, recall {best['recall']:.3f}, F1 {best['f1']:.3f}"
        )
        tried, known = len(_some_people(embeddings, people)), sum(name in people for name in embeddings.image_ids)
        if tried < known:  # among more people more pairs are near by chance
            said += f", of {tried} of {known} images: with all of them the precision can be lower"
    else:
        counts = distance_histogram(embeddings)
        valley = find_valley(counts)
        proposed, table, file = valley or 0.0, _histogram_frame(counts), folder / "distances.csv"
        said = (
            "the distances of all pairs show no valley between one person and two"
            if valley is None
            else f"the distances of all pairs have a valley at embedder.max_distance={valley:.3g}"
        )
    write_atomic(file, csv_text(table).encode())
    present = config.max_distance
    alone = find_near_misses(embeddings, identities, proposed if proposed > present else BEYOND * present)
    told = f"{alone.images} images without a partner, {alone.beyond} of them just beyond {present:g}"
    sheet = near_miss_sheet(alone.near.head(most), image_of)
    if sheet is not None:
        path = folder / "audit_near.png"
        save_png(path, sheet)
        told += f" ({alone.near['distance'].iloc[0]:.3g} to {alone.near['distance'].iloc[-1]:.3g}): {path}"
    return [f"threshold: {said} (now {present:g}): {file}", told]


def _histogram_frame(counts: NDArray[np.int64]) -> pd.DataFrame:
    import pandas as pd

    used = np.flatnonzero(counts)
    bins = np.arange(used[-1] + 1 if len(used) else 0)
    return pd.DataFrame({"distance": np.round(bins * BIN, 4), "pairs": counts[bins]})
