"""FaceMe's part of ``ffhqref train``: both stages, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.hashing import content_key
from ffhqref.core.images import write_atomic

if TYPE_CHECKING:
    from ffhqref.training.faceme.lists import Sample
    from ffhqref.training.faceme.settings import FaceMeSettings
    from ffhqref.training.faceme.task import FaceMeTask
    from ffhqref.zoo.faceme.config import FaceMeConfig

    from ._common import Context


@dataclass(frozen=True)
class Plan:
    """What will be trained on what, checked."""

    stages: tuple[int, ...]
    folder: Path
    base: Path
    photomaker: Path
    config: FaceMeConfig
    settings: Mapping[int, FaceMeSettings]
    samples: list[Sample]


def check_faceme(context: Context) -> Plan:
    """Check the config, find the base, and read the list of who is to be trained on."""
    from ffhqref.training.faceme.lists import read_samples
    from ffhqref.zoo.faceme.config import FaceMeConfig

    stages, settings = check_options(context)
    options = context.config.train.faceme
    listed = options.list
    path = listed.expanduser() if listed else context.workspace.root / "faceme" / "train.json"
    if not path.is_file():
        raise ConfigError(f"no list of training samples at {path}: run ffhqref prepare, or set train.faceme.list")
    return Plan(
        stages=stages,
        folder=context.config.train.folder / "faceme",
        base=base_folder(context),
        photomaker=photomaker_file(context),
        config=FaceMeConfig.load(options.config),
        settings=settings,
        samples=read_samples(path),
    )


def check_options(context: Context) -> tuple[tuple[int, ...], dict[int, FaceMeSettings]]:
    """Return the stages to train, in order, and the settings of both; what is wrong in the config ends here."""
    stages = context.config.train.faceme.stages
    settings = {stage: _settings(context, stage) for stage in (1, 2)}
    return tuple(stage for stage in (1, 2) if stage in stages), settings


def base_is_random(context: Context) -> bool:
    """Return whether no base is named and widths are not the released ones: `base_folder` then makes a random one."""
    options = context.config.train.faceme
    return not options.base and options.config is not None


def base_folder(context: Context) -> Path:
    """Return the SDXL folder: the one given, the released one, or a small random one where widths are not released."""
    from ffhqref.weights.files import require

    options = context.config.train.faceme
    if options.base:
        return options.base.expanduser()
    if not base_is_random(context):
        return require("realvisxl-3").path.parent.parent
    folder = context.config.train.folder / "faceme" / "base"
    if not (folder / "model_index.json").is_file():
        from ffhqref.training.faceme.small import write_small_base

        write_small_base(folder, side=options.side, seed=context.seed)
    return folder


def photomaker_file(context: Context) -> Path:
    """Return ``photomaker-v1.bin``: the one given, the released one, or a small random one."""
    from ffhqref.weights.files import require
    from ffhqref.zoo.faceme.config import FaceMeConfig

    options = context.config.train.faceme
    if options.photomaker or options.config is None:
        return require("photomaker-v1", path=options.photomaker).path
    path = context.config.train.folder / "faceme" / "photomaker-v1.bin"
    if not path.is_file():
        from ffhqref.training.faceme.small import write_small_photomaker

        write_small_photomaker(path, FaceMeConfig.load(options.config).id_encoder, context.seed)
    return path


def train_faceme(
    context: Context, plan: Plan, teller: Callable[[str, int], Callable[[int, dict[str, float]], None]]
) -> int:
    """Train the stages, each from where an earlier run stopped; one that is done loads no network."""
    from ffhqref.training.faceme.data import FaceMeBatches
    from ffhqref.training.faceme.features import FeatureFiles
    from ffhqref.training.faces import SmallPictures, unrounded_degradation
    from ffhqref.training.finished import finished
    from ffhqref.training.loop import train

    options, say = context.config.train.faceme, context.reporter.say
    side = options.side
    load, degrade, feature = SmallPictures(side), unrounded_degradation("faceme", side), FeatureFiles()
    say(f"train: FaceMe on {len(plan.samples)} pictures, {side} pixels; folder {plan.folder}")
    for stage in plan.stages:
        settings, folder = plan.settings[stage], plan.folder / f"stage{stage}"
        begun = _begun_from(plan, stage)
        _check_same_beginning(begun, folder)
        key = _key(context, plan, stage, begun)
        done = finished(folder, key)
        if done is not None:
            if os.environ.get("RANK", "0") == "0":
                say(f"faceme stage {stage}: done before, {', '.join(str(path) for path in done)}")
            continue
        task = _task(context, plan, settings)
        rules, pool = settings.batch_rules, settings.pool_rules
        batches = FaceMeBatches(plan.samples, load, degrade, feature, rules, pool, workers=options.workers)
        written = train(
            task,
            batches,
            folder,
            look=batches(0, 0, 1),
            told=teller(f"faceme stage {stage}", settings.run.steps),
            export_every=options.checkpoint_every,
            key=key,
        )
        if written:  # by the first of several processes
            say(f"faceme stage {stage}: {', '.join(str(path) for path in written)}")
    return 0


def _begun_from(plan: Plan, stage: int) -> str:
    """Return a hash of a stage's samples, wherever the files lie, of its base, and of what stage 1 hands on to it."""
    from ffhqref.training.finished import outcome

    samples = [[sample.name, [Path(item.identity).parts[-2:] for item in sample.references]] for sample in plan.samples]
    return content_key(samples, plan.base.name, outcome(plan.folder / "stage1") if stage == 2 else "")


def _check_same_beginning(begun: str, folder: Path) -> None:
    """Refuse to go on with a training that was begun on other pictures or references, or after another stage 1."""
    record = folder / "begun.sha256"
    if (folder / "state.pt").is_file() and record.is_file() and record.read_text(encoding="utf-8") != begun:
        raise ConfigError(
            f"{folder} belongs to a training on other pictures or references (another limit, split or list), of "
            "another base, or after another stage 1; take another train.folder, or delete it"
        )
    write_atomic(record, begun.encode())


def _key(context: Context, plan: Plan, stage: int, begun: str) -> str:
    """Return a hash of all that decides what a stage makes."""
    options = context.config.train.faceme
    facts: dict[str, Any] = {name: getattr(options, name) for name in ("prompt", "key_word", "side")}
    settings = plan.settings[stage]
    # The random base follows from the seed wherever its folder lies; the LoRA's file matters where it is merged.
    facts["base"] = ["random", context.seed] if base_is_random(context) else str(plan.base.absolute())
    facts["lora"] = str(plan.photomaker.absolute()) if settings.lora else None
    return content_key("faceme", stage, asdict(settings), asdict(plan.config.mix), facts, begun, processes())


def processes() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _task(context: Context, plan: Plan, settings: FaceMeSettings) -> FaceMeTask:
    from ffhqref.training.faceme.start import encode_prompt, latest_checkpoint, load_networks
    from ffhqref.training.faceme.task import FaceMeTask
    from ffhqref.training.runtime import TrainingRuntime

    options = context.config.train.faceme
    before = latest_checkpoint(plan.folder / "stage1") if settings.stage == 2 else None
    runtime = TrainingRuntime(context.device, settings.run.precision)
    prompt = encode_prompt(plan.base, options.prompt, options.key_word, device=str(runtime.device))
    networks = load_networks(
        plan.base,
        prompt,
        controlnet=before / "controlnet" if before and settings.controlnet_init == "stage1" else None,
        mix=before / "mix" if before else None,
        mix_config=plan.config.mix,
        lora=plan.photomaker if settings.lora else None,
        seed=settings.run.seed,
    )
    return FaceMeTask(settings, networks, runtime)


def _settings(context: Context, stage: int) -> FaceMeSettings:
    from ffhqref.training.faceme.settings import FaceMeSettings
    from ffhqref.training.settings import RunSettings

    train = context.config.train
    options = train.faceme
    shared = {key: getattr(train, key) for key in ("precision", "save_every", "sample_every")}
    shared |= {"seed": context.seed, "lora": options.lora, "resolution": options.side}
    given = {**shared, **options.common, **(options.stage1 if stage == 1 else options.stage2)}
    of_run = {item.name for item in fields(RunSettings)}
    own = {item.name for item in fields(FaceMeSettings)} - {"run", "stage"}
    for key in given:
        if key not in own | of_run:
            raise ConfigError(f"train.faceme: unknown entry '{key}'.{did_you_mean(key, own | of_run)}")
    try:
        run = RunSettings(**{key: value for key, value in given.items() if key in of_run})
        return FaceMeSettings(run, stage, **{key: value for key, value in given.items() if key in own})
    except TypeError as error:
        raise ConfigError(f"train.faceme: {error}") from None
