"""Reference set -> synthetic references in FaceMe's layout: a plan of poses, a renderer, a filter by similarity."""

from __future__ import annotations

import sys
from typing import Any

from ffhqref.cli.main import launch
from ffhqref.config.context import Context, open_context
from ffhqref.synthesis.run import Synthesis, check_synthesis

from .train import file_embedder, images_to_train_on


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return synthesize(context, check_synthesize(context))


def check_synthesize(context: Context) -> Synthesis:
    """Check the config, find the renderer's files, and refuse to train on tested people."""
    config, workspace, embedder = context.config, context.workspace, file_embedder(context, "synthesize")
    faces = config.train.faces.read()
    for table in ("identities", "embeddings"):
        workspace.check_current(table)
    embedder.stage(workspace.dataset_root)  # the filter compares with the workspace's vectors
    plan = check_synthesis(
        config.synthesis,
        workspace,
        embedder,
        max_distance=config.embedder.max_distance,
        faces=faces.root if faces else None,
        retry_failed=config.retry_failed,
    )
    images = images_to_train_on(context, "synthesize", config.synthesis.splits)
    return Synthesis(workspace, plan, images, context.seed, context.limit, context.engine, context.reporter)


def synthesize(_: Context, synthesis: Synthesis) -> int:
    """Write the plan, the images, the tables, the contact sheet and the data card."""
    return int(bool(synthesis()))


if __name__ == "__main__":
    sys.exit(launch("synthesize"))
