"""The config of a run: one model that holds every section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ffhqref.core.errors import ConfigError
from ffhqref.core.options import OpenOptions, Options, read_options
from ffhqref.leaderboard.options import ReportOptions
from ffhqref.reference_sets.options import (
    AgeSetConfig,
    AuditOptions,
    BuildConfig,
    CardOptions,
    ContaminationOptions,
    SplitSize,
    ValidateOptions,
)
from ffhqref.synthesis.options import SynthesisOptions
from ffhqref.training.options import Model, TrainOptions

GROUPS = ("benchmark", "restorer", "metric")
"""Sections of any number of named parts, each with options of its own."""


DEFAULT = "_default_"
"""Marks a group whose list is the default one."""


class DetectorOptions(OpenOptions):
    """A face detector, for images that are not aligned."""

    name: str = "dlib68"
    """dlib68 (the published alignment), centerface, yunet or insightface."""
    path: Path | None = None
    """Its file."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of its constructor."""
        return {key: value for key, value in self.given().items() if key != "name"}


class DatasetOptions(OpenOptions):
    """A data set: how it is split, and the options of its reader."""

    name: str = "sample"
    """sample (embedded), folder, ffhq, celeba_hq, celebref_hq, or a plug-in's."""
    test: SplitSize = 0.1
    """Identities in test: a count (whole number) or a fraction (below 1)."""
    val: SplitSize = 0.05
    """Identities in val."""
    min_references: int = Field(default=1, ge=1)
    """Of a target in val and test."""
    max_references: int | None = Field(default=9, ge=1)
    """Kept of a target in val and test; null: all."""
    detector: DetectorOptions | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of its reader."""
        return dict(self.model_extra or {})


class EmbedderOptions(OpenOptions):
    """A face-recognition network, its crop, and the thresholds that belong to it."""

    name: str = "dlib"
    """dlib (packaged), insightface, onnx, or a plug-in's."""
    crop: str = "ffhq_template"
    """Input crop of the network."""
    max_distance: int | float = 0.048
    """Two images nearer than this are one person."""
    min_distance: int | float = 0.006
    """A reference nearer than this is a near-duplicate."""
    grouping: str = "components"
    """components (the published rule), average, complete, hdbscan."""
    grouping_threshold: int | float | None = None
    """null: max_distance."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of its constructor."""
        return dict(self.model_extra or {})


class EngineOptions(OpenOptions):
    """What the work runs on."""

    name: str = "local"
    """local, ray, or a plug-in's."""
    workers: int | None = Field(default=None, ge=0)
    """Processes; null: one for each core; 0: everything in this one."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of its constructor, which has a default of its own for ``workers``."""
        found = {key: value for key, value in self.given().items() if key != "name"}
        return found if self.workers is not None else {key: found[key] for key in found if key != "workers"}


class AgeModelOptions(Options):
    """Ages that the data set does not tell can be estimated; the source is recorded with each age."""

    model: str | None = None
    """insightface (genderage, non-commercial weights), or the name of a plug-in's model."""
    path: Path | None = None
    """insightface: a model pack folder such as ~/.insightface/models/buffalo_l, or its genderage.onnx."""


class MatchOptions(Options):
    """Which file of ``outputs`` is of which case: by default the one called as the case or as its LQ file."""

    pattern: str | None = None
    """Other names, with {id}, {lq} (name of the LQ file) and {benchmark}: {id}_00.png; without an ending, any."""
    pairs: Path | None = None
    """CSV in place of names, with case_id (or lq) and output, and benchmark where an id is in several."""
    resize: bool = False
    """Resize outputs of another size; otherwise they fail."""
    missing: Literal["fail", "ignore"] = "fail"
    """A case without a file fails, or is left out, and the method is then not ranked."""
    info: dict[str, Any] = Field(default_factory=dict)
    """What is known of the method: {trained_on: [FFHQ], licence: MIT, passthrough: true}."""


class RunConfig(Options):
    """All keys of a run; each pipeline uses the part it needs."""

    root: str = "workspace"
    """Everything is written below this folder."""
    device: str = "auto"
    """auto: cuda when there is one, else cpu."""
    seed: int = Field(default=2024, ge=0)
    """Keys every random draw, together with the case."""
    weights_dir: Path | None = None
    """A folder of weight files, looked into before TORCH_HOME and the other caches."""
    download: bool = False
    """Fetch missing weight files of metrics."""
    dry_run: bool = False
    """Restore, run: only try the restorers on synthetic cases, and say what is wrong with them."""
    retry_failed: bool = False
    """Do cases again that failed in an earlier run."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers that take the losses of trainings and the means of reports: tensorboard, wandb, mlflow, and
    others that Accelerate knows. Files lie in the folder trackers of the workspace."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many test targets, and targets to train FaceMe on of each source, for a quick look."""
    dataset: DatasetOptions = DatasetOptions()
    embedder: EmbedderOptions = EmbedderOptions()
    benchmark: dict[str, dict[str, Any] | None] = Field(default_factory=dict)
    """Benchmarks by name, each with its options."""
    restorer: dict[str, dict[str, Any] | None] = Field(default_factory=dict)
    """Restorers by name, each with its options."""
    metric: dict[str, dict[str, Any] | None] = Field(default_factory=dict)
    """Metrics by name, each with its options."""
    set_metric: tuple[str, ...] = ()
    """Metrics of whole sets, one number a method: fid, kid (to the ground truth), fid_ffhq (to all of FFHQ)."""
    unnamed: tuple[str, ...] = Field(default=(), exclude=True)
    """Groups that hold the default list, so that nothing in them is named: a step then takes all that is there."""
    engine: EngineOptions = EngineOptions()
    ages: AgeModelOptions = AgeModelOptions()
    model: Model | tuple[Model, ...] = ("vqgan", "ldm", "refldm")
    """What `ffhqref train` trains, in this order, by the settings of train=tiny or paper."""
    balance: str | None = None
    """A column of dataset.attributes: val and test take its values in turns."""
    review: bool | Literal["train", "val", "test"] | None = False
    """Write review_test.html to check a split by eye; val or train: of that split."""
    exclusions: Path | None = None
    """The CSV that the review page saved: rejected pairs and targets are left out."""
    release: Path | None = None
    """A published reference set, FFHQ-Ref's folder, that is imported in place of building one; `validate` checks it."""
    build: BuildConfig = BuildConfig()
    card: CardOptions = CardOptions()
    age_sets: AgeSetConfig = AgeSetConfig()
    audit: AuditOptions = AuditOptions()
    validation: ValidateOptions = Field(default=ValidateOptions(), alias="validate")
    contamination: ContaminationOptions = ContaminationOptions()
    synthesis: SynthesisOptions = SynthesisOptions()
    outputs: Path | None = None
    """evaluate: folder of a method's outputs."""
    name: str = "mine"
    """evaluate: the method's name in the tables."""
    match: MatchOptions = MatchOptions()
    gt: Path | None = None
    """evaluate, without a workspace of your own: folder of the ground truths, named as the outputs."""
    lq: Path | None = None
    """evaluate: folder of the low-quality images that the outputs were made from."""
    references: Path | None = None
    """evaluate: folder of the references of each image or person."""
    format: Literal["webdataset", "parquet", "imagefolder"] = "parquet"
    """export: layout of the hub."""
    to: Path | None = None
    """export: the new folder."""
    merge: tuple[str, ...] | None = None
    """[FIRST,SECOND]: `report` ranks these workspaces' methods together, into this root's report folder."""
    report: ReportOptions = ReportOptions()
    train: TrainOptions = TrainOptions()

    @field_validator("root")
    @classmethod
    def _folder(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("expected a folder")
        return value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("expected auto, cpu or cuda")
        return value

    @field_validator("weights_dir")
    @classmethod
    def _is_there(cls, folder: Path | None) -> Path | None:
        if folder is not None and not folder.expanduser().is_dir():
            raise ValueError("no such folder")
        return folder

    @field_validator("merge")
    @classmethod
    def _some(cls, folders: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if folders == ():
            raise ValueError("expected the folders of workspaces, merge=[FIRST,SECOND]")
        return folders

    @model_validator(mode="after")
    def _gate_is_a_metric(self) -> RunConfig:
        gate = self.report.gate
        if gate is not None and gate.metric not in (*self.metric, *self.set_metric):
            raise ValueError(f"report.gate.metric={gate.metric}: not among the metrics of this run")
        return self

    def parts(self, group: str) -> dict[str, dict[str, Any]]:
        """Return the chosen parts of a group (`GROUPS`), each with its options."""
        chosen: dict[str, dict[str, Any] | None] = getattr(self, group)
        return {name: dict(options or {}) for name, options in chosen.items()}

    @property
    def models(self) -> tuple[str, ...]:
        """What is trained, in order."""
        return (self.model,) if isinstance(self.model, str) else self.model


def read_config(config: Any) -> RunConfig:
    """Return the config of a run from a composed Hydra config, or from a mapping; a `RunConfig` is returned as it is.

    Raises:
        ConfigError: an unknown key, or a value of another kind; one line.
    """
    return config if isinstance(config, RunConfig) else read_options(RunConfig, _unmarked(_plain(config)))


def _unmarked(values: dict[str, Any]) -> dict[str, Any]:
    """Take the marks of the default lists (conf/restorer/default.yaml, ...) off, and note them in ``unnamed``."""
    groups = {name: values[name] for name in GROUPS if isinstance(values.get(name), dict)}
    plain = {name: {key: part for key, part in parts.items() if key != DEFAULT} for name, parts in groups.items()}
    return {**values, **plain, "unnamed": [name for name, parts in groups.items() if parts.get(DEFAULT)]}


def _plain(config: Any) -> dict[str, Any]:
    """Return a Hydra config (or any mapping) as a plain resolved dictionary."""
    from omegaconf import OmegaConf

    value = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    if not isinstance(value, Mapping):
        raise ConfigError(f"expected named options, got {value!r}")
    return {str(key): item for key, item in value.items()}
