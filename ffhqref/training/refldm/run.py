"""Training of ReF-LDM's models one after the other, each resumed where an earlier run stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import content_key
from ffhqref.degradation import get_degradation
from ffhqref.training.faces import TrainingItem, items_by_person
from ffhqref.training.finished import check_same_data, checkpoint_sha256, finished, mark_finished
from ffhqref.training.log import log_losses, silent, untracked
from ffhqref.training.processes import is_first_process, process_count
from ffhqref.training.refldm.settings import DiffusionSettings, VQGANSettings
from ffhqref.training.settings import read_settings
from ffhqref.weights.files import Weights, require
from ffhqref.zoo.refldm.config import RefLDMConfig

if TYPE_CHECKING:
    from ffhqref.core.trackers import Track
    from ffhqref.reference_sets.training_images import TrainingImages
    from ffhqref.training.loop import Task
    from ffhqref.training.options import TrainOptions
    from ffhqref.training.refldm.data import TrainingBatch

MODELS = ("vqgan", "ldm", "refldm")
"""First stage, denoiser without references, fine-tune with references; each starts from those before it."""


@dataclass(frozen=True)
class RefLDMPlan:
    """What is trained on what, checked."""

    models: tuple[str, ...]
    """Some of `MODELS`, in that order."""
    folder: Path
    architecture: RefLDMConfig
    settings: Mapping[str, VQGANSettings | DiffusionSettings]
    degradation: str
    unit_latents: bool
    """Whether the first stage's latents are scaled to unit deviation when it is done."""
    max_steps: int | None
    start: Path | None
    """``vqgan.ckpt`` that the first stage starts from; None: fresh."""
    ldm: Path
    """``refldm.ckpt`` of the LDM, which the fine-tune starts from."""
    identity: Weights | None
    """Network of the identity loss; None: no model has that loss."""

    @classmethod
    def of(cls, options: TrainOptions, models: Sequence[str], seed: int) -> RefLDMPlan:
        """Check the options.

        Args:
            options: section ``train`` of the config.
            models: names, in any order.
            seed: of the run.

        Raises:
            ConfigError: a wrong entry, or several models for several processes.
            WeightsError: the network of the identity loss is missing.
        """
        get_degradation(options.degradation)
        if process_count() > 1 and len(models) > 1:
            raise ConfigError("several processes train one model a launch; choose one, for instance model=ldm")
        settings = {name: _settings(name, options, seed) for name in MODELS}
        needed = any(_identity_weight(settings[name]) for name in models)
        return cls(
            models=tuple(name for name in MODELS if name in models),
            folder=options.folder,
            architecture=RefLDMConfig.from_tree(options.architecture, where="train.architecture"),
            settings=settings,
            degradation=options.degradation,
            unit_latents=options.unit_latents,
            max_steps=options.max_steps,
            start=options.start,
            ldm=options.unet or options.folder / "ldm" / "refldm.ckpt",
            identity=require("webface-r50", path=options.identity) if needed else None,
        )

    @property
    def first_stage(self) -> Path:
        """``vqgan.ckpt`` that the denoisers use."""
        return self.folder / "vqgan" / "vqgan.ckpt"

    def starts(self, model: str) -> list[Path]:
        """Return the checkpoints that a model is trained from."""
        if model == "vqgan":
            return [] if self.start is None else [self.start]
        return [self.first_stage] if model == "ldm" else [self.first_stage, self.ldm]


def _settings(name: str, options: TrainOptions, seed: int) -> VQGANSettings | DiffusionSettings:
    shared = {"precision": options.precision, "save_every": options.save_every, "sample_every": options.sample_every}
    given = {**shared, "seed": seed, **getattr(options, name)}
    if name == "vqgan":
        return read_settings(VQGANSettings, given, "train.vqgan")
    return read_settings(DiffusionSettings, given, f"train.{name}")


def _identity_weight(settings: VQGANSettings | DiffusionSettings) -> float:
    return settings.identity_weight if isinstance(settings, DiffusionSettings) else 0.0


def train_refldm(
    plan: RefLDMPlan,
    images: TrainingImages,
    device: str,
    log: Callable[[str], None],
    track: Track = untracked,
) -> None:
    """Train the models of a plan; one that is done loads no network.

    Args:
        plan: checked options.
        images: to train on.
        device: where to work.
        log: takes a line.
        track: takes the losses of each step.

    Raises:
        ConfigError: a model starts from a checkpoint that is missing, or its folder belongs to another training.
    """
    items = items_by_person(images.by_person())
    log = log if is_first_process() else silent
    log(f"train: {len(items)} images, {plan.architecture.picture_size} pixels; folder {plan.folder}")
    for name in plan.models:
        data = _data_key(plan, name, items, images)
        key = _key(plan, name, data)
        done = finished(plan.folder / name, key)
        if done is not None:
            log(f"{name}: done before, {', '.join(str(path) for path in done)}")
            continue
        check_same_data(plan.folder / name, data)
        written = _train_one(plan, name, items, device, log, track)
        if written:  # by the first of several processes
            mark_finished(plan.folder / name, key, written)
            log(f"{name}: {', '.join(str(path) for path in written)}")


def _data_key(plan: RefLDMPlan, name: str, items: Sequence[TrainingItem], images: TrainingImages) -> str:
    """Return a hash of the images and checkpoints that a model is trained on and from, wherever they are."""
    content = dict(zip(images.frame["file"].map(str), images.frame["sha256"], strict=True))
    people = sorted((content[item.target], sorted(content[other] for other in item.references)) for item in items)
    return content_key(people, [checkpoint_sha256(path) for path in plan.starts(name)])


def _key(plan: RefLDMPlan, name: str, data: str) -> str:
    """Return a hash of everything that the result of a model's training depends on."""
    settings, identity = plan.settings[name], None
    if plan.identity is not None and _identity_weight(settings):
        identity = plan.identity.sha256
    rules = [plan.architecture.to_tree(), plan.degradation, plan.unit_latents, plan.max_steps, process_count()]
    return content_key(name, asdict(settings), rules, identity, data)


def _train_one(
    plan: RefLDMPlan, name: str, items: Sequence[TrainingItem], device: str, log: Callable[[str], None], track: Track
) -> list[Path]:
    from ffhqref.training.faces import SmallImages, degradation
    from ffhqref.training.loop import train
    from ffhqref.training.refldm.data import FaceBatches
    from ffhqref.training.refldm.start import unit_latents
    from ffhqref.training.refldm.vqgan import VQGANTask

    settings, size, folder = plan.settings[name], plan.architecture.picture_size, plan.folder / name
    source = partial(
        FaceBatches,
        items,
        SmallImages(size),
        degradation(plan.degradation, size),
        references=settings.references if isinstance(settings, DiffusionSettings) else 0,
        augment=not isinstance(settings, DiffusionSettings) or settings.augment,
        vary=settings.vary,
    )
    task = _task(name, plan, device)
    batches = source(batch_size=settings.run.batch_size, seed=settings.run.seed)
    look = source(batch_size=4, seed=settings.run.seed + 1)(0, 0, 1)
    callback = log_losses(log, track, name, settings.run.steps)
    written = train(task, batches, folder, look=look, max_steps=plan.max_steps, callback=callback)
    if not task.runtime.is_main:
        return []
    if isinstance(task, VQGANTask) and plan.unit_latents:
        # Scale the checkpoint only: the saved state stays what a resumed run starts from.
        factor = unit_latents(task.first_stage, batches(0, 0, 1).gt.to(task.runtime.device))
        task.export(folder)
        log(f"{name}: latents times {factor:.3g}")
    return [*written, _half_precision(plan)] if name == "refldm" else written


def _task(name: str, plan: RefLDMPlan, device: str) -> Task[TrainingBatch]:
    from ffhqref.training.onnx_network import OnnxNetwork
    from ffhqref.training.refldm import start
    from ffhqref.training.refldm.diffusion import DiffusionTask
    from ffhqref.training.refldm.vqgan import VQGANTask
    from ffhqref.training.runtime import TrainingRuntime

    for path in plan.starts(name):
        if not path.is_file():
            raise ConfigError(f"model={name} starts from {path}, which is missing; train model={path.parent.name}")
    settings, config = plan.settings[name], plan.architecture
    seed, runtime = settings.run.seed, TrainingRuntime(device, settings.run.precision)
    if isinstance(settings, VQGANSettings):
        first_stage = (
            start.trained_first_stage(config, plan.start) if plan.start else start.fresh_first_stage(config, seed)
        )
        perceptual = _perceptual_loss(str(runtime.device)) if settings.perceptual_weight else None
        return VQGANTask(config, settings, first_stage, runtime, perceptual)
    unet = start.unet_of_ldm(config, plan.ldm) if name == "refldm" else start.fresh_unet(config, seed)
    embed = None
    if plan.identity is not None and settings.identity_weight:
        embed = OnnxNetwork(plan.identity).to(runtime.device)
    first_stage = start.trained_first_stage(config, plan.first_stage)
    return DiffusionTask(config, settings, first_stage, unet, runtime, embed)


def _perceptual_loss(device: str) -> Callable[[Any, Any], Any]:
    """Return LPIPS (VGG) for images in −1..1."""
    from ffhqref.metrics.base import MetricRuntime
    from ffhqref.metrics.perceptual import perceptual_loss

    return perceptual_loss("vgg", runtime=MetricRuntime(device))


def _half_precision(plan: RefLDMPlan) -> Path:
    """Write what the sampler needs of the fine-tune as one file of half precision."""
    import torch

    from ffhqref.zoo.refldm.checkpoint import load_published
    from ffhqref.zoo.refldm.converted import save_converted

    folder = plan.folder / "refldm"
    weights = load_published(folder / "refldm.ckpt", None, plan.architecture)
    return save_converted(folder / "refldm_half.safetensors", weights, plan.architecture, dtype=torch.float16)
