"""Means within sub-groups of cases, and the same targets under two conditions."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError
from ffhqref.core.seeding import case_seed
from ffhqref.leaderboard.case_values import identity_codes
from ffhqref.leaderboard.statistics import ALPHA, cluster_sums, max_t_p_values, mean_interval
from ffhqref.metrics.base import GROUND_TRUTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ffhqref.leaderboard.case_values import CaseValues
    from ffhqref.leaderboard.options import FailurePolicy
    from ffhqref.leaderboard.report_data import ReportData

AGE_GAP_EDGES = (0.0, 5.0, 10.0, 20.0, 30.0, 120.0)
"""Years between a target and the references it is restored with: the mean of the gaps without sign."""
POSE_EDGES = (0.0, 10.0, 20.0, 30.0, 45.0, 90.0)
"""Degrees from the frontal face, without sign, for attributes whose name ends in yaw, pitch or roll."""
DISTANCE_SHARES = (0.0, 0.25, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Edges of 1 - cosine between target and its best reference, as shares of the largest distance of a reference: each
embedder has its own scale. FFHQ-Ref's limit is 0.4, dlib's 0.048."""


def case_features(
    cases: pd.DataFrame,
    references: pd.DataFrame | None = None,
    degradations: pd.DataFrame | None = None,
    attributes: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return what is known of each case beside its images, as numbers to group or plot by.

    Args:
        cases: table ``cases``.
        references: table ``references`` with ``path`` as in ``reference_paths``, for the distance of the best of the
            references that a case has.
        degradations: table ``degradations``; rows and cases meet by their low-quality image.
        attributes: table ``attributes`` with ``path``, where the image lies; those of the ground truths that are
            numbers throughout become features. What is called like an image of the data set need not be one.

    Returns:
        ``benchmark, case_id`` and, NaN where unknown, ``age_gap`` (years, mean without sign over the
        references used), ``n_references``, ``best_distance`` (1 - cosine; NaN too where none of a case's references
        is in the table, as some of the age sets' are not), ``strength`` (0..1: mean percentile, within all degraded
        images, of blur, down-sampling, noise and JPEG loss), and a column for each numeric attribute, poses
        (`is_pose`) without sign.
    """
    frame = cases[["benchmark", "case_id"]].copy()
    frame["age_gap"] = cases["age_gap"].astype(float).abs()
    frame["n_references"] = cases["reference_paths"].map(len).astype(float)
    frame["best_distance"] = np.nan
    if references is not None and len(references):
        frame["best_distance"] = _best_distances(cases, references)
    frame["strength"] = np.nan
    if degradations is not None and len(degradations):
        once = degradations.drop_duplicates(["target_id", "level"])  # joined workspaces may both have one
        parts = {
            "blur": once["sigma_x"] + once["sigma_y"],
            "scale": once["scale"],
            "noise": once["noise_sigma"],
            "jpeg": -once["jpeg_quality"].astype(float),
        }
        strength = np.mean([column.rank(pct=True).to_numpy(float) for column in parts.values()], axis=0)
        of_image = dict(zip(zip(once["target_id"], once["level"], strict=True), strength, strict=True))
        images = zip(degradations["target_id"], degradations["level"], strict=True)
        known = {path: of_image[image] for path, image in zip(degradations["lq_path"], images, strict=True)}
        frame["strength"] = [known.get(path, np.nan) for path in cases["lq_path"]]
    if attributes is not None:
        for name, values in _numeric(attributes, cases["gt_path"]).items():
            if name not in frame.columns and name != "age":  # a case knows its age, whatever this column says
                found = cases["gt_path"].map(values).astype(float)
                frame[name] = found.abs() if is_pose(name) else found
    return frame.reset_index(drop=True)


def _best_distances(cases: pd.DataFrame, references: pd.DataFrame) -> list[float]:
    """Return the smallest known distance of each case's own references; a benchmark may use a part of the table."""
    distances = references["distance"].to_numpy(np.float64, na_value=np.nan)
    known = dict(zip(zip(references["target_id"], references["path"], strict=True), distances.tolist(), strict=True))
    found = []
    for target, ours, paths in zip(cases["target_id"], cases["gt_path"].notna(), cases["reference_paths"], strict=True):
        own = [known.get((target, path), math.nan) for path in paths if ours]
        found.append(min((distance for distance in own if not math.isnan(distance)), default=math.nan))
    return found


def is_pose(feature: str) -> bool:
    """Return whether a feature is an angle of the head by its name: ``yaw``, ``head_pitch``, ``headPose.roll``."""
    return feature.lower().endswith(("yaw", "pitch", "roll"))


def _numeric(attributes: pd.DataFrame, truths: pd.Series[str]) -> dict[str, dict[str, float]]:
    """Return the attributes that are finite numbers wherever a ground truth has one: name to its path to number."""
    import pandas as pd

    found = {}
    mine = attributes[attributes["path"].isin(set(truths.dropna()))]
    for name, part in mine.groupby("attribute", sort=True):
        numbers = pd.to_numeric(part["value"], errors="coerce").astype(float)
        if np.isfinite(numbers).all():
            found[str(name)] = dict(zip(part["path"], numbers, strict=True))
    return found


def bins(features: pd.DataFrame, *, quantiles: int = 5, max_distance: float | None = None) -> pd.DataFrame:
    """Cut features into groups with readable labels.

    Age gap, distance and poses are cut at fixed edges, so that two reports can be compared; the number of references
    stays as it is; anything else is cut into ``quantiles`` parts of equal size.

    Args:
        features: from `case_features`.
        quantiles: parts of a feature without fixed edges.
        max_distance: largest distance of a reference, in the scale of the embedder that measured the distances; None:
            not known, and distances are cut into ``quantiles`` parts too.

    Returns:
        ``benchmark, case_id, feature, group`` (label), ``order`` (int), ``middle`` (median of the feature in the
        group).
    """
    import pandas as pd

    poses = [feature for feature in features.columns if is_pose(feature)]
    edges: dict[str, tuple[float, ...]] = {"age_gap": AGE_GAP_EDGES, **dict.fromkeys(poses, POSE_EDGES)}
    if max_distance:
        edges["best_distance"] = (*(round(share * max_distance, 6) for share in DISTANCE_SHARES), 2.0)
    units = {"age_gap": " y", **dict.fromkeys(poses, "°")}
    frames = []
    for feature in features.columns.difference(["benchmark", "case_id"], sort=False):
        known = features[features[feature].notna()]
        values = known[feature].astype(float)
        if values.nunique() < 2:
            continue
        if feature in edges:
            marks = np.array(edges[feature])
        elif values.nunique() <= 12 and (values % 1 == 0).all():
            marks = np.append(np.unique(values), np.inf)
        else:
            marks = np.unique(np.quantile(values, np.linspace(0, 1, quantiles + 1)))
        order = np.clip(np.searchsorted(marks, values, side="right") - 1, 0, len(marks) - 2)
        if np.isinf(marks[-1]):
            labels = [f"{mark:g}" for mark in marks[:-1]]
        else:
            unit = units.get(feature, "")
            labels = [f"{a:.3g}–{b:.3g}{unit}" for a, b in pairwise(marks)]
        frame = known[["benchmark", "case_id"]].assign(
            feature=feature, order=order, group=[labels[place] for place in order]
        )
        frame["middle"] = values.groupby(order).transform("median")
        frames.append(frame)
    columns = ["benchmark", "case_id", "feature", "group", "order", "middle"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def subgroup_means(
    blocks: Sequence[CaseValues],
    groups: pd.DataFrame,
    failures: FailurePolicy = "worst",
    *,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> pd.DataFrame:
    """Return means with intervals over identities within groups of cases.

    Args:
        blocks: the scores of each benchmark.
        groups: from `bins`, or any frame with ``benchmark, case_id, feature, group, order, middle``.
        failures: what a failed case counts as.
        seed: of the resampling.
        n_bootstrap: resamples.

    Returns:
        ``benchmark, feature, group, order, middle, method, metric, mean, low, high, n, n_identities``.
    """
    import pandas as pd

    frames = []
    for block in blocks:
        values = block.counted(failures).reshape(len(block.case_ids), -1)
        place = {case_id: index for index, case_id in enumerate(block.case_ids)}
        method, metric = np.meshgrid(block.methods, block.metrics, indexing="ij")
        mine = groups[groups["benchmark"] == block.benchmark]
        for (feature, order), part in mine.groupby(["feature", "order"], sort=True, observed=True):
            rows = np.array([place[case_id] for case_id in part["case_id"]])
            key = case_seed(seed, "subgroup", block.benchmark, str(feature), str(order))
            found = mean_interval(
                values[rows], block.identities[rows], seed=key, n_bootstrap=n_bootstrap,
                binary=np.tile(block.binary, len(block.methods)),
            )  # fmt: skip
            frames.append(
                pd.DataFrame(
                    {
                        "benchmark": block.benchmark, "feature": feature, "group": part["group"].iloc[0],
                        "order": order, "middle": float(part["middle"].iloc[0]), "method": method.ravel(),
                        "metric": metric.ravel(), "mean": found.mean, "low": found.low, "high": found.high,
                        "n": found.n, "n_identities": found.n_identities,
                    }
                )
            )  # fmt: skip
    columns = [
        "benchmark", "feature", "group", "order", "middle", "method", "metric", "mean", "low", "high", "n",
        "n_identities",
    ]  # fmt: skip
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    return frame[frame["n"] > 0].reset_index(drop=True)


def paired_benchmarks(report: ReportData, first: str, second: str) -> pd.DataFrame:
    """Compare every method under two conditions on the targets they share, such as same-age and cross-age references.

    Args:
        report: of both; cases are paired by ``target_id``.
        first: benchmark, for instance ``same_age``.
        second: benchmark, for instance ``cross_age``.

    Returns:
        The columns of the table ``comparisons``.

    Raises:
        ConfigError: no shared target.
    """
    import pandas as pd

    cases, n_bootstrap = report.cases, report.options.n_bootstrap
    blocks = {block.benchmark: block for block in report.blocks if block.benchmark in (first, second)}
    missing = [name for name in (first, second) if name not in blocks]
    if missing:
        raise ConfigError(f"no scores of benchmark {', '.join(missing)} to compare")
    target = cases.set_index(["benchmark", "case_id"])["target_id"]
    rows = {
        name: {target[name, case_id]: index for index, case_id in enumerate(block.case_ids)}
        for name, block in blocks.items()
    }
    shared = sorted(set(rows[first]) & set(rows[second]))
    if not shared:
        raise ConfigError(f"benchmarks '{first}' and '{second}' share no target")
    a, b = blocks[first], blocks[second]
    methods = [name for name in a.methods if name in b.methods and name != GROUND_TRUTH]
    metrics = [name for name in a.metrics if name in b.metrics]
    picked = []
    for name, block in ((first, a), (second, b)):
        of_metric = [block.metrics.index(metric) for metric in metrics]
        of_method = [block.methods.index(method) for method in methods]
        cells = np.ix_([rows[name][target_id] for target_id in shared], of_method, of_metric)
        picked.append(block.counted(report.options.failures)[cells].reshape(len(shared), -1))
    codes = identity_codes(cases[cases["benchmark"] == first].set_index("target_id").loc[shared].reset_index())
    with np.errstate(invalid="ignore"):
        differences = picked[1] - picked[0]
    binary = [bool(block.binary[block.metrics.index(metric)]) for block in (a, b) for metric in metrics]
    all_binary = np.array(binary).reshape(2, -1).all(axis=0)
    key = case_seed(report.seed, "paired", first, second)
    found = mean_interval(
        differences, codes, seed=key, n_bootstrap=n_bootstrap, binary=np.tile(all_binary, len(methods))
    )
    both = ~np.isnan(differences)
    means = [mean_interval(np.where(both, side, np.nan), codes, seed=key, n_bootstrap=2).mean for side in picked]
    p = max_t_p_values(cluster_sums(differences, codes)[0], seed=key, n_flips=n_bootstrap)
    method, metric = np.meshgrid(methods, metrics, indexing="ij")
    higher = np.tile([report.directions[name] for name in metrics], len(methods))
    ahead = np.where((found.mean > 0) == higher, second, first)
    frame = pd.DataFrame(
        {
            "first": first, "second": second, "method": method.ravel(), "metric": metric.ravel(),
            "higher_is_better": higher, "mean_first": means[0], "mean_second": means[1], "difference": found.mean,
            "ci_low": found.low, "ci_high": found.high, "p_adjusted": p,
            "better": [name if sure else None for name, sure in zip(ahead, p <= ALPHA, strict=True)],
            "n": found.n, "n_identities": found.n_identities,
        }
    )  # fmt: skip
    return frame[frame["n"] > 0].reset_index(drop=True)
