"""Reference set -> checkpoints: ReF-LDM (first stage, LQ-only LDM, fine-tune with references) and FaceMe."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.config.context import Context, embedder_options, open_context
from ffhqref.reference_sets.contamination import benchmark_folders, describe
from ffhqref.reference_sets.training_images import FileEmbedder, TrainingImages, training_images
from ffhqref.training.faceme.run import FaceMePlan, train_faceme
from ffhqref.training.refldm.run import RefLDMPlan, train_refldm

if TYPE_CHECKING:
    from ffhqref.training.faceme.lists import Sample


@dataclass(frozen=True)
class Plan:
    """What is trained on what, checked."""

    refldm: tuple[RefLDMPlan, TrainingImages] | None
    faceme: tuple[FaceMePlan, list[Sample]] | None


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        train(context, check_train(context))
        return 0


def check_train(context: Context) -> Plan:
    """Check the config, and read who is trained on."""
    options, models = context.config.train, context.config.models
    plan = RefLDMPlan.of(options, models, context.seed) if set(models) - {"faceme"} else None
    faceme = FaceMePlan.of(options, context.seed) if "faceme" in models else None
    return Plan(
        (plan, images_to_train_on(context, "train", options.splits, options.leave_out)) if plan else None,
        (faceme, faceme.samples(context.workspace.root)) if faceme else None,
    )


def train(context: Context, plan: Plan) -> None:
    """Train the models one after the other, each from where an earlier run stopped."""
    import torch

    if context.config.train.threads:
        torch.set_num_threads(context.config.train.threads)
    if plan.refldm is not None:
        train_refldm(*plan.refldm, context.device, context.reporter.say, context.trackers.log)
    if plan.faceme is not None:
        train_faceme(*plan.faceme, context.device, context.reporter.say, context.trackers.log)


def file_embedder(context: Context, command: str) -> FileEmbedder:
    """Return what embeds images as the workspace's own are."""
    return FileEmbedder(context.workspace, *embedder_options(context.config), context.engine, context.reporter, command)


def images_to_train_on(
    context: Context, command: str, splits: Collection[str], leave_out: Collection[str] = ()
) -> TrainingImages:
    """Return the images of the splits and of ``train.faces``, without those of tested people."""
    config, embedder = context.config, file_embedder(context, command)
    faces, folders = config.train.faces.read(), benchmark_folders(config.parts("benchmark"))
    images = training_images(
        context.workspace, splits, config.contamination, embedder, faces=faces, leave_out=leave_out, benchmarks=folders
    )
    for line in [*describe(images.left_out), *images.remarks]:
        context.reporter.say(line)
    return images


if __name__ == "__main__":
    sys.exit(launch("train"))
