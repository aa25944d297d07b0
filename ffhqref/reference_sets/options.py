"""Options of a reference set: sections ``build``, ``age_sets``, ``audit``, ``validate`` and ``contamination``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ffhqref.core.options import Options

Distance = Annotated[int | float, Field(ge=0, le=2)]
"""A cosine distance."""

FARTHEST = 2.0
"""The largest cosine distance there is."""

SplitSize = Annotated[int | float, Field(ge=0)]
"""A number of identities (int), or a fraction of them (float below 1)."""


class CardOptions(Options):
    """What the data card says that no table knows."""

    title: str = ""
    """Of the reference set; empty: the data set's name."""
    licence: str = ""
    """Of the images; empty: as the data set's reader tells it."""
    purpose: str = ""
    """What the set is for, and what it must not be used for."""
    consent: str = ""
    """What the people shown have agreed to, and how they can withdraw it."""
    contact: str = ""
    """Who answers for the set."""


class BuildConfig(Options):
    """Every choice of the builder. The defaults are ReF-LDM's, where it states one."""

    identity: Literal["network", "truth"] = "network"
    """Who is on an image: as the network sees it, or truth: as dataset.truth, or the folders of people, tell."""
    max_distance: Distance = 0.4
    """Two images nearer than this are references of each other; truth: all images of a person are."""
    min_distance: Distance = 0.1
    """A reference in val or test is at least this far from its target; train has no minimum."""
    grouping: Literal["components", "average", "complete", "hdbscan"] = "components"
    """How pairs become identities; components is the published rule."""
    grouping_threshold: Distance | None = None
    """Threshold of the grouping; null: max_distance, as published."""
    test: SplitSize = 150
    """Identities in test: a count (whole number) or a fraction (below 1)."""
    val: SplitSize = 300
    """Identities in val: a count (whole number) or a fraction (below 1)."""
    min_face: int = Field(default=256, ge=0)
    """A val or test target that is aligned here has a face of this size in its source (the FFHQ square, in pixels)."""
    min_references: int = Field(default=2, ge=1)
    """A val or test target has at least this many references."""
    max_references: int | None = Field(default=9, ge=1)
    """A val or test target keeps at most this many, the first in farthest-point order; null keeps all."""
    train_max_references: int | None = Field(default=None, ge=1)
    """The same for train, where the published lists keep all."""
    drop_copies: bool = True
    """In val and test, a copy of the target (re-encoded, resized, cropped, grey, mirrored) is no reference; the
    published rule goes by distance alone."""
    seed: int = Field(default=2024, ge=0)
    """Of the split."""
    block: int = Field(default=2048, ge=1, exclude=True)
    """Tile size of the pair search; changes the time only."""
    device: str = Field(default="cpu", exclude=True)
    """Torch device of the pair search; changes the time only."""

    @model_validator(mode="after")
    def _consistent(self) -> BuildConfig:
        if self.min_distance >= self.max_distance:
            raise ValueError(
                f"min_distance={self.min_distance} leaves no reference below max_distance={self.max_distance}"
            )
        for name in ("test", "val"):
            value = getattr(self, name)
            if isinstance(value, float) and value >= 1:
                raise ValueError(
                    f"{name}={value}: expected a number of identities (a whole number), or a fraction of them below 1"
                )
        if self.max_references is not None and self.max_references < self.min_references:
            raise ValueError(
                f"max_references={self.max_references} is below the minimum of {self.min_references}; use null for no "
                "limit"
            )
        return self


class AgeSetConfig(Options):
    """Definition of the same-age and the cross-age set; gaps in years, those between are in neither."""

    same_max: int | float = Field(default=5, ge=0)
    """Same-age: the gap is at most this many years."""
    cross_min: int | float = 10
    """Cross-age: the gap is at least this many years."""
    min_references: int = Field(default=1, ge=1)
    """References a target needs on a side."""
    max_references: int | None = Field(default=5, ge=1)
    """References kept on a side, the first in farthest-point order; null keeps all."""
    matched: bool = True
    """Keep only targets that have both sides, with as many references on one as on the other."""

    @model_validator(mode="after")
    def _consistent(self) -> AgeSetConfig:
        if self.same_max >= self.cross_min:
            raise ValueError(f"same_max={self.same_max} must be below cross_min={self.cross_min} years")
        if self.max_references is not None and self.max_references < self.min_references:
            raise ValueError(
                f"max_references={self.max_references} is below min_references={self.min_references}; use null for "
                "no limit"
            )
        return self


class SecondNetwork(Options):
    """An independent network that confirms identities; its threshold is its own."""

    name: str | None = None
    """An embedder; null: none."""
    path: Path | None = None
    """Its file."""
    crop: str = "ffhq_template"
    """Its crop."""
    max_distance: Distance | None = None
    """Two of its vectors nearer than this are one person."""

    @model_validator(mode="after")
    def _has_a_threshold(self) -> SecondNetwork:
        if self.name and self.max_distance is None:
            raise ValueError("max_distance: the second network's own threshold is needed")
        return self


class AuditOptions(Options):
    """How identities are audited."""

    worst: int = Field(default=12, ge=0)
    """Identities on the contact sheet, the most suspicious first."""
    near: int = Field(default=24, ge=0)
    """Pairs just beyond the threshold on the contact sheet of near misses."""
    second: SecondNetwork = SecondNetwork()


class ValidateOptions(Options):
    """What `ffhqref validate` prints and writes."""

    first: int = Field(default=5, ge=0)
    """Findings of a kind that are printed."""
    csv: Path | None = None
    """A file to write all of them to."""


class ContaminationOptions(Options):
    """People who must not be trained on, beside those of the workspace's own test split."""

    benchmarks: tuple[Path, ...] = ()
    """Lists of test images, workspaces, or folders of images (LFW-Test-Ref): nobody on them is trained on."""
    policy: Literal["refuse", "leave_out"] = "refuse"
    """leave_out: train without the images of tested people; refuse: stop."""
