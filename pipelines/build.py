"""Pictures -> images, embeddings, ages, pairs, identities, references, and ReF-LDM's files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.config.run import DetectorOptions, RunConfig
from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import write_atomic
from ffhqref.datasets import Dataset, open_dataset
from ffhqref.datasets.attributes import attribute_of, attributes_frame
from ffhqref.datasets.stage import ImageRow, ImageStage, ages_frame, file_rows, licences_frame
from ffhqref.faces.ages import AgeStage
from ffhqref.faces.stage import AlignStage, EmbedStage
from ffhqref.faces.store import read_faces
from ffhqref.reference_sets.build import ReferenceSet, build_reference_set
from ffhqref.reference_sets.card import write_card
from ffhqref.reference_sets.release import (
    Release,
    imported,
    make_release,
    read_release,
    write_release,
)
from ffhqref.reference_sets.review import read_exclusions, write_review
from ffhqref.reference_sets.summary import describe_differences, describe_pictures, describe_set
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store.schemas import SPECS

from ._common import Context, embedder_options, open_context, rows_of

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.reference_sets.options import BuildConfig
    from ffhqref.reference_sets.references import Exclusions


@dataclass(frozen=True)
class Plan:
    """What will be built, checked: every name, path and network is known to be there."""

    settings: BuildConfig
    dataset: Dataset
    image_stage: ImageStage | AlignStage
    embed_stage: EmbedStage
    age_stage: AgeStage | None
    attribute: Mapping[str, str] | None
    """Label by image id that val and test are balanced over."""
    exclusions: Exclusions | None
    release: Release | None
    """A published reference set that is imported in place of the one that is built."""
    review: str | None
    """Split of the review page."""
    dataset_root: str
    """As the ``images`` table records it, see `ffhqref.store.workspace.Workspace.dataset_root`."""


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return build(context, check_build(context))


def check_build(context: Context) -> Plan:
    """Check the config and open everything that a build needs."""
    settings = context.config.build.model_copy(update={"device": context.device})
    review = _review_split(context.config.review)
    verdicts = context.config.exclusions
    folder = context.config.release
    if folder and verdicts:
        raise ConfigError(
            "exclusions are verdicts on a set that is built, release=… imports one: leave one of them out"
        )
    dataset = dataset_of(context.config)
    image_stage: ImageStage | AlignStage
    if dataset.aligned:
        root = dataset.root
        image_stage = ImageStage(root)
        recorded = "package:sample" if dataset.name == "sample" else str(root)
    else:
        root = context.workspace.root / "aligned"
        detector = context.config.dataset.detector or DetectorOptions()
        image_stage = AlignStage(dataset.root, root, detector.name, detector.options)
        recorded = "workspace:aligned"
    name, crop, embedder = embedder_options(context.config)
    model, path = context.config.ages.model, context.config.ages.path
    age_stage = AgeStage(root, model, {"path": path and str(path)}) if model else None
    balance = context.config.balance
    attribute = attribute_of(dataset.attributes, balance) if balance else None
    exclusions = read_exclusions(verdicts, dataset.files) if verdicts else None
    release = read_release(folder.expanduser(), dataset.files) if folder else None
    embed_stage = EmbedStage(root, name, embedder, crop)
    return Plan(
        settings, dataset, image_stage, embed_stage, age_stage, attribute, exclusions, release, review, recorded
    )


def dataset_of(config: RunConfig) -> Dataset:
    """Return the data set of a config."""
    return open_dataset(config.dataset.name, **config.dataset.options)


def build(context: Context, plan: Plan) -> int:
    """Write the tables of the reference set and ReF-LDM's files."""
    import pandas as pd

    workspace, dataset = context.workspace, plan.dataset
    results, embedded = read_faces(
        plan.image_stage,
        plan.embed_stage,
        file_rows(dataset.root, dataset.files),
        engine=context.engine,
        journal_dir=workspace.journals,
        folder=workspace.root / "embeddings",
        progress=context.reporter,
    )
    images = pd.DataFrame(results, columns=list(SPECS["images"].columns))
    facts = {"name": dataset.name, "licence": dataset.licence, "attribution": dataset.attribution}
    workspace.write(
        "images", images, config=context.config.dataset.given(), dataset=facts, dataset_root=plan.dataset_root
    )
    good = images[images["error"].isna()]
    if good.empty:
        first = images.iloc[0]
        raise DatasetError(
            f"none of the {len(images)} pictures in {dataset.root} can be used, first {first['path']}: {first['error']}"
        )
    table = embedded.frame(plan.embed_stage.signature)
    config = {key: value for key, value in context.config.embedder.given().items() if key != "device"}
    workspace.write("embeddings", table, inputs=("images",), config=config)
    ages = _ages(context, plan, good)
    built = build_reference_set(
        embedded.image_ids,
        embedded.vectors,
        plan.settings,
        ages=ages,
        attribute=plan.attribute,
        exclusions=plan.exclusions,
    )
    if plan.release is not None:
        vectors = Embeddings.checked(embedded.image_ids, embedded.vectors)
        ours, (built, differences) = built, imported(plan.release, built, vectors, ages)
        path = workspace.root / "release_differences.csv"
        write_atomic(path, differences.to_csv(index=False, lineterminator="\n").encode())
        for line in describe_differences(ours.references, built.references, differences):
            context.reporter.say(line)
        context.reporter.say(f"differences from the release: {path}")
    _write(context, plan, built, images)
    workspace.write("licences", licences_frame(dataset), inputs=("images",))
    truth = pd.DataFrame(sorted(dataset.truth.items()), columns=["image_id", "identity"], dtype=object)
    workspace.write("truth", truth, inputs=("images",))
    workspace.write("attributes", attributes_frame(dataset.attributes), inputs=("images",))
    card = write_card(workspace.root)[0]
    for line in [
        *dataset.remarks,
        *(plan.release.remarks() if plan.release else ()),
        *describe_pictures(images),
        *describe_set(built, dataset.truth),
    ]:
        context.reporter.say(line)
    for image_id, reason in list(embedded.errors.items())[:5]:
        context.reporter.say(f"left out: {image_id}: {reason}")
    context.reporter.say(f"data card: {card}")
    if plan.review:
        page = write_review(workspace, plan.review)
        context.reporter.say(f"review page: {page}; save its verdicts and build again with exclusions=FILE")
    return int(bool(images["error"].notna().any() or embedded.errors))


def _rows(images: pd.DataFrame) -> list[ImageRow]:
    return [ImageRow(row.image_id, row.path, row.sha256) for row in rows_of(images)]


def _ages(context: Context, plan: Plan, good: pd.DataFrame) -> dict[str, float]:
    """Write the ``ages`` table, unknown ages estimated if the config names a model; return years by image id."""
    estimated: dict[str, float] = {}
    source = ""
    if plan.age_stage is not None:
        source = plan.age_stage.signature
        rows = _rows(good[~good["image_id"].isin(plan.dataset.ages)])
        results = list(zip(rows, context.map(plan.age_stage, rows), strict=True))
        estimated = {row.image_id: got.age for row, got in results if got.age is not None}
        for row, got in [(row, got) for row, got in results if got.error is not None][:5]:
            context.reporter.say(f"no age: {row.path}: {got.error}")
    frame = ages_frame(plan.dataset, estimated, source)
    context.workspace.write("ages", frame, inputs=("images",), config=context.config.ages.given())
    return dict(zip(frame["image_id"], frame["age"].astype(float), strict=True))


def _write(context: Context, plan: Plan, built: ReferenceSet, images: pd.DataFrame) -> None:
    workspace, verdicts = context.workspace, context.config.exclusions
    config = {**context.config.build.given(), "balance": context.config.balance}
    config["exclusions"] = sha256_file(verdicts) if verdicts else None
    if plan.release is not None:
        config["release"] = plan.release.digest
    workspace.write("pairs", built.pairs, inputs=("embeddings",), config=config)
    workspace.write("identities", built.identities, inputs=("pairs",), config=config)
    lists = {"lq_names": plan.release.lq_names} if plan.release is not None and plan.release.lq_names else {}
    workspace.write("references", built.references, inputs=("identities", "ages"), config=config, **lists)
    names = dict(zip(images["image_id"], images["path"], strict=True))
    write_release(workspace.root / "FFHQ-Ref", make_release(built.identities, built.references, names))


def _review_split(wanted: bool | str | None) -> str | None:
    return "test" if wanted is True else wanted or None


if __name__ == "__main__":
    sys.exit(launch("build"))
