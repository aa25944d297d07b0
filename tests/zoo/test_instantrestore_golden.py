"""InstantRestore against the outputs of the published script on random weights."""

import re
from contextlib import ExitStack

import pytest
import torch

from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.instantrestore.attention import shared_layers
from ffhqref.zoo.instantrestore.loading import build, load_networks, split
from ffhqref.zoo.instantrestore.model import Draws, InstantRestore
from ffhqref.zoo.instantrestore.restorer import pixels
from ffhqref.zoo.shared.model_folder import import_transformers, own_names

from .golden_tools import (
    case_id,
    case_tensors,
    cases_of,
    check_levels,
    folder_of,
    layout,
    off,
    read_json,
    recorded,
    relative,
    stored_as,
)

pytestmark = pytest.mark.golden

METHOD = "instantrestore"
TOLERANCE, SHARE = 1e-4, 1e-3
"""Relative to the largest golden value; of the values that may differ by one level."""


@pytest.fixture(scope="module")
def folder(golden):
    return folder_of(golden, METHOD)


@pytest.fixture(scope="module")
def restorer_of(folder):
    """Make the restorer of a case; all of them share the networks, which take seconds to load."""
    config, loaded = read_json(folder / "config.json"), []

    def make(case, **changes):
        options = {
            "path": checkpoint(folder),
            "base": (folder / config["text_encoder"]).parent,
            "vae": (folder / config["vae"]).parent,
            "size": case["size"],
            "timestep": case["timestep"],
            "reference_timestep": config["reference_timestep"],
            "prompt": config["prompt"],
            "freeu": config["freeu"],
            "use_adain": case["use_adain"],
            "train_input": case["train_input"],
            "max_references": config["max_conditioning_images"],
        }
        restorer = make_restorer(METHOD, device="cpu", **{**options, **changes})
        if not loaded:
            files = restorer.files
            base = files["sd-turbo"].path.parent.parent
            loaded.append(load_networks(files[METHOD], base, files["sd-vae-ft-mse"].path.parent, "cpu"))
        restorer._model = InstantRestore(loaded[0], restorer.behaviour)
        return restorer

    return make


OPTIONAL = ("mid_out", "up0_out", "shared_attn_", "ref_key_", "ref_value_")
"""Which cases hold them, and of which layers, is the set's choice; each holds some layer's."""


def checkpoint(folder):
    return next(folder.glob("*.pt"))


def close(stored, name, ours):
    """Compare with the tensor of that name: whole, or every K-th row and column (``_sK``) or token (``_tK``)."""
    found = [(key, match) for key in stored if (match := re.fullmatch(rf"{name}(?:_([st])(\d+))?", key))]
    for key, match in found:
        step = int(match[2] or 1)
        kept = ours[..., ::step, ::step] if match[1] == "s" else ours[..., ::step, :]
        assert relative(kept, stored[key]) < TOLERANCE, name
    assert found or name.startswith(OPTIONAL), f"no {name} in the case"


def references(stored, image, count):
    """Return the references of an image of a case, uint8 [H, W, 3] each."""
    name = "ref_u8_{}" if "ref_u8_0" in stored else f"ref_u8_{image}_{{}}"
    return [stored[name.format(index)].numpy() for index in range(count)]


def batch_of(case, stored):
    """Return the case for the restorer, in images of one size as it expects them; seeds count the images."""
    size, images = case["size"], range(case["batch"])

    def prepared(pictures):
        return (pixels(pictures, size) * 0.5 + 0.5).mul(255).round() / 255

    return RestorationBatch(
        lq=prepared(list(stored["lq_u8"].numpy())),
        references=[prepared(references(stored, image, case["n_ref"])) for image in images],
        seeds=list(images),
    )


def draws_of(stored, image, count):
    """Return the stored draws of one image of a case."""
    row, rows = slice(image, image + 1), slice(image * count, (image + 1) * count)
    return Draws(
        stored["draw_input_posterior"][row],
        stored["draw_ref_posterior"][rows],
        stored["draw_ref_noise"][rows],
        stored["draw_input_noise"][row],
    )


@pytest.mark.parametrize("case", cases_of(METHOD), ids=case_id)
def test_restoration(folder, case, restorer_of, monkeypatch):
    stored, restorer, count = case_tensors(folder, case), restorer_of(case), case["n_ref"]
    model = restorer.model
    given = [pixels(list(stored["lq_u8"].numpy()), restorer.size)]
    given.append(torch.cat([pixels(references(stored, i, count), restorer.size) for i in range(case["batch"])]))
    for name, images in zip(("input_pixels", "ref_pixels"), given, strict=True):
        assert off(images, stored_as(stored, name)) == 0, name
    assert torch.equal(model.tokens.long(), stored["text_tokens"].long())
    close(stored, "text_states", model.states)

    monkeypatch.setattr(restorer, "draws", lambda image, many: draws_of(stored, image, many))
    calls = {"unet": [], "ref_unet": []}
    layers = sorted(
        {int(match[1]) for key in stored if (match := re.match(r"(?:shared_attn|ref_key|ref_value)_(\d+)", key))}
    )
    assert layers
    recording, shared = shared_layers(model.original_unet), shared_layers(model.unet)
    assert len(recording) == len(shared) == case["n_shared_layers"]
    with ExitStack() as stack:
        made = stack.enter_context(recorded(model.vae, ["quant_conv", "decoder"]))
        made_ref = stack.enter_context(recorded(model.original_vae, ["quant_conv"]))
        inner = stack.enter_context(recorded(model.unet, ["mid_block", "up_blocks.0"]))
        attention = [stack.enter_context(recorded(shared[layer], [""])) for layer in layers]
        of_references = [stack.enter_context(recorded(recording[layer], ["to_k", "to_v"])) for layer in layers]
        for name, unet in (("unet", model.unet), ("ref_unet", model.original_unet)):
            hook = unet.register_forward_hook(lambda _, args, out, name=name: calls[name].append((*args, out[0])))
            stack.callback(hook.remove)
        latents = stack.enter_context(recorded(model.vae, ["post_quant_conv"]))
        clean = []
        monkeypatch.setattr(model, "decode", lambda latent, decode=model.decode: clean.append(latent) or decode(latent))
        restored = restorer.restore(batch_of(case, stored))
    assert len(latents["post_quant_conv"]) == case["batch"]

    for name, moments in (("input", made), ("ref", made_ref)):
        mean, logvar = torch.cat(moments["quant_conv"]).chunk(2, dim=1)
        close(stored, f"{name}_mean", mean)
        close(stored, f"{name}_logvar", logvar.clamp(-30, 20))
    for name, found in calls.items():
        x, times, predicted = zip(*found, strict=True)
        close(stored, f"{name}_in", torch.cat(x))
        close(stored, f"{name}_out", torch.cat(predicted))
        assert set(times) == set(stored[f"{name}_t"].tolist())
    close(stored, "mid_out", torch.cat(inner["mid_block"]))
    close(stored, "up0_out", torch.cat(inner["up_blocks.0"]))
    for layer, look, kept in zip(layers, attention, of_references, strict=True):
        close(stored, f"shared_attn_{layer}", torch.cat(look[""]))
        close(stored, f"ref_key_{layer}", torch.stack(kept["to_k"]))
        close(stored, f"ref_value_{layer}", torch.stack(kept["to_v"]))
    close(stored, "denoised", torch.cat(clean))
    close(stored, "decoded", torch.cat(made["decoder"]))
    levels = (restored * 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()  # cut off, as the runner does
    for ours, theirs in zip(levels, stored_as(stored, "image_u8"), strict=True):
        check_levels(ours, theirs, SHARE)


@pytest.mark.parametrize("case", cases_of(METHOD), ids=case_id)
def test_a_seed_gives_the_draws_of_the_published_script(folder, case, restorer_of):
    if case["batch"] > 1:
        pytest.skip("the script draws for all images of a batch at once, the restorer for each case")
    ours = restorer_of(case).draws(case["seed"], case["n_ref"])
    theirs = draws_of(case_tensors(folder, case), 0, case["n_ref"])
    assert all(torch.equal(value, getattr(theirs, name)) for name, value in vars(ours).items())


def test_switches_change_the_result(folder, restorer_of):
    """Otherwise the cases would prove nothing of AdaIN, of the image's own keys and of FreeU."""
    case = min(cases_of(METHOD), key=lambda case: case["size"])
    batch = batch_of(case, case_tensors(folder, case))
    changes = ({}, {"use_adain": not case["use_adain"]}, {"train_input": not case["train_input"]}, {"freeu": None})
    results = [restorer_of(case, **change).restore(batch) for change in changes]
    assert all(float((other - results[0]).abs().max()) > 0.02 for other in results[1:])


def test_full_size_layout(folder):
    """The names and shapes of the released file load strictly into the released architecture."""
    official = read_json(folder / "keys_full.json")[checkpoint(folder).name]
    defaults = read_json(folder / "config.json")["official_defaults"]["final_model"]
    state = {name: torch.empty(shape, device="meta") for name, shape in official["state_dict"].items()}
    settings, parts = split({"state_dict": state, "cfg": {"model": defaults}}, "the released file")
    unet = {
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    }
    vae = {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
    }
    networks = build(parts, settings, unet, vae, folder)
    counted = {name: sum(value.numel() for value in network.parameters()) for name, network in networks.items()}
    published = official["parameters"]
    assert counted == {
        **{name: published[name] + published[f"{name} lora"] for name in ("unet", "vae")},
        **{name: published[name] for name in ("original_unet", "original_vae")},
    }
    transformers = import_transformers()
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
    with torch.device("meta"):
        encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text))
    assert layout(encoder) == own_names(
        encoder, {key: list(value.shape) for key, value in parts["text_encoder"].items()}
    )
