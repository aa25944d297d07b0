"""Reference set -> checkpoints: ReF-LDM (first stage, LQ-only LDM, fine-tune with references) and FaceMe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.hashing import content_key
from ffhqref.datasets import open_dataset
from ffhqref.datasets.builtin import SAMPLE_ROOT
from ffhqref.store.workspace import inside
from ffhqref.weights.files import require

from ._common import Context, open_context, rows_of
from ._faceme import check_faceme, processes, train_faceme

if TYPE_CHECKING:
    from ffhqref.training.faces import TrainingItem
    from ffhqref.training.options import TrainOptions
    from ffhqref.training.refldm.diffusion import DiffusionTask
    from ffhqref.training.refldm.settings import DiffusionSettings, VQGANSettings
    from ffhqref.training.refldm.vqgan import VQGANTask
    from ffhqref.training.settings import RunSettings
    from ffhqref.zoo.refldm.config import RefLDMConfig

REFLDM = ("vqgan", "ldm", "refldm")


@dataclass(frozen=True)
class Plan:
    """What will be trained on what, checked."""

    models: tuple[str, ...]
    folder: Path
    architecture: RefLDMConfig
    settings: Mapping[str, VQGANSettings | DiffusionSettings]
    items: list[TrainingItem]
    degradation: str
    start: Path | None
    """``vqgan.ckpt`` that the first stage goes on from; None: fresh."""
    unit_latents: bool
    """Whether the first stage's latents are scaled to unit deviation when it is done."""
    first_stage: Path
    """``vqgan.ckpt`` that the denoisers stand on."""
    ldm: Path
    """``refldm.ckpt`` of the LQ-only LDM, which the fine-tune starts from."""
    identity: Path | None
    """ONNX file of the identity loss's network; None: no model has that loss."""


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        models = _models(context)
        plan = check_train(context) if set(models) & set(REFLDM) else None
        faceme = check_faceme(context) if "faceme" in models else None
        set_threads(context)
        if plan is not None:
            train_models(context, plan)
        if faceme is not None:
            train_faceme(context, faceme, partial(teller, context.reporter.say))
        return 0


def _models(context: Context) -> list[str]:
    return list(context.config.models)


def set_threads(context: Context) -> None:
    """Let torch use as many threads of the CPU as ``train.threads`` says."""
    import torch

    threads = context.config.train.threads
    if threads:
        torch.set_num_threads(threads)


def check_train(context: Context) -> Plan:
    """Check the config of ReF-LDM's models, and read who is to be trained on."""
    from ffhqref.degradation import get_degradation
    from ffhqref.zoo.refldm.config import RefLDMConfig

    options = context.config.train
    models = _models(context)
    get_degradation(options.degradation)
    folder = options.folder
    settings = {name: _settings(name, options, context.seed) for name in REFLDM}
    if processes() > 1 and len(models) > 1:
        raise ConfigError("several processes train one model a launch; choose one, for instance model=ldm")
    identity = None
    if any(getattr(settings[name], "identity_weight", 0) for name in models if name in REFLDM):
        identity = require("webface-r50", path=options.identity).path
    return Plan(
        models=tuple(name for name in REFLDM if name in models),
        folder=folder,
        architecture=RefLDMConfig.from_tree(options.architecture, where="train.architecture"),
        settings=settings,
        items=_items(context, options),
        degradation=options.degradation,
        start=options.start,
        unit_latents=options.unit_latents,
        first_stage=folder / "vqgan" / "vqgan.ckpt",
        ldm=options.unet or folder / "ldm" / "refldm.ckpt",
        identity=identity,
    )


def train_models(context: Context, plan: Plan) -> int:
    """Train the models one after the other, each from where an earlier run stopped; one that is done is not loaded."""
    from ffhqref.training.faces import SmallPictures, degradation
    from ffhqref.training.finished import finished, mark_finished
    from ffhqref.training.loop import train
    from ffhqref.training.refldm.data import FaceBatches
    from ffhqref.training.refldm.start import unit_latents
    from ffhqref.training.refldm.vqgan import VQGANTask

    until = context.config.train.until
    side = plan.architecture.picture_size
    load, degrade = SmallPictures(side), degradation(plan.degradation, side)
    say = context.reporter.say if os.environ.get("RANK", "0") == "0" else _silent
    say(f"train: {len(plan.items)} pictures, {side} pixels; folder {plan.folder}")
    for name in plan.models:
        settings = plan.settings[name]
        key = _key(plan, name, until)
        done = finished(plan.folder / name, key)
        if done is not None:
            say(f"{name}: done before, {', '.join(str(path) for path in done)}")
            continue
        count = getattr(settings, "references", 0)
        augment = getattr(settings, "augment", True)

        source = partial(FaceBatches, plan.items, load, degrade, references=count, augment=augment, vary=settings.vary)
        task: Any = _task(name, plan, context.device)
        batches = source(batch_size=settings.run.batch_size, seed=settings.run.seed)
        written = train(
            task,
            batches,
            plan.folder / name,
            look=source(batch_size=4, seed=settings.run.seed + 1)(0, 0, 1),
            until=until,
            told=teller(say, name, settings.run.steps),
        )
        if not task.runtime.is_main:
            continue
        if isinstance(task, VQGANTask) and plan.unit_latents:
            # On the checkpoint only: the saved state stays what a resumed run goes on from.
            factor = unit_latents(task.first_stage, batches(0, 0, 1).gt.to(context.device))
            task.export(plan.folder / name)
            say(f"{name}: latents times {factor:.3g}")
        if name == "refldm":
            written.append(_half(plan))
        mark_finished(plan.folder / name, key, written)
        say(f"{name}: {', '.join(str(path) for path in written)}")
    return 0


def _key(plan: Plan, name: str, until: int | None) -> str:
    """Return a hash of all that decides what a model's training makes."""
    from ffhqref.training.finished import outcome

    before = REFLDM[: REFLDM.index(name)]
    files = [str(path.absolute()) for path in (plan.first_stage, plan.ldm, plan.start, plan.identity) if path]
    people = sorted((Path(item.target).name, len(item.references)) for item in plan.items)
    return content_key(
        [name, asdict(plan.settings[name]), plan.architecture.to_tree(), plan.degradation, plan.unit_latents, until],
        [files, [outcome(plan.folder / model) for model in before], people, processes()],
    )


def _task(name: str, plan: Plan, device: str) -> VQGANTask | DiffusionTask:
    from ffhqref.training.onnx_network import OnnxNetwork
    from ffhqref.training.refldm import start
    from ffhqref.training.refldm.diffusion import DiffusionTask
    from ffhqref.training.refldm.settings import VQGANSettings
    from ffhqref.training.refldm.vqgan import VQGANTask
    from ffhqref.training.runtime import TrainingRuntime

    settings, config = plan.settings[name], plan.architecture
    seed, runtime = settings.run.seed, TrainingRuntime(device, settings.run.precision)
    if isinstance(settings, VQGANSettings):
        perceptual = _lpips(device) if settings.perceptual_weight else None
        first_stage = (
            start.trained_first_stage(config, plan.start) if plan.start else start.fresh_first_stage(config, seed)
        )
        return VQGANTask(config, settings, first_stage, runtime, perceptual)
    for path in [plan.first_stage, *([plan.ldm] if name == "refldm" else [])]:
        if not path.is_file():
            raise ConfigError(f"model={name} starts from {path}, which is not there; train model={path.parent.name}")
    unet = start.unet_of_ldm(config, plan.ldm) if name == "refldm" else start.fresh_unet(config, seed)
    embed = OnnxNetwork(plan.identity).to(runtime.device) if plan.identity and settings.identity_weight else None
    first_stage = start.trained_first_stage(config, plan.first_stage)
    return DiffusionTask(config, settings, first_stage, unet, runtime, embed)


def _half(plan: Plan) -> Path:
    """Write what the sampler needs of the fine-tune as one file of half precision."""
    import torch

    from ffhqref.zoo.refldm.checkpoint import load_published
    from ffhqref.zoo.refldm.converted import save_converted

    folder = plan.folder / "refldm"
    weights = load_published(folder / "refldm.ckpt", None, plan.architecture)
    return save_converted(folder / "refldm_half.safetensors", weights, plan.architecture, dtype=torch.float16)


def _lpips(device: str) -> Callable[[Any, Any], Any]:
    """Return LPIPS (VGG) as the perceptual distance."""
    from ffhqref.metrics import MetricRuntime
    from ffhqref.metrics.perceptual import perceptual_loss

    return perceptual_loss("vgg", runtime=MetricRuntime(device))


def _settings(name: str, options: TrainOptions, seed: int) -> VQGANSettings | DiffusionSettings:
    from ffhqref.training.refldm.settings import DiffusionSettings, VQGANSettings
    from ffhqref.training.settings import RunSettings

    shared = {key: getattr(options, key) for key in ("precision", "save_every", "sample_every")}
    given = {**shared, "seed": seed, **getattr(options, name)}
    kind: Any = VQGANSettings if name == "vqgan" else DiffusionSettings
    own = {item.name for item in fields(kind)} - {"run"}
    of_run = {item.name for item in fields(RunSettings)}
    for key in given:
        if key not in own | of_run:
            raise ConfigError(f"train.{name}: unknown entry '{key}'.{did_you_mean(key, own | of_run)}")
    run: RunSettings = RunSettings(**{key: value for key, value in given.items() if key in of_run})
    made: VQGANSettings | DiffusionSettings = kind(run, **{key: value for key, value in given.items() if key in own})
    return made


def _items(context: Context, options: TrainOptions) -> list[TrainingItem]:
    """Return the pictures of the wanted splits, without anybody of the test split, and those of other folders."""
    from ffhqref.training.faces import items_by_person, people_of_csv

    workspace, splits = context.workspace, options.splits
    identities = workspace.read("identities")
    root = workspace.dataset_root
    paths: dict[str, str] = dict(workspace.read("images")[["image_id", "path"]].itertuples(index=False))
    # True identities, where they are known, close the gap that a missed pair of the test split would leave.
    truth = open_dataset("sample").truth if root == SAMPLE_ROOT else {}
    test = {truth.get(name) for name in identities.loc[identities["split"] == "test", "image_id"]} - {None}
    closed = test | set(options.leave_out)
    people = [
        (str(inside(root, paths[row.image_id])), f"set/{row.identity_id}")
        for row in rows_of(identities.dropna(subset=["identity_id"]))
        if row.split in splits and truth.get(row.image_id) not in closed
    ]
    faces = options.faces
    if faces.path:
        people += [
            (path, f"faces/{person}") for path, person in people_of_csv(faces.path, faces.table, faces.leave_out)
        ]
    return items_by_person(people)


def _silent(_: str) -> None:
    """Say nothing, as all processes of a training but the first do."""


def teller(say: Callable[[str], None], name: str, steps: int) -> Callable[[int, dict[str, float]], None]:
    """Return what tells the losses, averaged since it last did, some twenty times in a run."""
    every = max(1, steps // 20)
    sums: dict[str, float] = {}

    def told(step: int, losses: dict[str, float]) -> None:
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + value / every
        if step % every == 0:
            say(f"{name} {step}/{steps}: " + ", ".join(f"{key} {value:.4g}" for key, value in sums.items() if value))
            sums.clear()

    return told


if __name__ == "__main__":
    sys.exit(launch("train"))
