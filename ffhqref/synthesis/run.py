"""A synthetic set from start to end: poses, plan, rendering, tables, contact sheet and data card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.files import write_atomic
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png
from ffhqref.datasets.stage import ImageRow
from ffhqref.engine.run import run_stage
from ffhqref.store import tables
from ffhqref.synthesis.card import describe, sheet, to_markdown
from ffhqref.synthesis.layout import remove_rejected
from ffhqref.synthesis.plan import make_buckets, make_plan
from ffhqref.synthesis.stage import RenderResult, RenderRow, RenderStage, synthesize
from ffhqref.synthesis.vectors import PoseResult, PoseStage, PoseVectors, read_vectors

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.core.progress import Reporter
    from ffhqref.engine.base import Engine
    from ffhqref.reference_sets.training_images import FileEmbedder, TrainingImages
    from ffhqref.store.workspace import Workspace
    from ffhqref.synthesis.options import SynthesisOptions

FOLDER = "synthetic/FFHQRef"
"""Of the images, in the workspace."""


@dataclass(frozen=True)
class SynthesisPlan:
    """What is made, checked."""

    options: SynthesisOptions
    min_similarity: float
    pose_stage: PoseStage | None
    """Measures poses; None: they come from a table."""
    stage: RenderStage | None
    """None: the plan is written and nothing is rendered."""


def check_synthesis(
    options: SynthesisOptions,
    workspace: Workspace,
    embedder: FileEmbedder,
    *,
    max_distance: float,
    faces: Path | None,
    retry_failed: bool,
) -> SynthesisPlan:
    """Check the options and find the renderer's files.

    Args:
        options: section ``synthesis`` of the config.
        workspace: with a built reference set.
        embedder: of that reference set.
        max_distance: of the embedder; the default of the least similarity follows from it.
        faces: root of more images to train on.
        retry_failed: do attempts again that failed in an earlier run.

    Raises:
        ConfigError: a wrong option, or a renderer that lacks its normal maps.
        WeightsError: a file of the renderer is missing.
    """
    threshold = 1.0 - max_distance if options.min_similarity is None else float(options.min_similarity)
    vectors, pose_stage = options.vectors, None
    if vectors.table is None:
        path = {"path": vectors.detector_path} if vectors.detector_path else {}
        pose_stage = PoseStage(workspace.dataset_root, vectors.detector, path)
    if options.plan_only:
        return SynthesisPlan(options, threshold, pose_stage, None)
    normals = options.normals.expanduser() if options.normals else None
    if normals is not None and not normals.is_dir():
        raise ConfigError(f"synthesis.normals={options.normals}: no such folder")
    stage = RenderStage(
        workspace.dataset_root,
        workspace.root / FOLDER,
        (options.renderer.name, options.renderer.options),
        (embedder.embedder, embedder.options),
        embedder.crop,
        min_similarity=threshold,
        faces=faces,
        normals=normals,
        retry_failed=retry_failed,
    )
    if stage.info.needs_normals and normals is None:
        raise ConfigError(
            f"renderer '{stage.info.name}' needs normal maps: run with synthesis.plan_only=true, render "
            "TARGET/POSE.png for the rows of tables/synthesis_plan.parquet (docs/synthesis.md), and name their folder: "
            "synthesis.normals=FOLDER"
        )
    return SynthesisPlan(options, threshold, pose_stage, stage)


@dataclass(frozen=True)
class Synthesis:
    """A run of a plan over the images of a workspace."""

    workspace: Workspace
    plan: SynthesisPlan
    images: TrainingImages
    seed: int
    limit: int | None
    """At most this many targets of each source; None: all."""
    engine: Engine
    reporter: Reporter

    @property
    def log(self) -> Callable[[str], None]:
        """Takes a line."""
        return self.reporter.say

    def __call__(self) -> int:
        """Write the plan, the images, the tables, the contact sheet and the data card; return how many failed."""
        workspace, options, stage = self.workspace, self.plan.options, self.plan.stage
        buckets, source = self._poses()
        targets = self.images.targets(self.limit)
        drawn = make_plan(targets, buckets, self.images.people, options.clusters, tries=options.tries, seed=self.seed)
        given = options.model_dump(mode="json")
        rules = {key: given[key] for key in ("splits", "clusters", "tries", "vectors")}
        path = workspace.write("synthesis_plan", drawn, inputs=("poses", "identities"), config=rules, seed=self.seed)
        self.log(f"plan: {len(targets)} targets, {options.clusters[0]} x {options.clusters[1]} buckets: {path}")
        if stage is None:
            return 0
        attempts, references = self._rendered(stage, drawn)
        facts = {"renderer": stage.info.source, "signature": stage.signature}
        rules |= {"min_similarity": self.plan.min_similarity, "renderer": given["renderer"]}
        inputs = ("synthesis_plan", "embeddings")
        workspace.write("synthesis_attempts", attempts, inputs=inputs, config=rules, signatures=facts)
        workspace.write(
            "synthetic_references", references, inputs=("synthesis_attempts",), config=rules, signatures=facts
        )
        accepted = references.loc[references["status"] == "accepted", "path"]
        kept = {str(path).removeprefix(f"{FOLDER}/") for path in accepted}
        gone = remove_rejected(workspace.root / FOLDER, set(targets), kept)
        if gone:
            self.log(f"removed {len(gone)} images of an earlier run that are not accepted now")
        self._describe(stage, source, buckets, attempts, references)
        return self._summarise(attempts, references)

    def _poses(self) -> tuple[pd.DataFrame, str]:
        """Write the table ``poses``; return the buckets and where the vectors come from."""
        import pandas as pd

        options, ids = self.plan.options.vectors, self.images.frame["image_id"].tolist()
        if options.table is not None:
            known = read_vectors(options.table, ids, options.pose, options.expression, self.images.known)
            errors = dict.fromkeys(set(ids) - set(known.image_ids), f"no complete row in {options.table.name}")
        else:
            assert self.plan.pose_stage is not None
            found = self._measured(self.plan.pose_stage)
            errors = {name: result.error for name, result in found.items() if result.error is not None}
            good = {
                name: (result.pose, result.expression)
                for name, result in found.items()
                if result.pose is not None and result.expression is not None
            }
            known = PoseVectors.of(good, self.plan.pose_stage.signature)
        buckets = make_buckets(known, self.plan.options.clusters, self.seed)
        frame = buckets.assign(
            pose=list(known.pose), expression=list(known.expression), source=known.source, error=None
        )
        missing = pd.DataFrame({"image_id": sorted(errors), "error": [errors[name] for name in sorted(errors)]})
        missing = missing.assign(
            source=known.source, **dict.fromkeys(("pose", "expression", "pose_bucket", "expression_bucket"))
        )
        parts = [frame.astype(object), missing.astype(object)] if errors else [frame]
        self.workspace.write(
            "poses", pd.concat(parts, ignore_index=True), inputs=("images",), config=options.model_dump(mode="json")
        )
        for line in [*known.remarks, *(f"no pose image: {name}: {errors[name]}" for name in sorted(errors)[:5])]:
            self.log(line)
        if len(errors) > 5:
            self.log(f"no pose image: {len(errors) - 5} more of {len(ids)}")
        return buckets, known.source

    def _measured(self, stage: PoseStage) -> dict[str, PoseResult]:
        """Return what the stage found on each image, by image id."""
        found: dict[str, PoseResult] = {}
        for of_faces, part in self.images.frame.groupby("of_faces"):
            rows = [ImageRow(*row) for row in part[["image_id", "path", "sha256"]].itertuples(index=False)]
            here = stage.at(self.images.faces_root) if of_faces and self.images.faces_root else stage
            results = run_stage(
                here, rows, engine=self.engine, journal_dir=self.workspace.journals, progress=self.reporter
            )
            found |= dict(zip(part["image_id"], results, strict=True))
        return found

    def _rendered(self, stage: RenderStage, drawn: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        images = {row.image_id: row for row in self.images.frame.itertuples(index=False)}

        def make_row(target_id: str, pose_id: str, seed: int, out_path: str) -> RenderRow:
            return render_row(stage, images[target_id], images[pose_id], seed, out_path)

        def run(number: int, rows: list[RenderRow]) -> Sequence[RenderResult]:
            def progress(_: str, done: int, total: int) -> None:
                if total:
                    self.reporter(f"synthesize, try {number + 1}", done, total)

            journals = self.workspace.journals
            return run_stage(stage, rows, engine=self.engine, journal_dir=journals, progress=progress)

        return synthesize(drawn, stage, make_row, run, FOLDER)

    def _describe(
        self,
        stage: RenderStage,
        poses: str,
        buckets: pd.DataFrame,
        attempts: pd.DataFrame,
        references: pd.DataFrame,
    ) -> None:
        """Write the contact sheet and the data card."""
        folder = self.workspace.root / "synthetic"
        card = describe(stage.info, buckets, attempts, references, self._settings(stage, poses))
        write_atomic(folder / "datacard.md", to_markdown(card).encode())
        targets = sorted(set(references["target_id"]))
        count = min(self.plan.options.sheet, len(targets))
        if count:
            chosen = [targets[k * len(targets) // count] for k in range(count)]
            frame = self.images.frame
            files = dict(zip(frame["image_id"], zip(frame["file"], frame["sha256"], strict=True), strict=True))
            image = sheet(
                references,
                chosen,
                lambda name: read_rgb(files[name][0], 128, sha256=files[name][1]),
                lambda path: read_rgb(self.workspace.file(path), 128),
            )
            save_png(folder / "contact_sheet.png", image)
            self.log(f"contact sheet: {folder / 'contact_sheet.png'}")
        self.log(f"data card: {folder / 'datacard.md'}")

    def _settings(self, stage: RenderStage, poses: str) -> dict[str, str]:
        options, images = self.plan.options, self.images
        origin: Mapping[str, object] = tables.read_metadata(self.workspace.root, "images").get("dataset", {})
        more = f"{len(images.faces)}, of {images.faces_root.name}" if images.faces_root else "none"
        settings = {
            "data set": origin.get("name", ""),
            "licence of its images": origin.get("licence", "") or "not stated",
            "splits": ", ".join(options.splits),
            "images of train.faces": more,
            "images left out for contamination": len(images.left_out),
            "clusters": f"{options.clusters[0]} x {options.clusters[1]}",
            "pose and expression from": poses,
            "tries": options.tries,
            "least similarity": f"{self.plan.min_similarity:g}",
            "renderer and embedder": stage.signature,
            "seed": self.seed,
        }
        return {name: str(value) for name, value in settings.items()}

    def _summarise(self, attempts: pd.DataFrame, references: pd.DataFrame) -> int:
        accepted = references[references["status"] == "accepted"]
        rejected = int((attempts["status"] == "rejected").sum())
        failed = attempts[(attempts["status"] == "failed") & attempts["pose_id"].notna()]
        self.log(
            f"{len(accepted)} synthetic references of {references['target_id'].nunique()} targets, "
            f"{len(references) - len(accepted)} missing; {len(attempts)} attempts, {rejected} rejected below "
            f"similarity {self.plan.min_similarity:g}, {len(failed)} failed: {self.workspace.root / FOLDER}"
        )
        for reason, count in Counter(failed["error"]).most_common(5):
            self.log(f"failed {count} times: {reason}")
        return len(failed)


def render_row(stage: RenderStage, target: Any, pose: Any, seed: int, out_path: str) -> RenderRow:
    """Return the row of an attempt.

    Args:
        stage: that will render it.
        target: row of `TrainingImages.frame`.
        pose: the same, of the image that gives the pose.
        seed: of the attempt.
        out_path: of the result.
    """
    wanted = f"{target.image_id}/{pose.image_id}.png"
    normals = stage.normals / wanted if stage.info.needs_normals and stage.normals is not None else None
    there = normals if normals is not None and normals.is_file() else None
    return RenderRow(
        path=target.path,
        of_faces=bool(target.of_faces),
        sha256=target.sha256,
        vector=target.vector,
        pose_path=pose.path,
        pose_of_faces=bool(pose.of_faces),
        pose_sha256=pose.sha256,
        wanted_normals=wanted,
        normals_path=None if there is None else wanted,
        normals_sha256=None if there is None else sha256_file(there),
        seed=seed,
        out_path=out_path,
    )
