"""Reference set -> what FaceMe trains on: ArcFace and CLIP features of each picture, and the list ``train.json``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_file
from ffhqref.datasets import open_dataset
from ffhqref.datasets.builtin import SAMPLE_ROOT

from ._common import Context, open_context, rows_of
from ._faceme import base_folder, photomaker_file
from ._faces import MoreFaces, listed_faces, more_faces

if TYPE_CHECKING:
    from ffhqref.training.faceme.prepare import PrepareStage

FOLDER = "faceme"
OWN, SYNTHETIC = "FFHQ_EMB", "FFHQREF_EMB"


@dataclass(frozen=True)
class Plan:
    """What will be prepared, checked."""

    stage: PrepareStage
    rows: list[dict[str, Any]]
    pictures: dict[str, str]
    """Image id to picture, of every target."""
    real: dict[str, list[str]]
    """Image id to the ids of its references in the reference set."""
    references: str


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return prepare(context, check_prepare(context))


def check_prepare(context: Context) -> Plan:
    """Check the config, find the networks, and list who is to be trained on."""
    from ffhqref.training.faceme.prepare import PrepareStage

    options, workspace = context.config.train.faceme, context.workspace
    references = options.references
    listed_faces(context)
    given = options.synthetic
    if given is not None and not given.expanduser().is_dir():
        raise ConfigError(f"train.faceme.synthetic={given}: no such folder; leave it out for what synthesize made")
    base_folder(context)  # the small one is made here, the real one must be there
    stage = PrepareStage(workspace.root, options.faces, photomaker_file(context), options.config, device=context.device)
    workspace.check_current("references")
    images = {row.image_id: row for row in rows_of(workspace.read("images"))}
    targets = trainable(context)
    listed = workspace.read("references")
    real: dict[str, list[str]] = {}
    for row in rows_of(listed.sort_values(["target_id", "rank"])):
        if row.target_id in targets and row.reference_id in targets:
            real.setdefault(row.target_id, []).append(row.reference_id)
    wanted = sorted(targets)[: context.limit]
    faces = more_faces(context)
    if faces is not None:
        wanted += faces.targets(context.limit)
        real |= _others(faces)
    others = {name for target in wanted for name in real.get(target, ())} if references != "synthetic" else set()
    embedded = sorted({*wanted, *others})
    files = {name: workspace.image(row.path) for name, row in images.items()}
    hashes = {name: row.sha256 for name, row in images.items()}
    if faces is not None:
        files |= {name: faces.file(name) for name in faces.people}
        hashes |= dict(zip(faces.pictures["image_id"], faces.pictures["sha256"], strict=True))
    rows = [
        {
            "image_id": name,
            "source": "own",
            "bucket": "",
            "name": name,
            "path": str(files[name]),
            "sha256": hashes[name],
            "folder": f"{FOLDER}/{OWN}",
        }
        for name in embedded
    ]
    if references != "real":
        rows += _synthetic(context, set(wanted))
    pictures = {name: str(files[name]) for name in wanted}
    return Plan(stage, rows, pictures, real, references)


def trainable(context: Context) -> set[str]:
    """Return the pictures of the wanted splits, without anybody of the test split.

    Raises:
        ConfigError: the test split is asked for.
    """
    options, workspace = context.config.train, context.workspace
    identities = workspace.read("identities")
    # True identities, where they are known, close the gap that a missed pair of the test split would leave.
    truth = open_dataset("sample").truth if workspace.dataset_root == SAMPLE_ROOT else {}
    tested = identities.loc[identities["split"] == "test", "image_id"]
    closed = ({truth.get(name) for name in tested} - {None}) | set(options.leave_out)
    chosen = identities[identities["split"].isin(options.splits)]
    return {row.image_id for row in rows_of(chosen) if truth.get(row.image_id) not in closed}


def _others(faces: MoreFaces) -> dict[str, list[str]]:
    """Return the other pictures of the same person, by image id."""
    people = faces.people
    groups: dict[str, list[str]] = {}
    for name in sorted(people):
        groups.setdefault(people[name], []).append(name)
    return {name: [other for other in groups[person] if other != name] for name, person in people.items()}


def _synthetic(context: Context, targets: set[str]) -> list[dict[str, Any]]:
    from ffhqref.synthesis.layout import read_layout

    given = context.config.train.faceme.synthetic
    root = given.expanduser().absolute() if given else context.workspace.root / "synthetic" / "FFHQRef"
    if not root.is_dir():
        raise ConfigError(f"no synthetic references at {root}: run ffhqref synthesize, or set train.faceme.synthetic")
    return [
        {
            "image_id": target,
            "source": "synthetic",
            "bucket": f"{pose}_{expression}",
            "name": f"{target}/{pose}_{expression}",
            "path": str(root / path),
            "sha256": sha256_file(root / path),
            "folder": f"{FOLDER}/{SYNTHETIC}",
        }
        for target, pose, expression, path in read_layout(root)
        if target in targets
    ]


def prepare(context: Context, plan: Plan) -> int:
    """Write features, the table ``faceme_features`` and ``train.json``."""
    import pandas as pd

    from ffhqref.training.faceme.lists import feature_of, list_samples, write_samples

    workspace, say = context.workspace, context.reporter.say
    results = context.map(plan.stage, plan.rows)
    table = []
    for row, result in zip(plan.rows, results, strict=True):
        made = feature_of(row["folder"], row["name"])
        good = result["error"] is None
        files = {"identity_path": made.identity if good else None, "clip_path": made.clip if good else None}
        table.append({**{key: row[key] for key in ("image_id", "source", "bucket", "path")}, **files, **result})
    frame = pd.DataFrame(table)
    columns = ["image_id", "source", "bucket", "path", "identity_path", "clip_path", "error"]
    signatures = {"features": plan.stage.signature}
    workspace.write("faceme_features", frame[columns], inputs=("images", "references"), signatures=signatures)
    failed = frame[frame["error"].notna()]
    for row in rows_of(failed.head(5)):
        say(f"no features: {row.path}: {row.error}")
    # What an earlier run left for pictures that fail now must not be trained on.
    for row in rows_of(failed):
        for path in vars(feature_of(workspace.root / FOLDER / _kind(row), _name(row))).values():
            Path(path).unlink(missing_ok=True)
    folder = workspace.root / FOLDER
    samples, missing = list_samples(
        plan.pictures,
        folder / OWN,
        references=plan.references,  # type: ignore[arg-type]
        synthetic=folder / SYNTHETIC,
        real=plan.real,
    )
    if not samples:
        raise ConfigError(f"nothing to train on: {missing[0].image_id}: {missing[0].reason}")
    path = folder / "train.json"
    write_samples(path, samples)
    for item in missing[:5]:
        say(f"left out: {item.image_id}: {item.reason}")
    count = sum(len(sample.references) for sample in samples)
    say(
        f"{len(samples)} targets with {count} {plan.references} references, {len(missing)} left out; "
        f"{len(failed)} pictures without features: {path}"
    )
    return int(bool(len(failed)))


def _kind(row: Any) -> str:
    return OWN if row.source == "own" else SYNTHETIC


def _name(row: Any) -> str:
    return row.image_id if row.source == "own" else f"{row.image_id}/{row.bucket}"


if __name__ == "__main__":
    sys.exit(launch("prepare"))
