"""Images -> images, embeddings, ages, pairs, identities, references, and ReF-LDM's files."""

from __future__ import annotations

import sys
from typing import Any

from ffhqref.cli.main import launch
from ffhqref.config.context import Context, embedder_options, open_context
from ffhqref.config.run import DetectorOptions, RunConfig
from ffhqref.core.hashing import sha256_file
from ffhqref.datasets import Dataset, open_dataset
from ffhqref.reference_sets.card import write_card
from ffhqref.reference_sets.plan import Part, Plan, Recorded, build_tables, open_plan
from ffhqref.reference_sets.review import write_review


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return build(context, check_build(context))


def check_build(context: Context) -> Plan:
    """Check the config and open everything that a build needs."""
    config, ages = context.config, context.config.ages
    detector = config.dataset.detector or DetectorOptions()
    name, crop, options = embedder_options(config)
    return open_plan(
        dataset_of(config),
        config.build.model_copy(update={"device": context.device}),
        context.workspace.root,
        embedder=Part(name, options),
        crop=crop,
        detector=Part(detector.name, detector.options),
        age_model=Part(ages.model, {"path": ages.path and str(ages.path)}) if ages.model else None,
        balance=config.balance,
        exclusions=config.exclusions,
        release=config.release,
    )


def dataset_of(config: RunConfig) -> Dataset:
    """Return the data set of a config."""
    return open_dataset(config.dataset.name, **config.dataset.options)


def build(context: Context, plan: Plan) -> int:
    """Write the tables of the reference set, ReF-LDM's files and the data card."""
    workspace, config, say = context.workspace, context.config, context.reporter.say
    recorded = Recorded(
        dataset=config.dataset.given(),
        embedder={key: value for key, value in config.embedder.given().items() if key != "device"},
        ages=config.ages.given(),
        build={
            **config.build.given(),
            "balance": config.balance,
            "exclusions": sha256_file(config.exclusions) if config.exclusions else None,
        },
    )
    done = build_tables(plan, workspace, recorded, context.engine, context.reporter, context.map, say)
    say(f"data card: {write_card(workspace.root, held=done.tables, about=config.card)[0]}")
    if config.review:
        page = write_review(workspace, "test" if config.review is True else config.review)
        say(f"review page: {page}; save its verdicts and build again with exclusions=FILE")
    return int(done.failed)


if __name__ == "__main__":
    sys.exit(launch("build"))
