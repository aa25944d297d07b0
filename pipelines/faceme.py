"""FaceMe from pictures to scores: build, synthesize, prepare, train both stages, degrade, restore, score, report."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

from ffhqref.cli.main import launch
from ffhqref.core.errors import ConfigError
from ffhqref.store import tables

from ._common import Context, open_context
from ._faceme import Plan, base_is_random, check_faceme, check_options, train_faceme
from ._faces import listed_faces
from .build import build, check_build
from .degrade import check_benchmarks, degrade
from .prepare import check_prepare, prepare
from .report import report
from .restore import make_stages, restore
from .score import make_metrics, score
from .synthesize import check_synthesize, make_synthetic
from .train import set_threads, teller

METHOD = "faceme_trained"
"""Name in the tables of the restorer with the weights that are trained here."""

NOISE = (
    f"the base is a small SDXL with random weights: what '{METHOD}' restores is noise by construction. Such a run "
    "shows that every step works; its scores say nothing of FaceMe (docs/faceme.md has the real one)"
)


def execute(config: Any) -> int:
    """Run every step, each skipping what is done; return the exit status: 1 when some row failed, 0 otherwise."""
    start = time.monotonic()
    with open_context(config) as context:
        _refuse_what_does_not_apply(context)
        check_options(context)
        listed_faces(context)
        plan = check_build(context)
        benchmarks = check_benchmarks(context)
        make_stages(context)  # refuses wrong names and missing weights of the other restorers now
        metrics = make_metrics(context)
        say, noise = context.reporter.say, base_is_random(context)
        if noise:
            say(f"note: {NOISE}")
        status = build(context, plan)
        if _wants_synthesis(context):
            status |= make_synthetic(context, check_synthesize(context))
            if context.config.synthesis.plan_only:
                return status
        status |= prepare(context, check_prepare(context))
        set_threads(context)
        trained = check_faceme(context)
        train_faceme(context, trained, partial(teller, say))
        status |= degrade(context, benchmarks)
        context = _with_trained(context, trained)
        status |= restore(context, make_stages(context))
        status |= score(context, metrics)
        status |= report(context, [context.workspace])
        say(f"done in {time.monotonic() - start:.1f} s")
        if noise:
            say(f"note: {NOISE}")
    return status


def _refuse_what_does_not_apply(context: Context) -> None:
    config = context.config
    if config.merge is not None:
        raise ConfigError("merge=… joins workspaces that are there already: ffhqref report merge=[FIRST,SECOND]")
    if config.dry_run:
        raise ConfigError("dry_run=true tries restorers that are there already: ffhqref restore dry_run=true")
    if METHOD in config.restorer:
        raise ConfigError(f"restorer '{METHOD}': the name stands for what is trained here; choose another")
    if 1 not in config.train.faceme.stages:
        raise ConfigError("train.faceme.stages: stage 1 trains Mix, without which nothing can be restored")


def _wants_synthesis(context: Context) -> bool:
    """Return whether synthetic references are trained on, and are not the given ones."""
    options = context.config.train.faceme
    if options.references == "real":
        context.reporter.say("synthesize: not needed, train.faceme.references=real")
    return options.references != "real" and not options.synthetic


def _with_trained(context: Context, plan: Plan) -> Context:
    """Return the context with the trained weights among the restorers, after those that the config names."""
    from ffhqref.training.faceme.start import latest_checkpoint

    options = context.config.train.faceme
    folder = plan.folder.absolute()  # the same from wherever the command is given, so that nothing is restored again
    first, last = (latest_checkpoint(folder / f"stage{stage}") for stage in (1, max(plan.stages)))
    faces = dict(options.faces)
    made: dict[str, Any] = {
        "name": "faceme",
        "base": str(plan.base.absolute()),
        "controlnet": str(last / "controlnet"),
        "mix": str(first / "mix"),
        "photomaker": str(plan.photomaker.absolute()),
        "config": options.given().get("config"),
        "prompt": options.prompt,
        "negative_prompt": options.prompt,
        "key_word": options.key_word,
        "preset": "lora" if options.lora else "published",
        "info": _info(context, plan),
    }
    if faces.get("name") == "insightface":
        made |= {"detector": faces.get("detector"), "arcface": faces.get("arcface")}
    else:
        made["faces"] = faces
    made |= options.restore or {}
    chosen = {**context.config.restorer, METHOD: made}
    return replace(context, config=context.config.model_copy(update={"restorer": chosen}))


def _info(context: Context, plan: Plan) -> dict[str, Any]:
    """Return what the tables say of the trained restorer in place of the facts of the released weights."""
    origin = tables.read_metadata(context.workspace.root, "images").get("dataset", {})
    config = context.config.train
    steps = " + ".join(str(plan.settings[stage].run.steps) for stage in plan.stages)
    base = "a small SDXL with random weights, so the output is noise" if base_is_random(context) else plan.base.name
    references = config.faceme.references
    sources = [f"{origin.get('name', 'pictures')}-Ref {', '.join(config.splits)}"]
    if config.faces.path:
        sources.append(f"train.faces: {config.faces.path.name}")
    return {
        "summary": f"FaceMe trained here: {steps} steps on {len(plan.samples)} pictures, {references} references; "
        f"base: {base}",
        "trained_on": tuple(sources),
        "licence": f"that of base, embedder and pictures ({origin.get('licence') or 'not stated'})",
        "commercial_use": False,
        "weights": (),
        "verified_against": "trained here; the training's steps against the published script's",
    }


if __name__ == "__main__":
    sys.exit(launch("faceme"))
