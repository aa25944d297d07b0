"""Preparation of FaceMe's training: features of every image, and the list ``train.json`` of who is trained on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.hashing import sha256_file
from ffhqref.synthesis.layout import read_layout
from ffhqref.training.faceme.lists import References, feature_of, list_samples, write_samples
from ffhqref.training.faceme.stage import PrepareResult, PrepareRow

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.reference_sets.training_images import TrainingImages
    from ffhqref.store.workspace import Workspace

FOLDER = "faceme"
"""In the workspace."""
OWN, SYNTHETIC = f"{FOLDER}/FFHQ_EMB", f"{FOLDER}/FFHQREF_EMB"
"""Features of photographs and of synthetic references, as published."""
COLUMNS = ["image_id", "source", "bucket", "path", "identity_path", "clip_path", "error"]


@dataclass(frozen=True)
class PreparePlan:
    """What is prepared."""

    targets: Mapping[str, str]
    """Image id to file."""
    real: Mapping[str, Sequence[str]]
    """Image id to the ids of other photographs of the person."""
    references: References
    rows: tuple[PrepareRow, ...]
    """Images that features are computed of."""
    remarks: tuple[str, ...] = ()
    """What a user must know."""


def plan_features(
    images: TrainingImages, listed: pd.DataFrame, references: References, synthetic: Path, limit: int | None
) -> PreparePlan:
    """Return what is prepared.

    Args:
        images: that may be trained on.
        listed: table ``references``.
        references: synthetic, as published; real: other photographs of the person; or both.
        synthetic: folder of synthetic references in the published layout.
        limit: at most this many targets of each source; None: all.

    Raises:
        ConfigError: there are no synthetic references, and they are needed.
        DatasetError: no synthetic reference belongs to an image of the data set.
    """
    targets = images.targets(limit)
    real = _real(images, listed)
    others = {name for target in targets for name in real.get(target, ())} if references != "synthetic" else set()
    files = dict(zip(images.frame["image_id"], images.frame["file"], strict=True))
    hashes = dict(zip(images.frame["image_id"], images.frame["sha256"], strict=True))
    rows = [PrepareRow(name, "own", "", str(files[name]), hashes[name], OWN) for name in sorted({*targets, *others})]
    remarks: list[str] = []
    if references != "real":
        made, remarks = _synthetic(synthetic, set(targets), images.known)
        rows += made
    return PreparePlan({name: str(files[name]) for name in targets}, real, references, tuple(rows), tuple(remarks))


def _real(images: TrainingImages, listed: pd.DataFrame) -> dict[str, list[str]]:
    """Return other photographs of the person: of the reference set its references, of other faces all of them."""
    known = set(images.own["image_id"])
    real: dict[str, list[str]] = {}
    for row in listed.sort_values(["target_id", "rank"]).itertuples(index=False):
        if row.target_id in known and row.reference_id in known:
            real.setdefault(str(row.target_id), []).append(str(row.reference_id))
    for _, person in images.faces.groupby("person"):
        names = sorted(person["image_id"])
        real |= {name: [other for other in names if other != name] for name in names}
    return real


def _synthetic(root: Path, targets: set[str], known: Collection[str]) -> tuple[list[PrepareRow], list[str]]:
    """Return the synthetic references of some targets, and a remark on those of unknown images."""
    if not root.is_dir():
        raise ConfigError(f"no synthetic references at {root}: run ffhqref synthesize, or set train.faceme.synthetic")
    found = list(read_layout(root))
    strangers = sorted(path for target, *_, path in found if target not in known)
    if found and len(strangers) == len(found):
        raise DatasetError(
            f"train.faceme.synthetic: none of the {len(found)} images in {root} is a reference of an image of the data "
            f"set, first {strangers[0]}; expected target_pose_i/target_pose_i_j/IMAGE_ID.png"
        )
    remark = f"{root}: {len(strangers)} of {len(found)} references belong to no image of the data set, first "
    rows = [
        PrepareRow(target, "synthetic", f"{pose}_{smile}", str(root / path), sha256_file(root / path), SYNTHETIC)
        for target, pose, smile, path in found
        if target in targets
    ]
    return rows, [f"{remark}{strangers[0]}"] if strangers else []


def write_prepared(
    workspace: Workspace, plan: PreparePlan, results: Sequence[PrepareResult], signature: str
) -> tuple[list[str], int]:
    """Write the table ``faceme_features`` and ``train.json``.

    Args:
        workspace: where.
        plan: what was prepared.
        results: of its rows, in order.
        signature: of the stage.

    Returns:
        Lines for the log, and the number of images without features.

    Raises:
        ConfigError: nothing is left to train on.
    """
    import pandas as pd

    frame = pd.DataFrame([_table_row(row, result) for row, result in zip(plan.rows, results, strict=True)])
    origin = {"features": signature}
    workspace.write("faceme_features", frame[COLUMNS], inputs=("images", "references"), signatures=origin)
    failed = [(row, result) for row, result in zip(plan.rows, results, strict=True) if result.error is not None]
    for row, _ in failed:  # what an earlier run left for an image that fails now must not be trained on
        for path in asdict(feature_of(workspace.root / row.folder, row.name)).values():
            Path(path).unlink(missing_ok=True)
    samples, missing = list_samples(
        plan.targets,
        workspace.root / OWN,
        references=plan.references,
        synthetic=workspace.root / SYNTHETIC,
        real=plan.real,
    )
    if not samples:
        raise ConfigError(f"nothing to train on: {missing[0].image_id}: {missing[0].reason}")
    path = workspace.root / FOLDER / "train.json"
    write_samples(path, samples)
    count = sum(len(sample.references) for sample in samples)
    summary = (
        f"{len(samples)} targets with {count} {plan.references} references, {len(missing)} left out; "
        f"{len(failed)} images without features: {path}"
    )
    return [
        *(f"no features: {row.path}: {result.error}" for row, result in failed[:5]),
        *(f"left out: {item.image_id}: {item.reason}" for item in missing[:5]),
        summary,
    ], len(failed)


def _table_row(row: PrepareRow, result: PrepareResult) -> dict[str, str | None]:
    made, good = feature_of(row.folder, row.name), result.error is None
    return {
        "image_id": row.image_id,
        "source": row.source,
        "bucket": row.bucket,
        "path": row.path,
        "identity_path": made.identity if good else None,
        "clip_path": made.clip if good else None,
        "error": result.error,
    }
