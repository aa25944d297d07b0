"""OSDFace against the published script. Everything that varies is read from the golden folder."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import WeightsError
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.restorers import make_restorer
from ffhqref.zoo.osdface.config import PromptConfig
from ffhqref.zoo.osdface.lora import merge_lora
from ffhqref.zoo.osdface.model import EmbeddingChange, PromptEncoder, kept_signal

from .golden_tools import case_id, cases_of, check_levels, close, folder_of, layout, read_json, stored_as

pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not find_spec("diffusers") or not find_spec("spandrel"), reason="no diffusers or spandrel here"),
]

KEPT, RESIZED = (1e-4, 2e-3), (3e-4, 5e-3)
"""The set's README: relative difference and share of 8-bit values; bilinear positions are rounded otherwise."""
TOLD_APART = 1e-5
"""Relative gap of two distances to codes under which rounding may exchange rows; the order has no influence."""


@pytest.fixture(scope="module")
def folder(golden):
    return folder_of(golden, "osdface")


@pytest.fixture(scope="module")
def config(folder):
    return read_json(folder / "config.json")


def settings(folder, config, **changes):
    return {
        "path": folder / "associate_2.ckpt",
        "embedding_change": folder / "embedding_change_weights.pth",
        "lora": folder / "pytorch_lora_weights.safetensors",
        "base": folder / "stable-diffusion-2-1-base",
        "config": config["vre"],
        "lora_scale": config["lora_alpha"] / config["lora_rank"],
        "timestep": config["timestep"],
        **changes,
    }


@pytest.fixture(scope="module")
def restorer(folder, config):
    return make_restorer("osdface", device="cpu", **settings(folder, config))


@pytest.mark.parametrize("case", cases_of("osdface"), ids=case_id)
def test_every_stage(folder, restorer, case):
    stored, model = load_file(folder / case["file"]), restorer.model
    lq = to_tensor([stored["lq_u8"].numpy()])
    assert list(lq.shape[2:]) == case["input_size"]
    model.time, model.kept = case["timestep"], kept_signal(restorer.base, case["timestep"])
    made = model.restore(lq, stored["draw_posterior"])
    tolerance, share = KEPT if case["input_size"] == case["network_size"] else RESIZED
    assert list(made.image.shape[2:]) == case["network_size"]
    assert list(made.decoded.shape[2:]) == case["output_size"]
    close(stored, "vae_in", made.image, tolerance)
    close(stored, "vre_in", model.prompt_image(made.image), tolerance)
    close(stored, "vre_features", made.prompt.features, tolerance)
    ours, theirs = made.prompt.indices, stored["vre_indices"]
    assert torch.equal(ours.sort().values, theirs.sort().values)
    assert torch.equal(ours, theirs) or case["smallest_row_gap"] < TOLD_APART
    for name, rows in (("vre_tokens", made.prompt.tokens), ("prompt_embeds", made.prompt.states)):
        given = stored[name][:, theirs.argsort(stable=True)]
        close({name: given}, name, rows[:, ours.argsort(stable=True)], tolerance)
    with torch.no_grad():
        posterior = model.vae.encode(made.image).latent_dist
    close(stored, "latent_mean", posterior.mean, tolerance)
    close(stored, "latent_logvar", posterior.logvar, tolerance)
    close(stored, "unet_in", made.latent, tolerance)
    close(stored, "unet_out", made.predicted, tolerance)
    close(stored, "denoised", made.denoised, tolerance)
    close(stored, "decoded", made.decoded, tolerance)
    written = (made.decoded / 2 + 0.5).clamp(0, 1)
    check_levels(to_uint8(written, restorer.quantization)[0], stored_as(stored, "image_u8"), share)


def test_full_size_layout(folder):
    ensure_torchvision()
    from diffusers import AutoencoderKL, UNet2DConditionModel

    down = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    up = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    keys, full = read_json(folder / "keys_full.json"), PromptConfig()
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            down_block_types=down, up_block_types=up, block_out_channels=(320, 640, 1280, 1280),
            attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        )  # fmt: skip
        change, prompt = EmbeddingChange(full.embed_dim, unet.config.cross_attention_dim), PromptEncoder(full)
    networks = {"unet": unet, "vae": vae}
    for name, network in networks.items():
        found = next(value for key, value in keys.items() if key.endswith(f"/{name}"))
        assert layout(network) == found["keys"]
        assert sum(value.numel() for value in network.parameters()) == found["parameters"]
    assert layout(change) == keys["embedding_change_weights.pth"]["keys"]
    assert {f"vqvae_LQ.{name}": shape for name, shape in layout(prompt).items()} == keys["associate_2.ckpt"]["keys"]


def test_lora_under_the_older_names_changes_matrices_only(folder, restorer, caplog):
    older = {
        name.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): value
        for name, value in load_file(folder / "pytorch_lora_weights.safetensors").items()
    }
    unet = restorer.model.unet
    before = {name: value.clone() for name, value in unet.named_parameters()}
    merge_lora(unet, older, folder, -1.0)
    changed = {name for name, value in unet.named_parameters() if not torch.equal(value, before[name])}
    unet.load_state_dict(before)
    ending = ".lora.down.weight"
    layers = {name.removeprefix("unet.").removesuffix(ending) for name in older if name.endswith(ending)}
    assert changed == {f"{name}.weight" for name in layers if before[f"{name}.weight"].dim() == 2}
    assert ("passed over" in caplog.text) == (len(changed) < len(layers))


@pytest.mark.parametrize("which", ["path", "embedding_change", "lora"])
def test_foreign_files_are_refused(folder, config, which, tmp_path):
    given = settings(folder, config)
    foreign = tmp_path / given[which].name
    tensors = {"unet.nowhere.lora_A.weight": torch.zeros(2, 2), "unet.nowhere.lora_B.weight": torch.zeros(2, 2)}
    if foreign.suffix == ".safetensors":
        save_file(tensors, foreign)
    else:
        torch.save(tensors, foreign)
    with pytest.raises(WeightsError) as told:
        _ = make_restorer("osdface", device="cpu", **{**given, which: foreign}).model
    assert str(foreign) in str(told.value)
    assert "\n" not in str(told.value)
