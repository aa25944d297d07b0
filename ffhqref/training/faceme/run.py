"""Training of FaceMe's two stages one after the other, each resumed where an earlier run stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import content_key
from ffhqref.training.faceme.lists import Sample, read_samples
from ffhqref.training.faceme.settings import FaceMeSettings
from ffhqref.training.finished import check_same_data, finished, outcome, recorded_weights
from ffhqref.training.log import log_losses, silent, untracked
from ffhqref.training.processes import is_first_process, process_count
from ffhqref.training.settings import read_settings
from ffhqref.weights.files import Weights, file_sha256, require
from ffhqref.weights.tensors import holding
from ffhqref.zoo.faceme.config import FaceMeConfig

if TYPE_CHECKING:
    from ffhqref.core.trackers import Track
    from ffhqref.training.faceme.task import FaceMeTask
    from ffhqref.training.options import FaceMeOptions, TrainOptions

BASE_PARTS = ("unet", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
"""Folders of a SDXL model that a training reads."""


@dataclass(frozen=True)
class FaceMePlan:
    """What is trained on what, checked."""

    options: FaceMeOptions
    folder: Path
    seed: int
    settings: Mapping[int, FaceMeSettings]
    """Of both stages."""
    config: FaceMeConfig

    @classmethod
    def of(cls, train: TrainOptions, seed: int) -> FaceMePlan:
        """Check the options.

        Args:
            train: section ``train`` of the config.
            seed: of the run.

        Raises:
            ConfigError: a wrong entry.
        """
        return cls(
            options=train.faceme,
            folder=train.folder / "faceme",
            seed=seed,
            settings={stage: _settings(train, stage, seed) for stage in (1, 2)},
            config=FaceMeConfig.load(train.faceme.config),
        )

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages to train, in order."""
        return tuple(stage for stage in (1, 2) if stage in self.options.stages)

    @property
    def base_is_random(self) -> bool:
        """Whether no base is named and widths are not the released ones: `base` then makes a random one."""
        return self.options.base is None and self.options.config is not None

    def base(self) -> Path:
        """Return the SDXL folder: the one given, the released one, or a small random one."""
        if self.options.base is not None:
            return self.options.base.expanduser()
        if not self.base_is_random:
            return require("realvisxl-3").path.parent.parent
        folder = self.folder / "base"
        if not (folder / "model_index.json").is_file():
            from ffhqref.training.faceme.small import write_small_base

            write_small_base(folder, side=self.options.side, seed=self.seed)
        return folder

    def photomaker(self) -> Path:
        """Return ``photomaker-v1.bin``: the one given, the released one, or a small random one."""
        if self.options.photomaker is not None or self.options.config is None:
            return require("photomaker-v1", path=self.options.photomaker).path
        path = self.folder / "photomaker-v1.bin"
        if not path.is_file():
            from ffhqref.training.faceme.small import write_small_photomaker

            write_small_photomaker(path, self.config.id_encoder, self.seed)
        return path

    def samples(self, workspace: Path) -> list[Sample]:
        """Return the samples to train on: of the list given, or of what ``ffhqref prepare`` wrote.

        Raises:
            ConfigError: there is no list.
        """
        listed = self.options.list
        path = listed.expanduser() if listed else workspace / "faceme" / "train.json"
        if not path.is_file():
            raise ConfigError(f"no list of training samples at {path}: run ffhqref prepare, or set train.faceme.list")
        return read_samples(path)


def _settings(train: TrainOptions, stage: int, seed: int) -> FaceMeSettings:
    options = train.faceme
    shared: dict[str, Any] = {
        "precision": train.precision,
        "save_every": train.save_every,
        "sample_every": train.sample_every,
        "seed": seed,
        "lora": options.lora,
        "resolution": options.side,
    }
    given = {**shared, **options.common, **getattr(options, f"stage{stage}")}
    return read_settings(FaceMeSettings, given, f"train.faceme.stage{stage}", stage=stage)


def train_faceme(
    plan: FaceMePlan,
    samples: list[Sample],
    device: str,
    log: Callable[[str], None],
    track: Track = untracked,
) -> None:
    """Train the stages of a plan; one that is done loads no network.

    Args:
        plan: checked options.
        samples: to train on.
        device: where to work.
        log: takes a line.
        track: takes the losses of each step.

    Raises:
        ConfigError: a folder belongs to another training.
    """
    log = log if is_first_process() else silent
    size, base = plan.options.side, _base_files(plan)
    log(f"train: FaceMe on {len(samples)} images, {size} pixels; folder {plan.folder}")
    for stage in plan.stages:
        folder = plan.folder / f"stage{stage}"
        data = _data_key(plan, stage, samples, base)
        check_same_data(folder, data)
        lora = [_hashed(plan.photomaker())] if plan.settings[stage].lora else []
        key = _key(plan, stage, data, lora[0].sha256 if lora else None)
        written = finished(folder, key)
        before = "done before, " if written is not None else ""
        if written is None:
            with holding([*base, *recorded_weights(plan.folder / "stage1"), *lora]):
                written = _train_one(plan, stage, samples, device, log, track, key)
        if written:  # by the first of several processes
            log(f"faceme stage {stage}: {before}{', '.join(str(path) for path in written)}")


def _data_key(plan: FaceMePlan, stage: int, samples: list[Sample], base: list[Weights]) -> str:
    """Return a hash of a stage's samples, wherever the files are, of its base, and of what stage 1 hands on to it."""
    listed = [[sample.name, [Path(item.identity).parts[-2:] for item in sample.references]] for sample in samples]
    content: list[Any] = ["random", plan.seed] if plan.base_is_random else [[file.name, file.sha256] for file in base]
    return content_key(listed, content, outcome(plan.folder / "stage1") if stage == 2 else "")


def _base_files(plan: FaceMePlan) -> list[Weights]:
    """Return the files of a base that was given, with their hashes; a random one is told by its seed."""
    if plan.base_is_random:
        return []
    base = plan.base()
    files = sorted(path for part in BASE_PARTS for path in (base / part).rglob("*") if path.is_file())
    return [_hashed(path, path.relative_to(base).as_posix()) for path in files]


def _hashed(path: Path, name: str = "") -> Weights:
    return Weights(name or path.name, path.name, path, file_sha256(path), None)


def _key(plan: FaceMePlan, stage: int, data: str, lora: str | None) -> str:
    """Return a hash of everything that the result of a stage depends on."""
    options, settings = plan.options, plan.settings[stage]
    facts = {"prompt": options.prompt, "key_word": options.key_word, "side": options.side}
    return content_key("faceme", stage, asdict(settings), asdict(plan.config.mix), facts, lora, data, process_count())


def _train_one(
    plan: FaceMePlan,
    stage: int,
    samples: list[Sample],
    device: str,
    log: Callable[[str], None],
    track: Track,
    key: str,
) -> list[Path]:
    from ffhqref.training.faceme.data import FaceMeBatches
    from ffhqref.training.faceme.features import FeatureFiles
    from ffhqref.training.faces import SmallImages, unrounded_degradation
    from ffhqref.training.loop import train

    options, settings = plan.options, plan.settings[stage]
    task = _task(plan, settings, device)
    batches = FaceMeBatches(
        samples,
        SmallImages(options.side),
        unrounded_degradation("faceme", options.side),
        FeatureFiles(),
        settings.batch_rules,
        settings.pool_rules,
        workers=options.workers,
    )
    return train(
        task,
        batches,
        plan.folder / f"stage{stage}",
        look=batches(0, 0, 1),
        callback=log_losses(log, track, f"faceme stage {stage}", settings.run.steps),
        export_every=options.checkpoint_every,
        key=key,
    )


def _task(plan: FaceMePlan, settings: FaceMeSettings, device: str) -> FaceMeTask:
    from ffhqref.training.faceme.start import encode_prompt, latest_checkpoint, load_networks
    from ffhqref.training.faceme.task import FaceMeTask
    from ffhqref.training.runtime import TrainingRuntime

    options, base = plan.options, plan.base()
    before = latest_checkpoint(plan.folder / "stage1") if settings.stage == 2 else None
    runtime = TrainingRuntime(device, settings.run.precision)
    prompt = encode_prompt(base, options.prompt, options.key_word, device=str(runtime.device))
    networks = load_networks(
        base,
        prompt,
        controlnet=before / "controlnet" if before and settings.controlnet_init == "stage1" else None,
        mix=before / "mix" if before else None,
        mix_config=plan.config.mix,
        lora=plan.photomaker() if settings.lora else None,
        seed=settings.run.seed,
    )
    return FaceMeTask(settings, networks, runtime)


def trained_restorer(plan: FaceMePlan, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the restorer ``faceme`` with the weights that were trained here.

    Args:
        plan: that was trained.
        info: facts for the tables.
    """
    from ffhqref.training.faceme.start import latest_checkpoint

    options = plan.options
    folder = plan.folder.absolute()  # the same from whatever working folder, so that nothing is restored again
    first, last = (latest_checkpoint(folder / f"stage{stage}") for stage in (1, max(plan.stages)))
    faces = dict(options.faces)
    insightface = {"detector": faces.get("detector"), "arcface": faces.get("arcface")}
    return {
        "name": "faceme",
        "base": str(plan.base().absolute()),
        "controlnet": str(last / "controlnet"),
        "mix": str(first / "mix"),
        "photomaker": str(plan.photomaker().absolute()),
        "config": options.config,
        "prompt": options.prompt,
        "negative_prompt": options.prompt,
        "key_word": options.key_word,
        "preset": "lora" if options.lora else "published",
        "info": dict(info),
        **(insightface if faces.get("name") == "insightface" else {"faces": faces}),
        **(options.restore or {}),
    }
