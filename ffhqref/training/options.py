"""Options of training: the section ``train`` of the config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from ffhqref.core.options import Options

if TYPE_CHECKING:
    from ffhqref.reference_sets.training_images import MoreFaces

Model = Literal["vqgan", "ldm", "refldm", "faceme"]


class MoreFacesOptions(Options):
    """More aligned faces to train on, beside those of the reference set."""

    path: Path | None = None
    """Folder; null: none."""
    table: str = "people.csv"
    """CSV in it with the columns file and person."""
    leave_out: tuple[str, ...] = ()
    """People who are not trained on."""

    def read(self) -> MoreFaces | None:
        """Read the CSV; None without a folder.

        Raises:
            ConfigError: the CSV is missing or wrong, or two of its images have one name.
        """
        if self.path is None:
            return None
        from ffhqref.reference_sets.training_images import MoreFaces

        return MoreFaces.read(self.path, self.table, self.leave_out, self.given())


class FaceMeOptions(Options):
    """Training of FaceMe."""

    base: Path | None = None
    """Folder of an SDXL model; null: from the weights folder, or with widths in ``config`` a small random one."""
    photomaker: Path | None = None
    """photomaker-v1.bin with the CLIP tower; null: as for ``base``."""
    side: int = Field(default=512, ge=8)
    """Size of the images; smaller ones than 512 are degraded in proportion."""
    references: Literal["synthetic", "real", "both"] = "synthetic"
    """synthetic (FaceMe's own way), real (other photographs of the person), or both."""
    synthetic: Path | None = None
    """FFHQRef folder; null: the one that `ffhqref synthesize` made."""
    list: Path | None = None
    """A train.json; null: that of `ffhqref prepare`."""
    faces: dict[str, object] = Field(default_factory=dict)
    """Detector and network: {name: aligned, embedder: dlib}, or {name: insightface} with detector and arcface."""
    config: dict[str, object] | Path | None = None
    """Widths; null: the released ones."""
    prompt: str = "A photo of face."
    key_word: str = "face"
    """In the prompt; the references' tokens take its place."""
    lora: bool = False
    """PhotoMaker's LoRA merged, which the published script loads and does not apply."""
    workers: int = Field(default=1, ge=0)
    """Threads that read and degrade."""
    stages: tuple[Literal[1, 2], ...] = (1, 2)
    checkpoint_every: int = Field(default=100, ge=1)
    common: dict[str, object] = Field(default_factory=dict)
    """Settings of both stages (ffhqref.training.faceme.settings)."""
    stage1: dict[str, object] = Field(default_factory=dict)
    """Settings of stage 1."""
    stage2: dict[str, object] = Field(default_factory=dict)
    """Settings of stage 2."""
    restore: dict[str, object] | None = None
    """Options of the restorer that `ffhqref faceme` runs on what was trained."""

    @field_validator("stages")
    @classmethod
    def _some(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        if not stages:
            raise ValueError("expected [1], [2] or [1,2]")
        return stages


class TrainOptions(Options):
    """What is trained on what; conf/train has the paper's settings, and tiny ones for two CPU cores."""

    folder: Path = Path("workspace/train-tiny")
    splits: tuple[Literal["train", "val", "test"], ...] = ("train", "val")
    """Of the reference set; identities of the test split are never trained on."""
    leave_out: tuple[str, ...] = ()
    """True identities that share a person with a test identity."""
    degradation: str = "refldm-train"
    identity: Path | None = None
    """ONNX file of the network of the identity loss, where that has a weight; null: webface-r50."""
    unet: Path | None = None
    """A refldm.ckpt that the fine-tune goes on from; null: the LDM of this folder."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this step, as if it were the last; null: at the end."""
    start: Path | None = None
    """A vqgan.ckpt that the first stage goes on from; null: fresh."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    unit_latents: bool = True
    """Scale the first stage's latents to unit deviation when it is done."""
    save_every: int = Field(default=50, ge=1)
    """Steps between states that a resumed run starts from."""
    sample_every: int = Field(default=100, ge=0)
    """Steps between images to look at; 0: none."""
    threads: int | None = Field(default=None, ge=1)
    """Of the CPU; null: torch's own choice."""
    vqgan: dict[str, object] = Field(default_factory=dict)
    """Settings of the first stage (ffhqref.training.refldm.settings)."""
    ldm: dict[str, object] = Field(default_factory=dict)
    """Settings of the denoiser without references."""
    refldm: dict[str, object] = Field(default_factory=dict)
    """Settings of the fine-tune with references."""
    faces: MoreFacesOptions = MoreFacesOptions()
    architecture: dict[str, object] = Field(default_factory=dict)
    """In the form of the published refldm.yaml."""
    faceme: FaceMeOptions = FaceMeOptions()

    @field_validator("splits")
    @classmethod
    def _untested(cls, splits: tuple[str, ...]) -> tuple[str, ...]:
        if "test" in splits:
            raise ValueError("names the test split; a model must not see what it is tested on")
        return splits
