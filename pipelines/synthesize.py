"""Reference set -> synthetic references in FaceMe's layout: a plan of poses, a renderer, a filter by similarity."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.cli.main import launch
from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png, write_atomic
from ffhqref.datasets import open_dataset
from ffhqref.datasets.builtin import SAMPLE_ROOT
from ffhqref.engine import run_stage
from ffhqref.faces.stage import EmbedStage
from ffhqref.store import tables
from ffhqref.synthesis.card import describe, sheet, to_markdown
from ffhqref.synthesis.layout import reference_path, remove_rejected
from ffhqref.synthesis.leaks import Leak, leaks_by_name, refuse
from ffhqref.synthesis.plan import make_buckets, make_plan
from ffhqref.synthesis.stage import RenderStage, synthesize
from ffhqref.synthesis.vectors import PoseStage, PoseVectors, read_vectors

from ._common import Context, embedder_options, embeddings_of, open_context, rows_of
from ._faces import MoreFaces, benchmark_leaks, check_embedder, faces_root, listed_faces, more_faces

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.reference_sets.vectors import Embeddings

FOLDER = "synthetic/FFHQRef"
RULES = ("splits", "clusters", "tries", "vectors", "leaks")


@dataclass(frozen=True)
class Plan:
    """What will be made, checked."""

    clusters: tuple[int, int]
    min_similarity: float
    pose_stage: PoseStage | None
    """Measures poses; None: they come from a table."""
    stage: RenderStage | None
    """None: the plan is written and nothing is rendered."""
    pictures: pd.DataFrame
    """What may be trained on, of the reference set and of ``train.faces``, by image_id: image_id, path, sha256, vector,
    of_faces (which of the two roots the path is below) and file."""
    people: Mapping[str, Any]
    """Image id to whoever is on it."""
    left_out: tuple[Leak, ...]
    faces: MoreFaces | None
    """Pictures of ``train.faces``."""


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return make_synthetic(context, check_synthesize(context))


def check_synthesize(context: Context) -> Plan:
    """Check the config, find the renderer's files, and refuse to train on tested people."""
    options, workspace = context.config.synthesis, context.workspace
    listed_faces(context)
    threshold = options.min_similarity
    if threshold is None:
        threshold = 1.0 - context.config.embedder.max_distance
    vectors = options.vectors
    pose_stage = None
    if vectors.table is None:
        path = {"path": str(vectors.detector_path)} if vectors.detector_path else {}
        pose_stage = PoseStage(workspace.dataset_root, vectors.detector, path)
    stage = None if options.plan_only else _render_stage(context, float(threshold))
    for table in ("identities", "embeddings"):
        workspace.check_current(table)
    name, crop, embedder = embedder_options(context.config)
    signature = EmbedStage(workspace.dataset_root, name, embedder, crop).signature
    check_embedder(workspace, signature, "synthesize")
    people = _people(context)
    pictures, left_out = _pictures(context, embeddings_of(workspace), people)
    faces = more_faces(context)
    if faces is not None:
        pictures, left_out = _joined(pictures, faces), (*left_out, *faces.left_out)
        people |= faces.people
    return Plan(options.clusters, float(threshold), pose_stage, stage, pictures, people, left_out, faces)


def _joined(pictures: pd.DataFrame, faces: MoreFaces) -> pd.DataFrame:
    import pandas as pd

    more = faces.pictures.assign(of_faces=True, file=faces.pictures["image_id"].map(faces.file))
    return pd.concat([pictures, more[list(pictures.columns)]])


def _render_stage(context: Context, threshold: float) -> RenderStage:
    options = context.config.synthesis
    name, crop, embedder = embedder_options(context.config)
    normals = options.normals.expanduser() if options.normals else None
    if normals is not None and not normals.is_dir():
        raise ConfigError(f"synthesis.normals={options.normals}: no such folder")
    stage = RenderStage(
        context.workspace.dataset_root,
        context.workspace.root / FOLDER,
        (options.renderer.name, options.renderer.options),
        (name, embedder),
        crop,
        min_similarity=threshold,
        faces=faces_root(context),
        normals=normals,
        retry_failed=context.config.retry_failed,
    )
    if stage.info.needs_normals and normals is None:
        raise ConfigError(
            f"renderer '{stage.info.name}' needs normal maps: run with synthesis.plan_only=true, render "
            "TARGET/POSE.png for the rows of tables/synthesis_plan.parquet (docs/synthesis.md), and name their folder: "
            "synthesis.normals=FOLDER"
        )
    return stage


def _people(context: Context) -> dict[str, Any]:
    """Return whom each picture shows: the built identity, or the true one where the sample tells it."""
    known = context.workspace.read("identities").dropna(subset=["identity_id"])
    people: dict[str, Any] = {row.image_id: f"identity {row.identity_id}" for row in rows_of(known)}
    # True identities, where they are known, close the gap that a missed pair would leave.
    return people | (dict(open_dataset("sample").truth) if context.workspace.dataset_root == SAMPLE_ROOT else {})


def _pictures(
    context: Context, embeddings: Embeddings, people: Mapping[str, Any]
) -> tuple[pd.DataFrame, tuple[Leak, ...]]:
    """Return the pictures that may be trained on, and those left out because somebody is tested on them."""
    options, workspace = context.config.synthesis, context.workspace
    identities, images = workspace.read("identities"), workspace.read("images")
    wanted = set(identities.loc[identities["split"].isin(options.splits), "image_id"]) & set(embeddings.image_ids)
    tested = set(identities.loc[identities["split"] == "test", "image_id"])
    leaks = leaks_by_name(wanted, people, tested, "this workspace's test split")
    for benchmark in options.benchmarks:
        leaks += benchmark_leaks(context, benchmark.expanduser(), sorted(wanted), embeddings, people)
    if options.leaks == "refuse":
        refuse(leaks)
    wanted -= {leak.image_id for leak in leaks}
    if not wanted:
        raise DatasetError(f"no pictures to make references for in the splits {', '.join(options.splits)}")
    pictures = images[images["image_id"].isin(wanted)].set_index("image_id", drop=False)
    vectors = embeddings.units(embeddings.positions(pictures["image_id"])).astype(np.float32)
    files = pictures["path"].map(workspace.image)
    pictures = pictures.assign(vector=list(vectors), of_faces=False, file=files)
    return pictures[["image_id", "path", "sha256", "vector", "of_faces", "file"]], tuple(leaks)


def make_synthetic(context: Context, plan: Plan) -> int:
    """Write the plan, the pictures, the tables, the contact sheet and the data card."""
    workspace, say, options = context.workspace, context.reporter.say, context.config.synthesis
    for leak in plan.left_out[:5]:
        say(f"left out: {leak.image_id} {leak.reason}")
    if len(plan.left_out) > 5:
        say(f"left out: {len(plan.left_out) - 5} more pictures of tested people")
    buckets = _poses(context, plan)
    own = plan.pictures[~plan.pictures["of_faces"]]
    targets = sorted(own["image_id"])[: context.limit] + (plan.faces.targets(context.limit) if plan.faces else [])
    drawn = make_plan(targets, buckets, plan.people, plan.clusters, tries=options.tries, seed=context.seed)
    rules = {key: value for key, value in options.given().items() if key in RULES}
    path = workspace.write("synthesis_plan", drawn, inputs=("poses", "identities"), config=rules, seed=context.seed)
    say(f"plan: {len(targets)} targets, {plan.clusters[0]} x {plan.clusters[1]} buckets: {path}")
    if plan.stage is None:
        return 0
    attempts, references = _rendered(context, plan, plan.stage, drawn)
    facts = {"renderer": plan.stage.info.source, "signature": plan.stage.signature}
    rules |= {"min_similarity": plan.min_similarity, "renderer": options.renderer.given()}
    inputs = ("synthesis_plan", "embeddings")
    workspace.write("synthesis_attempts", attempts, inputs=inputs, config=rules, signatures=facts)
    workspace.write("synthetic_references", references, inputs=("synthesis_attempts",), config=rules, signatures=facts)
    accepted = references[references["status"] == "accepted"]
    kept = {str(path).removeprefix(f"{FOLDER}/") for path in accepted["path"]}
    gone = remove_rejected(workspace.root / FOLDER, set(targets), kept)
    if gone:
        say(f"removed {len(gone)} pictures of an earlier run that are not accepted now")
    _describe(context, plan, plan.stage, buckets, attempts, references)
    return _tell(context, plan, attempts, references)


def _poses(context: Context, plan: Plan) -> pd.DataFrame:
    """Write the table ``poses`` and return the buckets."""
    import pandas as pd

    options, pictures = context.config.synthesis.vectors, plan.pictures
    ids = pictures["image_id"].tolist()
    errors: dict[str, str] = {}
    if options.table is not None:
        known = read_vectors(options.table, ids, list(options.pose), list(options.expression))
        errors = dict.fromkeys(set(ids) - set(known.image_ids), f"no complete row in {options.table.name}")
    else:
        assert plan.pose_stage is not None
        found = _measured(context, plan, plan.pose_stage)
        errors = {name: result["error"] for name, result in found.items() if "error" in result}
        good = {name: (result["pose"], result["expression"]) for name, result in found.items() if name not in errors}
        known = PoseVectors.of(good, plan.pose_stage.signature)
    buckets = make_buckets(known, plan.clusters, context.seed)
    frame = buckets.assign(pose=list(known.pose), expression=list(known.expression), source=known.source, error=None)
    missing = pd.DataFrame({"image_id": sorted(errors), "error": [errors[name] for name in sorted(errors)]})
    missing = missing.assign(
        source=known.source, **dict.fromkeys(("pose", "expression", "pose_bucket", "expression_bucket"))
    )
    parts = [frame.astype(object), missing.astype(object)] if errors else [frame]
    context.workspace.write("poses", pd.concat(parts, ignore_index=True), inputs=("images",), config=options.given())
    for name in sorted(errors)[:5]:
        context.reporter.say(f"no pose picture: {name}: {errors[name]}")
    return buckets


def _measured(context: Context, plan: Plan, stage: PoseStage) -> dict[str, dict[str, Any]]:
    """Return what the stage found on each picture, by image id."""
    found: dict[str, dict[str, Any]] = {}
    for of_faces, part in plan.pictures.groupby("of_faces"):
        rows = [{"image_id": row.image_id, "path": row.path, "sha256": row.sha256} for row in rows_of(part)]
        there = stage.at(plan.faces.root) if of_faces and plan.faces else stage
        found |= dict(zip(part["image_id"], context.map(there, rows), strict=True))
    return found


def _rendered(
    context: Context, plan: Plan, stage: RenderStage, drawn: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    pictures = {row.image_id: row for row in plan.pictures.itertuples(index=False)}

    def make_row(row: Any) -> dict[str, Any]:
        target, pose = pictures[row.target_id], pictures[row.pose_id]
        wanted = f"{row.target_id}/{row.pose_id}.png"
        there = stage.info.needs_normals and stage.normals is not None and (stage.normals / wanted).is_file()
        return {
            "path": target.path,
            "of_faces": target.of_faces,
            "sha256": target.sha256,
            "vector": target.vector,
            "pose_path": pose.path,
            "pose_of_faces": pose.of_faces,
            "pose_sha256": pose.sha256,
            "wanted_normals": wanted,
            "normals_path": wanted if there else None,
            "normals_sha256": sha256_file(stage.normals / wanted) if there and stage.normals else None,
            "seed": int(row.seed),
            "out_path": reference_path(row.target_id, int(row.pose_bucket), int(row.expression_bucket)),
        }

    def run(number: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        def told(_: str, done: int, total: int) -> None:
            if total:
                context.reporter(f"synthesize, try {number + 1}", done, total)

        return run_stage(stage, rows, engine=context.engine, journal_dir=context.workspace.journals, progress=told)

    return synthesize(drawn, stage, make_row, run, FOLDER)


def _describe(
    context: Context,
    plan: Plan,
    stage: RenderStage,
    buckets: pd.DataFrame,
    attempts: pd.DataFrame,
    references: pd.DataFrame,
) -> None:
    """Write the contact sheet and the data card."""
    workspace, options = context.workspace, context.config.synthesis
    origin = tables.read_metadata(workspace.root, "images").get("dataset", {})
    more = f"{len(plan.faces.pictures)}, of {plan.faces.root.name}" if plan.faces else "none"
    settings = {
        "data set": origin.get("name", ""),
        "licence of its pictures": origin.get("licence", "") or "not stated",
        "splits": ", ".join(options.splits),
        "pictures of train.faces": more,
        "pictures left out as leaks": len({leak.image_id for leak in plan.left_out}),
        "clusters": f"{plan.clusters[0]} x {plan.clusters[1]}",
        "pose and expression from": workspace.read("poses")["source"].iloc[0],
        "tries": options.tries,
        "least similarity": f"{plan.min_similarity:g}",
        "renderer and embedder": stage.signature,
        "seed": context.seed,
    }
    card = describe(stage.info, buckets, attempts, references, {name: str(value) for name, value in settings.items()})
    folder = workspace.root / "synthetic"
    write_atomic(folder / "datacard.md", to_markdown(card).encode())
    count, targets = options.sheet, sorted(set(references["target_id"]))
    count = min(count, len(targets))
    if count:
        chosen = [targets[k * len(targets) // count] for k in range(count)]
        files = dict(zip(plan.pictures["image_id"], plan.pictures["file"], strict=True))
        picture = sheet(
            references,
            chosen,
            lambda name: read_rgb(files[name], 128),
            lambda path: read_rgb(workspace.file(path), 128),
        )
        save_png(folder / "contact_sheet.png", picture)
        context.reporter.say(f"to look at: {folder / 'contact_sheet.png'}")
    context.reporter.say(f"data card: {folder / 'datacard.md'}")


def _tell(context: Context, plan: Plan, attempts: pd.DataFrame, references: pd.DataFrame) -> int:
    say = context.reporter.say
    accepted = references[references["status"] == "accepted"]
    rejected = int((attempts["status"] == "rejected").sum())
    failed = attempts[(attempts["status"] == "failed") & attempts["pose_id"].notna()]
    say(
        f"{len(accepted)} synthetic references of {references['target_id'].nunique()} targets, "
        f"{len(references) - len(accepted)} missing; {len(attempts)} attempts, {rejected} rejected below similarity "
        f"{plan.min_similarity:g}, {len(failed)} failed: {context.workspace.root / FOLDER}"
    )
    for reason, count in Counter(failed["error"]).most_common(5):
        say(f"failed {count} times: {reason}")
    return int(bool(len(failed)))


if __name__ == "__main__":
    sys.exit(launch("synthesize"))
