"""FaceMe's chain from images to scores: what it needs, and what the tables say of the restorer that it trains."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.store import tables

if TYPE_CHECKING:
    from ffhqref.store.workspace import Workspace
    from ffhqref.training.faceme.run import FaceMePlan
    from ffhqref.training.options import FaceMeOptions, TrainOptions

METHOD = "faceme_trained"
"""Name in the tables of the restorer with the weights that are trained here."""

NOISE = (
    f"the base is a small SDXL with random weights: what '{METHOD}' restores is noise by construction. Such a run "
    "shows that every step works; its scores say nothing of FaceMe (docs/faceme.md has the real one)"
)


def check_chain(options: FaceMeOptions, restorers: Collection[str], *, merge: bool, dry_run: bool) -> None:
    """Refuse options that do not make a chain.

    Args:
        options: section ``train.faceme`` of the config.
        restorers: names of those of the run.
        merge: workspaces are to be merged.
        dry_run: restorers are only to be tried.

    Raises:
        ConfigError: a restorer is called `METHOD`, stage 1 is not trained, or a key is of another command.
    """
    if merge:
        raise ConfigError("merge=… joins workspaces that exist already: ffhqref report merge=[FIRST,SECOND]")
    if dry_run:
        raise ConfigError("dry_run=true tries restorers that exist already: ffhqref restore dry_run=true")
    if METHOD in restorers:
        raise ConfigError(f"restorer '{METHOD}': the name stands for what is trained here; choose another")
    if 1 not in options.stages:
        raise ConfigError("train.faceme.stages: stage 1 trains Mix, without which nothing can be restored")


def wants_synthesis(options: FaceMeOptions) -> bool:
    """Return whether synthetic references are trained on, and are not given."""
    return options.references != "real" and options.synthetic is None


def describe_trained(plan: FaceMePlan, workspace: Workspace, train: TrainOptions) -> dict[str, Any]:
    """Return facts on the trained restorer for the tables, in place of those of the released weights."""
    origin = tables.read_metadata(workspace.root, "images").get("dataset", {})
    steps = " + ".join(str(plan.settings[stage].run.steps) for stage in plan.stages)
    base = "a small SDXL with random weights, so the output is noise" if plan.base_is_random else plan.base().name
    # The guard keeps the people of this workspace's test split apart, so the name is not that of the whole data set.
    sources = [f"{origin.get('name', 'images')}-split {', '.join(train.splits)}"]
    if train.faces.path is not None:
        sources.append(f"train.faces: {train.faces.path.name}")
    return {
        "summary": (
            f"FaceMe trained here: {steps} steps on {len(plan.samples(workspace.root))} images, "
            f"{plan.options.references} references; base: {base}"
        ),
        "trained_on": tuple(sources),
        "licence": f"that of base, embedder and images ({origin.get('licence') or 'not stated'})",
        "commercial_use": False,
        "weights": (),
        "verified_against": "trained here; the training's steps against the published script's",
    }
