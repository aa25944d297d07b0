"""The data dictionary: which tables there are, and the names and types of their columns (design, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa


@dataclass(frozen=True)
class TableSpec:
    """A table's name, version and columns.

    ``columns`` maps a column to its Arrow type in words; a trailing ``?`` marks a nullable one. ``key`` names the
    columns that identify a row. A change of meaning or columns raises ``version``; older files are then refused.
    """

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    version: int = 1


def _spec(name: str, key: Sequence[str], **columns: str) -> TableSpec:
    return TableSpec(name, columns, tuple(key))


SPECS: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        _spec(
            "images", ["image_id"],
            image_id="string", path="string", width="int32", height="int32", sha256="string", error="string?",
        ),
        _spec("embeddings", ["image_id", "embedder"], image_id="string", embedder="string", vector="vector"),
        _spec("ages", ["image_id", "source"], image_id="string", age="float32?", source="string"),
        _spec("attributes", ["image_id", "attribute"], image_id="string", attribute="string", value="string"),
        _spec(
            "licences", ["image_id"],
            image_id="string", author="string", licence="string", licence_url="string", source_url="string",
        ),
        _spec("pairs", ["image_a", "image_b"], image_a="string", image_b="string", distance="float32"),
        _spec(
            "identities", ["image_id"],
            image_id="string", identity_id="int32?", size="int32", split="string?",
        ),
        _spec(
            "references", ["target_id", "rank"],
            target_id="string", reference_id="string", rank="int32", distance="float32?",
            age_gap="float32?", split="string",
        ),
        _spec(
            "degradations", ["target_id", "level"],
            target_id="string", level="string", lq_path="string?", lq_sha256="string?", kernel="string",
            sigma_x="float64", sigma_y="float64", rotation="float64", scale="float64", noise_sigma="float64",
            jpeg_quality="float64", seed="int64", noise_skip="int64", noise_carry="float64?",
            grey_noise_draw="float64?", colour_shift="list<float64>?", grey="bool", error="string?",
        ),
        _spec(
            "imports", ["benchmark", "case_id", "role", "rank"],
            benchmark="string", case_id="string", role="string", rank="int32", file="string", path="string?",
            sha256="string?", source="string?", error="string?",
        ),
        _spec(
            "cases", ["benchmark", "case_id"],
            benchmark="string", case_id="string", target_id="string", identity_id="int32?", lq_path="string",
            gt_path="string?", reference_paths="list<string>", age="float32?", age_gap="float32?",
        ),
        _spec(
            "restorations", ["method", "benchmark", "case_id"],
            method="string", benchmark="string", case_id="string", output_path="string?", output_sha256="string?",
            status="string", error="string?", seconds="float64", peak_memory_bytes="int64?", device="string",
        ),
        _spec(
            "scores", ["method", "benchmark", "case_id", "metric"],
            method="string", benchmark="string", case_id="string", metric="string", value="float64?",
            status="string",
        ),
        _spec(
            "leaderboard", ["benchmark", "method", "metric"],
            benchmark="string", method="string", metric="string", higher_is_better="bool", mean="float64?",
            ci_low="float64?", ci_high="float64?", n="int32", n_failed="int32", rank="int32?", rank_low="int32?",
            rank_high="int32?", published="float64?", published_source="string?", leak="string?",
            seconds_per_image="float64?",
        ),
        _spec(
            "faceme_features", ["image_id", "source", "bucket"],
            image_id="string", source="string", bucket="string", path="string", identity_path="string?",
            clip_path="string?", error="string?",
        ),
        _spec(
            "train_faces", ["image_id"],
            image_id="string", path="string", person="string", sha256="string", error="string?",
        ),
        _spec(
            "poses", ["image_id"],
            image_id="string", pose="list<float64>?", expression="list<float64>?", pose_bucket="int32?",
            expression_bucket="int32?", source="string", error="string?",
        ),
        _spec(
            "synthesis_plan", ["target_id", "pose_bucket", "expression_bucket", "attempt"],
            target_id="string", pose_bucket="int32", expression_bucket="int32", attempt="int32", pose_id="string?",
            seed="int64", error="string?",
        ),
        _spec(
            "synthesis_attempts", ["target_id", "pose_bucket", "expression_bucket", "attempt"],
            target_id="string", pose_bucket="int32", expression_bucket="int32", attempt="int32", pose_id="string?",
            seed="int64", source="string", status="string", similarity="float64?", sha256="string?", error="string?",
        ),
        _spec(
            "synthetic_references", ["target_id", "pose_bucket", "expression_bucket"],
            target_id="string", pose_bucket="int32", expression_bucket="int32", source="string", status="string",
            path="string?", sha256="string?", similarity="float64?", attempts="int32", pose_id="string?",
            error="string?",
        ),
    )
}  # fmt: skip
"""Every table by name."""

VOLATILE = ("created", "seconds", "peak_memory_bytes", "seconds_per_image", "device", "git_commit")
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
    return pa.schema(
        [
            pa.field(column, types[kind.rstrip("?")], nullable=kind.endswith("?"))
            for column, kind in SPECS[name].columns.items()
        ]
    )
