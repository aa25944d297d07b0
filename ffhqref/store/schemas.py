"""The data dictionary: every table, its columns, their types and their meaning.

This is the only place that names a table's columns; docs/tables.md is generated from it (`to_markdown`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    kind: str
    """Arrow type in words: string, int32, int64, float32, float64, bool, vector, list<string>, list<float64>."""
    doc: str
    nullable: bool = False
    volatile: bool = False
    """Differs between two runs of the same work, and so is not part of the content hash."""

    @property
    def words(self) -> str:
        """The type, with a question mark where a value may be null."""
        return f"{self.kind}?" if self.nullable else self.kind


@dataclass(frozen=True)
class TableSpec:
    """A table: its columns, its key, and the pipeline that makes it.

    A change of meaning or columns raises ``version``; older files are then refused.
    """

    name: str
    made_by: str
    """Pipeline, as ``ffhqref <made_by>``."""
    key: tuple[str, ...]
    """Columns that identify a row; rows are sorted by them."""
    doc: str
    columns: Mapping[str, Column]
    version: int = 1


def _table(name: str, made_by: str, key: str, doc: str, /, **columns: str) -> TableSpec:
    """Make a spec from columns written as ``"type: meaning"``; ``type?`` may be null, ``~type`` is volatile."""
    made = {}
    for column, text in columns.items():
        kind, _, meaning = text.partition(": ")
        made[column] = Column(kind.strip("~?"), meaning, nullable=kind.endswith("?"), volatile=kind.startswith("~"))
    return TableSpec(name, made_by, tuple(key.split()), doc, made)


_SEED = "int64: seed of the draw, from the run's seed, the level and the image"
_IMAGE = "string: id of the image"
_REASON = "string?: why there is no result; null where there is one"
_BUCKETS = {"pose_bucket": "int32: pose cluster, from 0", "expression_bucket": "int32: expression cluster inside it"}
_CASE = {"benchmark": "string: name of the benchmark", "case_id": "string: id of the case, unique in its benchmark"}

_TABLES = (
    _table(
        "config", "run", "section", "The config that the workspace was made with; later commands start from it.",
        section="string: of the config, as `ffhqref run --cfg job` shows it",
        value="string: JSON, interpolations as they are written",
    ),
    _table(
        "images", "build", "image_id", "Every image of the data set, usable or not.",
        image_id="string: unique: file name without its ending, with its folders where names repeat",
        path="string: path below the root of the data set, which the metadata records as `dataset_root`",
        width="int32: pixels; 0 where it cannot be read", height="int32: pixels; 0 where it cannot be read",
        sha256="string: hash of the file; empty where it cannot be read", error="string?: why it is left out",
    ),
    _table(
        "embeddings", "build", "image_id embedder", "Face-recognition vectors of the usable images.",
        image_id=_IMAGE, embedder="string: signature of network, weights and crop",
        vector="vector: float32 of fixed length, L2-normalised",
    ),
    _table(
        "ages", "build", "image_id source", "Ages from `dataset.ages`, and estimates of `ages.model` for the rest.",
        image_id=_IMAGE, age="float32?: years", source="string: file and form, or signature of the network",
    ),
    _table(
        "attributes", "build", "image_id attribute", "Further columns of `dataset.attributes`.",
        image_id=_IMAGE, attribute="string: name of the column", value="string: text of the cell",
    ),
    _table(
        "licences", "build", "image_id", "Author and licence of each image, where the data set tells them.",
        image_id=_IMAGE, author="string: as the source names it", licence="string: name of the licence",
        licence_url="string: its address", source_url="string: address of the image",
    ),
    _table(
        "sources", "build", "image_id", "What images were aligned from, with `dataset.aligned=false`.",
        image_id=_IMAGE, width="int32: pixels of the source", height="int32: pixels of the source",
        face="float32: size in the source, in pixels, of the square that became 512x512", grey="bool: it has no colour",
    ),
    _table(
        "truth", "build", "image_id",
        "True identities, where the data set tells them: the builder sees them with `build.identity=truth` only, "
        "the contamination guard always.",
        image_id=_IMAGE, identity="string: name of the person",
    ),
    _table(
        "pairs", "build", "image_a image_b",
        "Every pair of images nearer than `build.max_distance`, and every pair of one person with "
        "`build.identity=truth`.",
        image_a="string: the smaller id", image_b="string: the larger id",
        distance="float32: 1 - cosine, rounded down to float32",
    ),
    _table(
        "identities", "build", "image_id", "Which images show one person.",
        image_id=_IMAGE, identity_id="int32?: number of the person; null for an image that is alone",
        size="int32: images of that person", split="string?: train, val or test; null outside an imported release",
    ),
    _table(
        "references", "build", "target_id rank", "The references of each target.",
        target_id="string: id of the image to restore", reference_id="string: id of its reference",
        rank="int32: order from 0, farthest-point sampling", distance="float32?: 1 - cosine of the two",
        age_gap="float32?: age of the reference minus age of the target in years", split="string: train, val or test",
    ),
    _table(
        "degradations", "degrade", "target_id level", "The low-quality images made here, with all that was drawn.",
        target_id="string: id of the target", level="string: name of the degradation",
        lq_path="string?: path in the workspace", lq_sha256="string?: hash of that file",
        kernel="string: iso or aniso", sigma_x="float64: blur in pixels", sigma_y="float64: blur across, in pixels",
        rotation="float64: angle of the kernel in radians", scale="float64: downsampling factor",
        noise_sigma="float64: noise in grey levels", jpeg_quality="float64: quality as drawn",
        seed=_SEED, noise_skip="int64: uniform values of the stream before the noise",
        noise_carry="float64?: normal value left over from before", grey_noise_draw="float64?: draw for grey noise",
        colour_shift="list<float64>?: shift of each channel in 0..1", grey="bool: the colour was taken away",
        error=_REASON,
    ),
    _table(
        "imports", "degrade", "benchmark case_id role rank",
        "Images from outside: those of the folders of `benchmark.NAME`.",
        **_CASE, role="string: lq, gt or reference", rank="int32: order of the references, else 0",
        file="string: path as given, below its folder", path="string?: imported copy, in the workspace",
        sha256="string?: hash of the copy", source="string?: of a reference: real, synthetic:NAME or unknown",
        error="string?: why it is not used",
    ),
    _table(
        "cases", "degrade", "benchmark case_id", "What each benchmark asks of every restorer.",
        **_CASE, target_id="string: id of the target; the case's own where there is none",
        identity_id="int32?: person shown, for intervals over people", lq_path="string: path in the workspace",
        gt_path="string?: ground truth, below the root of the data set; null where there is none",
        reference_paths="list<string>: references by rank, below the root of the data set, or in the workspace "
        "where the path begins with `workspace:`",
        age="float32?: age of the target in years", age_gap="float32?: mean absolute age gap of the references used",
    ),
    _table(
        "restorations", "restore", "method benchmark case_id", "Outputs of every restorer.",
        method="string: name of the restorer in this run", **_CASE,
        output_path="string?: path in the workspace", output_sha256="string?: hash of that file",
        status="string: `ok`, or what kind of failure", error=_REASON,
        seconds="~float64?: time of the case; null in the first call of a worker, which loads and warms up",
        peak_memory_bytes="~int64?: on the device", device="~string: the network ran on",
    ),
    _table(
        "scores", "score", "method benchmark case_id metric", "One value a case and metric.",
        method="string: name of the restorer, or `ground-truth`", **_CASE, metric="string: name of the metric",
        value="float64?: infinite where the metric says so, null where there is none",
        status="string: `ok`, `failed`, `left_out` (of the mean, by the metric's definition) or `unavailable`",
    ),
    _table(
        "leaderboard", "report", "benchmark method metric", "Means, intervals and ranks.",
        benchmark="string: name of the benchmark", method="string: name of the restorer", metric="string: of the mean",
        higher_is_better="bool: direction of the metric", mean="float64?: over cases",
        ci_low="float64?: lower end of the 95 % interval over people",
        ci_high="float64?: upper end", n="int32: cases in the mean", n_failed="int32: cases that failed",
        rank="int32?: by the mean, 1 is best", rank_low="int32?: best rank that cannot be excluded",
        rank_high="int32?: worst rank that cannot be excluded", published="float64?: number of a paper, same protocol",
        published_source="string?: paper and table", leak="string?: why the method may know the people tested",
        seconds_per_image="~float64?: median of the restorer's cases, first calls left out",
        peak_memory_mb="~float64?: most that the restorer's cases took",
        parameters="~float64?: of the method's networks, for default options",
        multiply_adds="~float64?: of one 512x512 image, for default options",
        evaluations="~int32?: calls of the network that is called most, for default options",
        openness="~string?: code, weights, licence and training data",
    ),
    _table(
        "comparisons", "report", "first second method metric",
        "The same targets with references of the same and of another age, where both benchmarks were run.",
        first="string: benchmark", second="string: benchmark", method="string: name of the restorer",
        metric="string: of the means", higher_is_better="bool: direction of the metric",
        mean_first="float64?: over the shared targets", mean_second="float64?: over the same targets",
        difference="float64?: second minus first", ci_low="float64?: lower end of the 95 % interval over people",
        ci_high="float64?: upper end", p_adjusted="float64?: corrected for all methods and metrics",
        better="string?: the benchmark that is better; null while that is open", n="int32: shared targets",
        n_identities="int32: people in them",
    ),
    _table(
        "faceme_features", "prepare", "image_id source bucket", "Features of an image that FaceMe trains on.",
        image_id=_IMAGE, source="string: where the image is from", bucket="string: pose and expression, empty for real",
        path="string: of the image", identity_path="string?: identity feature", clip_path="string?: CLIP feature",
        error=_REASON,
    ),
    _table(
        "train_faces", "train", "image_id", "Images of `train.faces.path`, with the person of each.",
        image_id=_IMAGE, path="string: below `train.faces.path`, which the metadata records",
        person="string: `faces/` and the name in the CSV", sha256="string: hash of the file", error=_REASON,
    ),
    _table(
        "poses", "synthesize", "image_id", "Pose and expression of each image, and the clusters they fall in.",
        image_id=_IMAGE, pose="list<float64>?: columns of `synthesis.vectors.pose`",
        expression="list<float64>?: columns of `synthesis.vectors.expression`",
        pose_bucket="int32?: pose cluster", expression_bucket="int32?: expression cluster inside it",
        source="string: table or detector", error=_REASON,
    ),
    _table(
        "synthesis_plan", "synthesize", "target_id pose_bucket expression_bucket attempt",
        "What is to be rendered: for each target and bucket, which image gives the pose.",
        target_id="string: id of the image whose person is shown", **_BUCKETS, attempt="int32: from 0",
        pose_id="string?: id of the image that gives the pose", seed="int64: of the attempt", error=_REASON,
    ),
    _table(
        "synthesis_attempts", "synthesize", "target_id pose_bucket expression_bucket attempt",
        "What became of each attempt.",
        target_id="string: id of the image whose person is shown", **_BUCKETS, attempt="int32: from 0",
        pose_id="string?: id of the image that gives the pose", seed="int64: of the attempt",
        source="string: `synthetic:` and the renderer", status="string: `accepted`, `rejected` or `failed`",
        similarity="float64?: cosine to the target", sha256="string?: hash of the image", error=_REASON,
    ),
    _table(
        "synthetic_references", "synthesize", "target_id pose_bucket expression_bucket",
        "The synthetic reference of each target and bucket.",
        target_id="string: id of the image whose person is shown", **_BUCKETS,
        source="string: `synthetic:` and the renderer", status="string: `accepted` or `missing`",
        path="string?: path in the workspace", sha256="string?: hash of the image",
        similarity="float64?: cosine to the target", attempts="int32: attempts made",
        pose_id="string?: id of the image that gives the pose", error=_REASON,
    ),
)  # fmt: skip

SPECS: dict[str, TableSpec] = {spec.name: spec for spec in _TABLES}
"""Every table by name."""

VOLATILE = (
    "created",
    "git_commit",
    *sorted({name for spec in _TABLES for name, column in spec.columns.items() if column.volatile}),
)
"""Columns and metadata that may differ between two runs of the same work."""


def schema(name: str, vector_dim: int | None = None) -> pa.Schema:
    """Return the Arrow schema of a table; ``vector_dim`` fixes the length of the embeddings' vectors."""
    import pyarrow as pa

    types = {
        "string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32(),
        "float64": pa.float64(), "bool": pa.bool_(), "list<string>": pa.list_(pa.string()),
        "list<float64>": pa.list_(pa.float64()),
        "vector": pa.list_(pa.float32(), vector_dim if vector_dim is not None else -1),
    }  # fmt: skip
    columns = SPECS[name].columns.items()
    return pa.schema([pa.field(column, types[facts.kind], nullable=facts.nullable) for column, facts in columns])


def to_markdown() -> str:
    """Return the data dictionary as Markdown, for docs/tables.md."""
    parts = []
    for spec in _TABLES:
        rows = [
            f"| {name} | {column.words} | {column.doc}{' (volatile)' if column.volatile else ''} |"
            for name, column in spec.columns.items()
        ]
        head = f"Made by `ffhqref {spec.made_by}`; key: {', '.join(spec.key)}."
        parts.append("\n".join([f"### {spec.name}", "", f"{spec.doc} {head}", "", "| column | type | meaning |",
                                "|---|---|---|", *rows]))  # fmt: skip
    return "\n\n".join(parts) + "\n"
