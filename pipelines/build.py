"""Pictures -> images, embeddings, ages, pairs, identities, references, and ReF-LDM's files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ffhqref.cli import launch
from ffhqref.datasets import Dataset, open_dataset
from ffhqref.datasets.stage import ImageStage, ages_frame, image_rows
from ffhqref.errors import DatasetError
from ffhqref.faces.ages import AgeStage
from ffhqref.faces.stage import AlignStage, EmbedStage
from ffhqref.faces.store import embed_pictures
from ffhqref.identity.agreement import agreement
from ffhqref.identity.build import BuildConfig, ReferenceSet, build_reference_set
from ffhqref.identity.release import make_release, write_release
from ffhqref.tables import SPECS

from ._common import Context, open_context

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

SPLIT_KEYS = ("test", "val", "min_references", "max_references")
THRESHOLD_KEYS = ("max_distance", "min_distance", "grouping", "grouping_threshold", "crop")


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return build(context)


def build(context: Context) -> int:
    """Build the reference set."""
    import pandas as pd

    settings = BuildConfig.of({**context.config["build"], "device": context.device})
    options = {key: value for key, value in context.config["dataset"].items() if key not in SPLIT_KEYS}
    detector = options.pop("detector", None)
    dataset = open_dataset(options.pop("name"), **options)
    embedder = _embed_stage_options(context)
    images, root = _images(context, dataset, detector)
    good = images[images["error"].isna()]
    if good.empty:
        first = images.iloc[0]
        raise DatasetError(
            f"none of the {len(images)} pictures in {dataset.root} can be used, first {first['path']}: {first['error']}"
        )

    stage = EmbedStage(root, **embedder)
    embedded = embed_pictures(
        stage,
        _rows(good),
        context.workspace.root / "embeddings",
        engine=context.engine,
        threads=context.workers,
        progress=context.reporter,
    )
    embeddings = pd.DataFrame({"image_id": embedded.image_ids, "embedder": stage.signature})
    embeddings["vector"] = pd.Series(list(embedded.vectors), dtype=object)
    context.workspace.write("embeddings", embeddings, inputs=("images",), config=context.config["embedder"])
    ages = _ages(context, dataset, good, root)

    built = build_reference_set(embedded.image_ids, embedded.vectors, settings, ages=ages)
    _write(context, built, images)
    _tell(context, built, images, dataset.truth)
    return int(bool(images["error"].notna().any()))


def _rows(images: pd.DataFrame) -> list[dict[str, Any]]:
    columns = ("image_id", "path", "sha256")
    return [dict(zip(columns, row, strict=True)) for row in images[list(columns)].itertuples(index=False)]


def _ages(context: Context, dataset: Dataset, good: pd.DataFrame, root: Path) -> dict[str, float]:
    """Write the ``ages`` table, unknown ages estimated if the config names a model; return years by image id."""
    options = dict(context.config["ages"])
    model = options.pop("model")
    estimated: dict[str, float] = {}
    source = ""
    if model:
        stage = AgeStage(root, model, options)
        source = stage.signature
        rows = _rows(good[~good["image_id"].isin(dataset.ages)])
        results = context.map(stage, rows)
        estimated = {row["image_id"]: got["age"] for row, got in zip(rows, results, strict=True) if "age" in got}
        for row, got in [(row, got) for row, got in zip(rows, results, strict=True) if "error" in got][:5]:
            context.reporter.say(f"no age: {row['path']}: {got['error']}")
    frame = ages_frame(dataset, estimated, source)
    context.workspace.write("ages", frame, inputs=("images",), config=context.config["ages"])
    return dict(zip(frame["image_id"], frame["age"].astype(float), strict=True))


def _embed_stage_options(context: Context) -> dict[str, Any]:
    options = dict(context.config["embedder"])
    name, crop = options.pop("name"), options.pop("crop")
    return {
        "embedder": name,
        "crop": crop,
        "options": {key: value for key, value in options.items() if key not in THRESHOLD_KEYS},
    }


def _images(context: Context, dataset: Dataset, detector: dict[str, Any] | None) -> tuple[pd.DataFrame, Path]:
    """Write the ``images`` table; return it and the root of its paths."""
    import pandas as pd

    rows = image_rows(dataset)
    if dataset.aligned:
        root, recorded = dataset.root, "package:sample" if dataset.name == "sample" else str(dataset.root)
        results = context.map(ImageStage(root), rows)
    else:
        options = dict(detector or {})
        root, recorded = context.workspace.root / "aligned", "workspace:aligned"
        results = context.map(AlignStage(dataset.root, root, options.pop("name", "centerface"), options), rows)
    images = pd.DataFrame(results, columns=list(SPECS["images"].columns))
    facts = {"name": dataset.name, "licence": dataset.licence, "attribution": dataset.attribution}
    context.workspace.write("images", images, config=context.config["dataset"], dataset=facts, dataset_root=recorded)
    return images, root


def _write(context: Context, built: ReferenceSet, images: pd.DataFrame) -> None:
    workspace, config = context.workspace, context.config["build"]
    workspace.write("pairs", built.pairs, inputs=("embeddings",), config=config)
    workspace.write("identities", built.identities, inputs=("pairs",), config=config)
    workspace.write("references", built.references, inputs=("identities", "ages"), config=config)
    names = dict(zip(images["image_id"], images["path"], strict=True))
    write_release(workspace.root / "FFHQ-Ref", make_release(built.identities, built.references, names))


def _tell(context: Context, built: ReferenceSet, images: pd.DataFrame, truth: Mapping[str, str]) -> None:
    say = context.reporter.say
    broken = images[images["error"].notna()]
    for row in broken.head(5).itertuples():
        say(f"left out: {row.path}: {row.error}")
    if len(broken) > 5:
        say(f"left out: {len(broken) - 5} more, see the column error of tables/images.parquet")
    for split, count in built.counts().items():
        say(
            f"{split:>5}: {count['images']} images of {count['identities']} identities, {count['targets']} targets "
            f"with {count['references']} references"
        )
    if truth:
        score = agreement(built.identities[built.identities["image_id"].isin(truth)], truth)
        exact = f"pairwise F1 {score.f1:.3f}, precision {score.precision:.3f}, recall {score.recall:.3f}"
        say(f"agreement with the true identities: {exact}")


if __name__ == "__main__":
    sys.exit(launch("build"))
