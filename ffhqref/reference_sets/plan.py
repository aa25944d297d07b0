"""A build: everything that it needs, opened and checked, and its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.escape import csv_text
from ffhqref.core.files import write_atomic
from ffhqref.datasets.attributes import attribute_of, attributes_frame
from ffhqref.datasets.stage import ImageRow, ImageStage, ages_frame, file_rows, licences_frame, sources_frame
from ffhqref.faces.ages import AgeStage
from ffhqref.faces.aligned import check_aligned
from ffhqref.faces.detect import make_detector
from ffhqref.faces.stage import AlignStage, EmbedStage
from ffhqref.faces.store import read_faces
from ffhqref.reference_sets.agreement import disagreements
from ffhqref.reference_sets.build import NOBODY_KNOWN, ReferenceSet, build_reference_set
from ffhqref.reference_sets.copies import describe_copies, find_copies
from ffhqref.reference_sets.references import Exclusions
from ffhqref.reference_sets.release import Release, imported, make_release, read_release, write_release
from ffhqref.reference_sets.review import read_exclusions
from ffhqref.reference_sets.summary import (
    describe_differences,
    describe_images,
    describe_known,
    describe_neighbours,
    describe_set,
    describe_sources,
)
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store.schemas import SPECS
from ffhqref.store.workspace import OWN

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.datasets import Dataset
    from ffhqref.engine.base import Engine, ResultT, RowT, Stage
    from ffhqref.engine.run import Progress
    from ffhqref.faces.store import Embedded
    from ffhqref.reference_sets.options import BuildConfig
    from ffhqref.store.workspace import Workspace

SHOWN = 5
"""Failures that are told one by one."""


class Run(Protocol):
    """Runs a stage over rows."""

    def __call__(self, stage: Stage[RowT, ResultT], rows: Sequence[RowT], /) -> list[ResultT]:
        """Return one result for each row."""
        ...


@dataclass(frozen=True)
class Part:
    """A name of a registry with the options of its constructor."""

    name: str
    options: Mapping[str, Any]


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
    dataset_root: str
    """As the ``images`` table records it, see `ffhqref.store.workspace.Workspace.dataset_root`."""


def open_plan(
    dataset: Dataset,
    settings: BuildConfig,
    workspace: Path,
    *,
    embedder: Part,
    crop: str,
    detector: Part,
    age_model: Part | None = None,
    balance: str | None = None,
    exclusions: Path | None = None,
    release: Path | None = None,
) -> Plan:
    """Open everything that a build needs.

    Args:
        dataset: to build from.
        settings: of the builder.
        workspace: root of the workspace, where aligned images go.
        embedder: of the vectors.
        crop: of the embedder's input.
        detector: of faces, for images that are not aligned.
        age_model: estimates the ages that the data set does not tell.
        balance: attribute whose values val and test take in turns.
        exclusions: verdicts of the review page.
        release: folder of a published reference set.

    Raises:
        FfhqrefError: one of them is wrong; one line.
    """
    if release and exclusions:
        raise ConfigError(
            "exclusions are verdicts on a set that is built, release=… imports one: leave one of them out"
        )
    if settings.identity == "truth" and release:
        raise ConfigError("build.identity=truth builds a set, release=… imports one: leave one of them out")
    if settings.identity == "truth" and not dataset.truth:
        raise ConfigError(f"build.identity=truth: {NOBODY_KNOWN}")
    if not dataset.told_aligned and not (workspace / "tables" / "images.parquet").exists():
        check_aligned(dataset, make_detector(detector.name, **detector.options))
    image_stage: ImageStage | AlignStage
    if dataset.aligned:
        root = dataset.root
        image_stage, recorded = ImageStage(root), "package:sample" if dataset.name == "sample" else str(root)
    else:
        root = workspace / "aligned"
        image_stage, recorded = AlignStage(dataset.root, root, detector.name, detector.options), f"{OWN}aligned"
    return Plan(
        settings,
        dataset,
        image_stage,
        EmbedStage(root, embedder.name, embedder.options, crop),
        AgeStage(root, age_model.name, age_model.options) if age_model else None,
        attribute_of(dataset.attributes, balance) if balance else None,
        read_exclusions(exclusions, dataset.files) if exclusions else None,
        read_release(release.expanduser(), dataset.files) if release else None,
        recorded,
    )


def usable(images: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return the rows of ``images`` without error.

    Args:
        images: the table.
        root: of the data set, for the message.

    Raises:
        DatasetError: there is none.
    """
    good = images[images["error"].isna()]
    if good.empty:
        first = images.iloc[0]
        raise DatasetError(
            f"none of the {len(images)} images in {root} can be used, first {first['path']}: {first['error']}"
        )
    return good


def known_ages(plan: Plan, good: pd.DataFrame, run: Run, say: Callable[[str], None]) -> pd.DataFrame:
    """Return the table ``ages``: what the data set tells, and estimates for the rest where there is a model."""
    if plan.age_stage is None:
        return ages_frame(plan.dataset)
    unknown = good[~good["image_id"].isin(plan.dataset.ages)]
    rows = [ImageRow(*row) for row in unknown[["image_id", "path", "sha256"]].itertuples(index=False, name=None)]
    results = list(zip(rows, run(plan.age_stage, rows), strict=True))
    failed = [(row, found) for row, found in results if found.error is not None]
    for row, found in failed[:SHOWN]:
        say(f"no age: {row.path}: {found.error}")
    if len(failed) > SHOWN:
        say(f"no age: {len(failed) - SHOWN} more")
    estimated = {row.image_id: found.age for row, found in results if found.age is not None}
    return ages_frame(plan.dataset, estimated, plan.age_stage.signature)


@dataclass(frozen=True)
class Recorded:
    """What the tables record of the config."""

    dataset: Mapping[str, Any]
    embedder: Mapping[str, Any]
    ages: Mapping[str, Any]
    build: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Built:
    """The tables of a build."""

    tables: Mapping[str, pd.DataFrame]
    failed: bool
    """Whether some image could not be used."""


def build_tables(
    plan: Plan,
    workspace: Workspace,
    recorded: Recorded,
    engine: Engine,
    progress: Progress | None,
    run: Run,
    say: Callable[[str], None],
) -> Built:
    """Build a reference set and write its tables and ReF-LDM's files.

    Args:
        plan: what is built.
        workspace: it is written to.
        recorded: the part of the config that the tables record.
        engine: where images are read.
        progress: called as images are read.
        run: runs a stage.
        say: told one line at a time.
    """
    import pandas as pd

    dataset = plan.dataset
    results, embedded = read_faces(
        plan.image_stage,
        plan.embed_stage,
        file_rows(dataset.root, dataset.files),
        engine=engine,
        journal_dir=workspace.journals,
        folder=workspace.root / "embeddings",
        progress=progress,
    )
    tables: dict[str, pd.DataFrame] = {}

    def write(name: str, frame: pd.DataFrame, *inputs: str, **facts: Any) -> pd.DataFrame:
        workspace.write(name, frame, inputs=inputs, **facts)
        tables[name] = frame
        return frame

    credit = {"name": dataset.name, "licence": dataset.licence, "attribution": dataset.attribution}
    images = pd.DataFrame(results, columns=list(SPECS["images"].columns))
    write("images", images, config=recorded.dataset, dataset=credit, dataset_root=plan.dataset_root)
    good = usable(images, dataset.root)
    write("embeddings", embedded.frame(plan.embed_stage.signature), "images", config=recorded.embedder)
    ages = write("ages", known_ages(plan, good, run, say), "images", config=recorded.ages)
    years = dict(zip(ages["image_id"], ages["age"].astype(float), strict=True))
    sources = sources_frame(results)
    if not dataset.aligned or workspace.has("sources"):
        write("sources", sources, "images")
    small = _too_small(sources, embedded, plan)
    for line in describe_sources(sources, len(small), plan.settings.min_face):
        say(line)
    if small:
        plan = replace(plan, exclusions=(plan.exclusions or Exclusions()).with_targets(small))
    built, config, lists = _make_set(plan, embedded, years, workspace.root, recorded.build, say)
    copies = find_copies(built, images, workspace.image, run)
    if plan.settings.drop_copies and plan.release is None and _matter(copies, built, plan.settings):
        exclusions = (plan.exclusions or Exclusions()).with_pairs(copies)
        built, config, lists = _make_set(
            replace(plan, exclusions=exclusions), embedded, years, workspace.root, recorded.build, say
        )
        lists = {**lists, "copies": copies}
    write("pairs", built.pairs, "embeddings", config=config)
    write("identities", built.identities, "pairs", config=config)
    write("references", built.references, "identities", "ages", config=config, **lists)
    names = dict(zip(images["image_id"], images["path"], strict=True))
    write_release(workspace.root / "FFHQ-Ref", make_release(built.identities, built.references, names))
    write("licences", licences_frame(dataset), "images")
    truth = pd.DataFrame(sorted(dataset.truth.items()), columns=["image_id", "identity"], dtype=object)
    write("truth", truth, "images")
    write("attributes", attributes_frame(dataset.attributes), "images")
    by_truth = plan.settings.identity == "truth"
    for line in (
        *dataset.remarks,
        *(plan.release.remarks() if plan.release else ()),
        *describe_images(images),
        *describe_set(built, dataset.truth, known_people=by_truth),
        *(
            _disagreements(plan, built, embedded, workspace.root)
            if by_truth
            else describe_neighbours(built, plan.settings.max_distance)
        ),
        *describe_copies(copies, built, bool(plan.settings.drop_copies and plan.release is None)),
    ):
        say(line)
    for image_id, reason in list(embedded.errors.items())[:SHOWN]:
        say(f"left out: {image_id}: {reason}")
    return Built(tables, bool(images["error"].notna().any() or embedded.errors))


def _too_small(sources: pd.DataFrame, embedded: Embedded, plan: Plan) -> list[str]:
    """Return the images that are no targets for the size of their face in the source."""
    if plan.release is not None:
        return []
    small = sources.loc[sources["face"] < plan.settings.min_face, "image_id"]
    return sorted(set(small) & set(embedded.image_ids))


def _matter(copies: Sequence[tuple[str, str]], built: ReferenceSet, settings: BuildConfig) -> bool:
    """Return whether a copy could be a reference in val and test by its distance."""
    known, far = set(copies), built.pairs[built.pairs["distance"] >= settings.min_distance]
    return any(pair in known for pair in zip(far["image_a"], far["image_b"], strict=True))


def _make_set(
    plan: Plan,
    embedded: Embedded,
    ages: Mapping[str, float],
    root: Path,
    config: Mapping[str, Any],
    say: Callable[[str], None],
) -> tuple[ReferenceSet, dict[str, Any], dict[str, Any]]:
    """Return the reference set of a plan, its config, and further facts of its lists."""
    built = build_reference_set(
        embedded.image_ids,
        embedded.vectors,
        plan.settings,
        ages=ages,
        attribute=plan.attribute,
        exclusions=plan.exclusions,
        people=plan.dataset.truth,
    )
    if plan.release is None:
        return built, dict(config), {}
    vectors = Embeddings.checked(embedded.image_ids, embedded.vectors)
    listed, differences = imported(plan.release, built, vectors, ages)
    path = root / "release_differences.csv"
    write_atomic(path, csv_text(differences).encode())
    for line in describe_differences(built.references, listed.references, differences):
        say(line)
    say(f"differences from the release: {path}")
    lists = {"lq_names": plan.release.lq_names} if plan.release.lq_names else {}
    return listed, {**config, "release": plan.release.digest}, lists


def _disagreements(plan: Plan, built: ReferenceSet, embedded: Embedded, root: Path) -> list[str]:
    """Write ``disagreements.csv`` of a set from known people, and return what is told of it."""
    people = plan.dataset.truth
    found = disagreements(built.pairs, people, plan.settings.max_distance)
    path = root / "disagreements.csv"
    write_atomic(path, csv_text(found).encode())
    vectors = Embeddings.checked(embedded.image_ids, embedded.vectors)
    return [*describe_known(built, vectors, people, plan.settings, found), f"listed in {path}"]
