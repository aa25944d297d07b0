"""RestorerID against the outputs of the published script on random weights."""

import re
from dataclasses import fields
from inspect import signature

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.images import to_uint8
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.faceme.schedule import SamplerDraws
from ffhqref.zoo.restorerid import names
from ffhqref.zoo.restorerid.config import RestorerIDConfig, TextConfig, VisionConfig
from ffhqref.zoo.restorerid.faces import ReferenceFace
from ffhqref.zoo.restorerid.restorer import RestorerIDRestorer
from ffhqref.zoo.restorerid.schedule import Schedule
from ffhqref.zoo.shared.architecture import read_architecture

from .golden_tools import every, folder_of, layout, off, read_json

pytestmark = pytest.mark.golden

EIGHT_BIT_SHARE = 1.5e-3
"""Values that may differ by one level, as the folder's README suggests."""


@pytest.fixture(scope="module")
def folder(golden):
    return folder_of(golden, "restorerid")


@pytest.fixture(scope="module")
def facts(folder):
    return read_json(folder / "config.json")


class StoredFaces:
    """What detector and ArcFace gave when the golden files were made."""

    signature = "stored"
    dim = 0

    def __init__(self, cases):
        self.known = {
            tensors["ref_u8"].numpy().tobytes(): ReferenceFace(
                tensors["ref_kps"].numpy(), tensors["ref_embedding"].numpy()
            )
            for tensors in cases
        }

    def __call__(self, picture):
        return self.known.get(np.ascontiguousarray(picture).tobytes())


def widths(kind, folder):
    known = read_json(folder / "config.json")
    return {item.name: known[item.name] for item in fields(kind) if item.name in known}


@pytest.fixture(scope="module")
def runs(folder, facts):
    """Every case with its tensors, strided ones under their plain names, and its restorer.

    Networks are loaded once for each pair of prompts.
    """
    ensure_torchvision()
    cases = []
    for case in read_json(folder / "cases.json"):
        stored = load_file(folder / case["file"])
        cases.append((case, {re.sub(r"_s\d+$", "", key): value for key, value in stored.items()}))
    configs = {read_json(path)["architectures"][0]: path.parent for path in folder.glob("*/config.json")}
    text, vision = configs["CLIPTextModel"], configs["CLIPVisionModelWithProjection"]
    parts = {
        name: facts[name] for name in ("unet", "struct", "vae", "spade_hidden", "lora_rank", "adapter", "diffusion")
    }
    parts |= {"text": widths(TextConfig, text), "vision": widths(VisionConfig, vision)}
    (checkpoint,) = (
        file.removesuffix(":state_dict")
        for file in read_json(folder / "keys_full.json")
        if file.endswith(":state_dict")
    )
    defaults, faces, models = facts["official_defaults"], StoredFaces([tensors for _, tensors in cases]), {}
    made = []
    for case, tensors in cases:
        prompts = tuple(case.get(f"{sign[:3]}_prompt", defaults[f"{sign}_prompt"]) for sign in ("positive", "negative"))
        restorer = make_restorer(
            "restorerid",
            device="cpu",
            checkpoint=folder / checkpoint,
            tokenizer=text,
            config=parts,
            steps=case["steps"],
            eta=case.get("eta", defaults["eta"]),
            guidance_scale=case.get("guidance", defaults["guidance_scale"]),
            color_correction=case["colorfix"],
            prompt=prompts[0],
            negative_prompt=prompts[1],
            identity_scale=float(tensors["ipscale"]),
            faces=faces,
        )
        restorer._model = models.get(prompts)
        models[prompts] = restorer.model
        made.append((case, tensors, restorer))
    return made


def draws_of(tensors):
    return SamplerDraws(tensors["draw_posterior"], tensors["draw_start"], tensors["draws_steps"])


def close(found, expected, relative=1e-4):
    """Compare with a tensor, whole or strided: the largest difference relative to the largest value."""
    difference = off(found, expected)
    assert difference <= relative, difference


def test_defaults_are_the_published_ones(facts):
    defaults = {name: item.default for name, item in signature(RestorerIDRestorer).parameters.items()}
    published = facts["official_defaults"]
    for own, theirs in (
        ("steps", "ddim_steps"), ("eta", "eta"), ("guidance_scale", "guidance_scale"),
        ("color_correction", "colorfix_type"), ("prompt", "positive_prompt"), ("negative_prompt", "negative_prompt"),
    ):  # fmt: skip
        assert defaults[own] == published[theirs]


def test_identity_of_the_reference(runs):
    from ffhqref.zoo.restorerid.model import bgr_crop, unit_length

    for _, tensors, restorer in runs:
        model, reference = restorer.model, tensors["ref_u8"].numpy()
        face = restorer.faces(reference)
        pixels = model.pixels(reference, face)
        if "ref_crop_bgr_u8" in tensors:
            crop = bgr_crop(reference, face, model.config.vision.image_size).astype(int)
            difference = np.abs(crop - tensors["ref_crop_bgr_u8"].numpy())
            assert difference.max() <= 1
            assert (difference > 0).mean() <= 3e-4
        if "clip_pixels" in tensors:  # a level of the crop is 0.015 of these
            stored = tensors["clip_pixels"]
            kept = every(every(pixels[0], stored, 1), stored, 2)
            assert float((kept - stored).abs().max()) < 0.02
        if "clip_hidden" in tensors:
            close(model.hidden(pixels), tensors["clip_hidden"], 1e-3)  # because of such levels
            close(model.hidden(torch.zeros_like(pixels)), tensors["clip_hidden_uncond"], 1e-5)
            close(model.tokens(tensors["id_in"], tensors["clip_hidden"]), tensors["ref_tokens"], 1e-5)
        close(unit_length(torch.from_numpy(face.embedding))[None], tensors["id_in"], 1e-6)
        close(model.identity(reference, face), tensors["ref_tokens"])
        close(model.nobody, tensors["ref_tokens_uncond"], 1e-5)


def test_prompts(runs):
    from ffhqref.zoo.restorerid.model import token_ids

    given = [(tensors, restorer) for _, tensors, restorer in runs if "text_pos" in tensors]
    if not given:
        pytest.skip("no case holds its text")
    for tensors, restorer in given:
        files = [restorer.files[name] for name in ("clip-vocabulary", "clip-merges")]
        found = token_ids(*files, restorer.prompts, restorer.config.text.max_position_embeddings)
        assert found == [tensors[f"text_tokens_{sign}"][0].tolist() for sign in ("pos", "neg")]
        close(restorer.model.positive, tensors["text_pos"], 1e-5)
        close(restorer.model.negative, tensors["text_neg"], 1e-5)


def test_schedule_and_scale(runs):
    from ffhqref.zoo.restorerid.model import combined, identity_scale

    for case, tensors, restorer in runs:
        schedule, first = Schedule(restorer.steps, restorer.eta, restorer.config.diffusion), case["steps"] - 1
        assert schedule.times[::-1] == tensors["unet_times"].tolist()
        assert schedule.indices == tensors["sched_index_times"].tolist()
        for own, stored in (("alphas", "alphas"), ("alphas_prev", "alphas_prev"), ("sigmas", "sigmas")):
            torch.testing.assert_close(getattr(schedule, own), tensors[f"sched_{stored}"], rtol=0, atol=1e-7)
        noise = combined(tensors["unet_first_out"], restorer.guidance_scale)
        stepped, clean = schedule.step(first, tensors["draw_start"], noise, tensors["draws_steps"][0])
        close(stepped, tensors["latents_first"], 1e-6)
        close(clean, tensors["x0_first"], 1e-6)
        assert identity_scale(float(tensors["musiq"])) == float(tensors["ipscale"])


def test_first_step(runs):
    from ffhqref.zoo.restorerid.model import fitted, to_signed

    for case, tensors, restorer in runs:
        model, given = restorer.model, to_signed(fitted(tensors["lq_u8"].numpy(), restorer.config.unit))
        if "lq_in" in tensors:
            assert off(given, tensors["lq_in"]) == 0
        with torch.no_grad():
            posterior = model.vae.encode(given).latent_dist
        close(posterior.mean, tensors["vae_mean"])
        close(posterior.logvar, tensors["vae_logvar"])
        latent = model.latent(given, tensors["draw_posterior"])
        close(latent, tensors["lq_latent"])
        time = Schedule(restorer.steps, restorer.eta, restorer.config.diffusion).times[case["steps"] - 1]
        features = model.features(latent, time)
        kept = {int(key.rpartition("_w")[2]): value for key, value in tensors.items() if "struct_first_w" in key}
        assert kept
        assert kept.keys() <= features.keys()
        for width, feature in kept.items():
            close(features[width], feature)
        close(
            model.predict(
                tensors["draw_start"], time, tensors["ref_tokens"], features, restorer.identity_scale(given),
                guided=restorer.guidance_scale != 1,
            ),
            tensors["unet_first_out"],
        )  # fmt: skip


def recorded(model, monkeypatch):
    """Return a dict that fills with what the model's last two stages return."""
    made = {}
    for name in ("sample", "decode"):
        stage = getattr(model, name)

        def keep(*given, name=name, stage=stage, **named):
            return made.setdefault(name, stage(*given, **named))

        monkeypatch.setattr(model, name, keep)
    return made


def test_the_restorer_gives_the_published_picture(runs, monkeypatch):
    from ffhqref.zoo.restorerid.model import COLOURS, fitted, to_signed

    for _, tensors, restorer in runs:
        draws = draws_of(tensors)
        monkeypatch.setattr(restorer, "draws", lambda seed, height, width, kept=draws: kept)
        made = recorded(restorer.model, monkeypatch)
        picture = restorer.restored(tensors["lq_u8"].numpy(), tensors["ref_u8"].numpy(), 0)
        monkeypatch.undo()
        close(made["sample"], tensors["latents_last"])
        if "decoded" in tensors:
            close(made["decode"], tensors["decoded"])
        if "colour_fixed" in tensors:
            given = to_signed(fitted(tensors["lq_u8"].numpy(), restorer.config.unit))
            close(COLOURS[restorer.color_correction](made["decode"], given), tensors["colour_fixed"])
        difference = np.abs(to_uint8(picture, restorer.quantization)[0].astype(int) - tensors["image_u8"].numpy())
        assert difference.max() <= 1
        assert (difference > 0).mean() <= EIGHT_BIT_SHARE


def test_the_interface_adds_nothing(runs, monkeypatch):
    fitting = [run for run in runs if list(run[1]["image_u8"].shape[:2]) == run[0]["size"]]
    if not fitting:
        pytest.skip("every case's input is resized")
    case, tensors, restorer = min(fitting, key=lambda run: run[0]["steps"])
    monkeypatch.setattr(restorer, "draws", lambda seed, height, width: draws_of(tensors))
    lq, reference = (tensors[name].permute(2, 0, 1)[None].float() / 255 for name in ("lq_u8", "ref_u8"))
    made = to_uint8(restorer.restore(RestorationBatch(lq, [reference], [0])), restorer.quantization)[0]
    difference = np.abs(made.astype(int) - tensors["image_u8"].numpy())
    assert list(made.shape[:2]) == case["size"]
    assert difference.max() <= 1
    assert (difference > 0).mean() <= EIGHT_BIT_SHARE


def test_full_size_layout(folder, facts):
    """The released architecture has the names and shapes of the released files."""
    ensure_torchvision()
    from .tiny.restorerid import networks, published_text

    config = RestorerIDConfig()
    full = facts["full"]
    assert any(file.endswith(":state_dict") for file in read_json(folder / "keys_full.json"))
    for part, kind in (("unet", config.unet), ("struct", config.struct), ("vae", config.vae),
                       ("adapter", config.adapter), ("text", config.text), ("vision", config.vision)):  # fmt: skip
        assert read_architecture(type(kind), full[part]) == kind
    with torch.device("meta"):
        own = {name: layout(network) for name, network in networks(config).items()}
        own["text"] = published_text(own["text"])
    for file, shapes in read_json(folder / "keys_full.json").items():
        given = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        if file.endswith(":state_dict"):
            assert {part: shapes_of(tensors) for part, tensors in renamed(given, config).items()} == own
        if file.endswith(":image_proj"):
            assert shapes_of(names.projection_tensors(given)) == own["projection"]


def shapes_of(tensors):
    return {name: list(value.shape) for name, value in tensors.items()}


def renamed(tensors, config):
    """Return each network's tensors under its own names, as the loader does."""
    from ffhqref.zoo.restorerid.unet import own_name

    parts = {name: names.part(tensors, name) for name in names.PREFIXES}
    unet = names.unet_tensors(parts["unet"], config.unet, "file")
    return {
        **parts,
        "unet": {own_name(name): value for name, value in unet.items()},
        "structure": names.structure_tensors(parts["structure"]),
        "vae": names.vae_tensors(parts["vae"], len(config.vae.ch_mult)),
        "projection": names.projection_tensors(parts["projection"]),
    }
