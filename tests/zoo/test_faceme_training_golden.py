"""FaceMe's training against steps of the published script: every intermediate, gradient and parameter on record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ffhqref.degradation import Parameters, get_degradation
from ffhqref.degradation.steps import degrade
from ffhqref.training.faceme.data import FaceMeBatch, signed_condition, signed_image
from ffhqref.training.faceme.lists import Feature, Sample
from ffhqref.training.faceme.references import PoolRules, pick, pool_of
from ffhqref.training.faceme.settings import FaceMeSettings
from ffhqref.training.faceme.start import controlnet_of, encode_prompt, load_networks
from ffhqref.training.faceme.task import FaceMeTask, TrainingDraws
from ffhqref.training.runtime import TrainingRuntime
from ffhqref.training.settings import RunSettings
from ffhqref.zoo.faceme.config import MixConfig
from ffhqref.zoo.faceme.mix import Mix

pytestmark = pytest.mark.golden


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def folder_of(golden: Path) -> Path:
    folder = golden / "faceme_training"
    if not (folder / "cases.json").is_file():
        pytest.skip(f"no golden training steps of FaceMe at {folder}")
    if not (golden / "faceme" / "base").is_dir():
        pytest.skip(f"no networks of FaceMe at {golden / 'faceme'}")
    return folder


@dataclass(frozen=True)
class Case:
    """One case on disk, as our training sees it."""

    folder: Path
    settings: dict

    @cached_property
    def record(self) -> dict:
        return json.loads((self.folder / self.settings["record"]).read_text())

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / self.settings["file"])

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def condition(self, micro: int) -> torch.Tensor:
        preset, made = get_degradation("faceme"), []
        for slot, item in enumerate(self.record["micro"][micro]["items"]):
            names = ("kernel", "sigma_x", "sigma_y", "rotation", "scale", "noise_sigma", "jpeg_quality")
            given = {"rotation": 0.0, **{name: item[name] for name in names if item.get(name) is not None}}
            drawn = Parameters(preset="faceme", seed=0, noise_skip=0, **{"sigma_y": given["sigma_x"], **given})
            picture = self[f"m{micro}.target_u8"][slot].numpy()
            noise = self[f"m{micro}.deg_noise_{slot}"].numpy()
            made.append(signed_condition(degrade(picture, drawn, noise, preset)))
        return torch.from_numpy(np.stack(made))

    def batch(self, micro: int) -> FaceMeBatch:
        size = self.settings["batch_size"]
        text = self.record["micro"][micro]["branch"] == "text"
        empty = torch.zeros(size, 0, 0)
        return FaceMeBatch(
            target=torch.from_numpy(np.stack([signed_image(x.numpy()) for x in self[f"m{micro}.target_u8"]])),
            condition=self.condition(micro),
            identity=empty if text else self[f"m{micro}.ref_id_emb"],
            clip=empty if text else self[f"m{micro}.ref_clip_emb"],
            text=text,
            seed=0,
            names=tuple(item["target"] for item in self.record["micro"][micro]["items"]),
        )

    def draws(self, micro: int) -> TrainingDraws:
        return TrainingDraws(*(self[f"m{micro}.{name}"] for name in ("draw_vae", "noise", "timesteps")))

    def task(self, **changed) -> FaceMeTask:
        case, networks_in = self.settings, self.folder.parent / "faceme"
        base = networks_in / "base"
        widths = json.loads((networks_in / "config.json").read_text())["mix"]
        networks = load_networks(
            base,
            encode_prompt(base),
            controlnet=networks_in / "controlnet" if case["controlnet"] == "folder" else None,
            mix=networks_in / "mix",
            mix_config=MixConfig(**widths),
        )
        initial = {name.removeprefix("init."): value for name, value in self.tensors.items() if name[:5] == "init."}
        left = networks.controlnet.load_state_dict(initial, strict=False)
        assert not left.unexpected_keys
        run = RunSettings(
            steps=case["steps"],
            batch_size=case["batch_size"],
            accumulate=case["accumulation"],
            learning_rate=self.record["steps"][0]["lr"],
            warmup=0,
            seed=case["seed"],
        )
        settings = {"stage": case["stage"], "resolution": case["resolution"], "identity_share": case["null_prompt_p"]}
        return FaceMeTask(FaceMeSettings(run, **{**settings, **changed}), networks, TrainingRuntime())


def cases(golden: Path) -> list[Case]:
    folder = folder_of(golden)
    return [Case(folder, settings) for settings in json.loads((folder / "cases.json").read_text())]


def near(found: torch.Tensor, wanted: torch.Tensor, bound: float) -> None:
    """The norm of the difference, relative to the norm."""
    scale = max(float(wanted.double().norm()), 1e-12)
    assert found.shape == wanted.shape
    assert float((found.detach().double() - wanted.double()).norm()) <= bound * scale


def bits(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def test_condition_pictures_are_the_published_ones(golden):
    """Equal but for the last bits of OpenCV's float32 resize, whose kernel depends on the processor's instructions.

    One level of the JPEG before that resize would move a value by 2/255.
    """
    for case in cases(golden):
        for micro in range(case.settings["micro_batches"]):
            found, wanted = case.condition(micro), case[f"m{micro}.control"]
            assert found.shape == wanted.shape
            assert float((found - wanted).abs().max()) <= 2.0**-21, f"{case.settings['file']} m{micro}"


def test_the_prompt_is_encoded_as_published(golden):
    folder = folder_of(golden)
    prompt = encode_prompt(folder.parent / "faceme" / "base")
    for case in cases(golden):
        near(prompt.states[0], case["prompt_embeds"], 1e-5)
        near(prompt.pooled[0], case["pooled_prompt_embeds"], 1e-5)


def test_every_step_is_the_published_one(golden):
    """Each case from its start to its last step; intermediates of every micro-batch, gradients of every step."""
    for case in cases(golden):
        task = case.task()
        frozen = [task.unet, task.vae] + ([task.mix] if case.settings["stage"] == 2 else [])
        before = [bits(network) for network in frozen]
        shown: dict[str, torch.Tensor] = {}
        task.controlnet.register_forward_hook(
            lambda module, given, out: shown.update(first=out[0][0], last=out[0][-1], mid=out[1])  # noqa: B023
        )
        accumulation = case.settings["accumulation"]
        for step, record in enumerate(case.record["steps"]):
            pairs = []
            for micro in range(step * accumulation, (step + 1) * accumulation):
                pairs.append((case.batch(micro), case.draws(micro)))
                with torch.no_grad():
                    _intermediates(case, micro, task.forward(*pairs[-1]), shown)
            found = task.gradients(pairs)
            losses = [case.record["micro"][step * accumulation + part]["loss"] for part in range(accumulation)]
            assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
            _gradients(case, step, task, record)
            task.update(task.run.rate(step))
        _parameters(case, task)
        for network, values in zip(frozen, before, strict=True):
            assert all(torch.equal(value, values[name]) for name, value in network.state_dict().items())
            assert all(value.grad is None for value in network.parameters())


def _intermediates(case: Case, micro: int, passed, shown: dict[str, torch.Tensor]) -> None:
    def check(name: str, value: torch.Tensor) -> None:
        key = f"m{micro}.{name}"
        if key in case.tensors:
            near(value, case[key], 1e-5)

    for name, value in (("latents", passed.latents), ("noisy_latents", passed.noisy), ("states", passed.states)):
        check(name, value)
    if passed.tokens is not None:
        check("mix_out", passed.tokens)
    check("ctrl_down0", shown["first"])
    check("ctrl_down_last", shown["last"])
    check("ctrl_mid", shown["mid"])
    check("model_pred", passed.prediction)
    assert float(passed.loss) == pytest.approx(float(case[f"m{micro}.loss"]), rel=1e-5)


def _gradients(case: Case, step: int, task: FaceMeTask, record: dict) -> None:
    norms = record["grad_norm"]
    assert {name for name, _ in task.trained} == set(norms), "other tensors are trained"
    for name, value in task.trained:
        assert value.grad is not None, name
        found = float(value.grad.double().norm())
        # A tensor without a gradient (behind a zero convolution) is on record as 0, and has to be exactly that.
        assert found == pytest.approx(norms[name], rel=1e-4, abs=0.0 if norms[name] == 0 else 1e-9), name
        key = f"s{step}.grad.{name}"
        if key in case.tensors:
            near(value.grad, case[key], 1e-4)


def _parameters(case: Case, task: FaceMeTask) -> None:
    values = dict(task.trained)
    start = dict(case.task().trained)
    last = case.record["steps"][-1]
    checked = 0
    for key, wanted in case.tensors.items():
        if ".param." not in key:
            continue
        step, name = key.split(".param.")
        assert int(step[1:]) == len(case.record["steps"]) - 1
        bound = 6e-6 * len(case.record["steps"])  # the README's bound is for one step
        assert float((values[name] - wanted).detach().abs().max()) <= bound, key
        checked += 1
    assert checked
    if len(case.record["steps"]) == 1:
        for name, wanted in last["delta_norm"].items():
            if last["grad_norm"][name]:
                found = float((values[name] - start[name]).detach().double().norm())
                assert found == pytest.approx(wanted, rel=1e-3), name


def test_references_come_from_the_published_pool(golden):
    """Pool sizes on record, its growth over epochs included, and that a pick is from the sample's own pool."""
    grown = 0
    for case in cases(golden):
        counts, seen = case.settings["n_refs"], {}
        for micro in case.record["micro"]:
            for item in micro["items"]:
                name = Path(item["target"]).stem
                own = Feature(f"ffhq_emb/id_emb/{name}.npy", "")
                theirs = tuple(Feature(f"ref_emb/{k}", "") for k in range(counts[item["index"] % len(counts)]))
                sample = Sample(item["target"], own, theirs)
                epoch = seen.get(name, 0)
                seen[name] = epoch + 1
                grown += epoch > 0
                pool = pool_of(sample, epoch, PoolRules(growing=True))
                assert len(pool) == item["pool"]
                assert len(item["refs"]) == len(pick(sample, 0, epoch, PoolRules(growing=True)))
                others = [ref for ref in item["refs"] if ref != own.identity]
                assert all(Path(ref).parent.name == name for ref in others)
                if len(pool) >= len(item["refs"]):  # without replacement then
                    assert len(set(others)) == len(others)
                    assert item["refs"].count(own.identity) <= pool.count(own)
    assert grown, "no case shows a second epoch"


@pytest.mark.slow
def test_one_batch_is_learnt_by_heart_from_the_unet(golden):
    """A micro-batch of the case that starts from the U-Net, held fixed: below .5 after 60 steps at 1e-3."""
    case = next(case for case in cases(golden) if case.settings["controlnet"] == "unet")
    task = case.task()
    pair = (case.batch(1), case.draws(1))
    losses = []
    for _ in range(60):
        losses.append(task.gradients([pair])["loss"])
        task.update(1e-3)
    assert losses[0] == pytest.approx(case.record["micro"][1]["loss"], rel=0.05)  # one step of 5e-5 further on there
    assert losses[-1] < 0.5


def test_checkpoints_have_the_released_names_and_shapes(golden):
    """A ControlNet as our training makes it of the full-size U-Net, and a full-size Mix, on the meta device."""
    from ffhqref.core.compat import ensure_torchvision

    expected = json.loads((folder_of(golden).parent / "faceme" / "keys_full.json").read_text())
    ensure_torchvision()
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=[320, 640, 1280],
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            transformer_layers_per_block=[1, 2, 10],
            attention_head_dim=[5, 10, 20],
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
        made = {"controlnet": controlnet_of(unet), "mix": Mix(MixConfig())}
    trained = 0
    for prefix, network in made.items():
        (wanted,) = [names for file, names in expected.items() if file.startswith(f"{prefix}/")]
        assert {name: list(value.shape) for name, value in network.state_dict().items()} == wanted
        trained += sum(value.numel() for value in network.parameters())
    assert trained == 1_290_381_840
