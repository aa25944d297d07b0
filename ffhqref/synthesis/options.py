"""Options of ``ffhqref synthesize``: the section ``synthesis`` of the config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from ffhqref.core.options import OpenOptions, Options

Clusters = Annotated[int, Field(ge=1, le=10)]  # the published layout names a bucket by two digits


class Renderer(OpenOptions):
    """A renderer and the options of its constructor."""

    name: str

    @property
    def options(self) -> dict[str, object]:
        """The options of its constructor."""
        return dict(self.model_extra or {})


class VectorOptions(Options):
    """Where poses and expressions come from."""

    table: Path | None = None
    """CSV or Parquet with image_id and the columns below: FFHQ-features, EMOCA codes, ...; null: five landmarks."""
    pose: tuple[str, ...] = ("yaw", "pitch")
    """Columns or patterns, for instance ["pose_*"]."""
    expression: tuple[str, ...] = ("smile",)
    """Columns or patterns."""
    detector: str = "centerface"
    """Without a table: yaw, pitch and mouth width from five landmarks, coarse."""
    detector_path: Path | None = None
    """Its file."""


class SynthesisOptions(Options):
    """Synthetic references in FaceMe's layout."""

    renderer: Renderer = Renderer(name="warp")
    """synthesis=warp or arc2face chooses it."""
    splits: tuple[Literal["train", "val", "test"], ...] = ("train",)
    """Whose images get references and give poses; the test split is refused."""
    clusters: tuple[Clusters, Clusters] = (3, 3)
    """Numbers of clusters of poses, and of expressions inside each; unconfirmed, see docs/synthesis.md."""
    tries: int = Field(default=3, ge=1)
    """Attempts for each bucket, each with another seed and pose image."""
    min_similarity: int | float | None = None
    """Cosine to the target from which on an image counts; null: 1 - embedder.max_distance."""
    vectors: VectorOptions = VectorOptions()
    normals: Path | None = None
    """Folder of normal maps TARGET/POSE.png, for renderers that need them."""
    plan_only: bool = False
    """Write the plan and stop, for instance to render the normal maps it asks for."""
    sheet: int = Field(default=6, ge=0)
    """Targets on the contact sheet."""

    @field_validator("splits")
    @classmethod
    def _untested(cls, splits: tuple[str, ...]) -> tuple[str, ...]:
        if "test" in splits:
            raise ValueError("names the test split; a model must not see what it is tested on")
        return splits
