"""Reference set -> what FaceMe trains on: ArcFace and CLIP features of each image, and the list ``train.json``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from ffhqref.cli.main import launch
from ffhqref.config.context import Context, open_context
from ffhqref.core.errors import ConfigError
from ffhqref.training.faceme.prepare import PreparePlan, plan_features, write_prepared
from ffhqref.training.faceme.run import FaceMePlan
from ffhqref.training.faceme.stage import PrepareStage

from .train import images_to_train_on


@dataclass(frozen=True)
class Plan:
    """What is prepared, checked."""

    stage: PrepareStage
    features: PreparePlan


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return prepare(context, check_prepare(context))


def check_prepare(context: Context) -> Plan:
    """Check the config, find the networks, and list who is trained on."""
    train, workspace = context.config.train, context.workspace
    options, given = train.faceme, train.faceme.synthetic
    if given is not None and not given.expanduser().is_dir():
        raise ConfigError(f"train.faceme.synthetic={given}: no such folder; leave it out for what synthesize made")
    train.faces.read()  # refuses a wrong list before any work
    faceme = FaceMePlan.of(train, context.seed)
    faceme.base()  # the small one is made here, the real one must exist
    stage = PrepareStage(workspace.root, options.faces, faceme.photomaker(), options.config, device=context.device)
    workspace.check_current("references")
    images = images_to_train_on(context, "prepare", train.splits, train.leave_out)
    synthetic = given.expanduser().absolute() if given else workspace.root / "synthetic" / "FFHQRef"
    listed = workspace.read("references")
    return Plan(stage, plan_features(images, listed, options.references, synthetic, context.limit))


def prepare(context: Context, plan: Plan) -> int:
    """Write features, the table ``faceme_features`` and ``train.json``."""
    results = context.map(plan.stage, plan.features.rows)
    lines, failed = write_prepared(context.workspace, plan.features, results, plan.stage.signature)
    for line in [*plan.features.remarks, *lines]:
        context.reporter.say(line)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(launch("prepare"))
