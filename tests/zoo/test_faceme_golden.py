"""FaceMe against the outputs of the published script on random weights."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ffhqref.core.compat import ensure_torchvision
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.faceme.clip import IdentityEncoder, IdentityEncoderConfig, clip_pixels, cut_face, unit_length
from ffhqref.zoo.faceme.faces import ReferenceFace
from ffhqref.zoo.faceme.lora import lora_shapes
from ffhqref.zoo.faceme.mix import Mix, MixConfig, load_mix, save_mix
from ffhqref.zoo.faceme.model import guided
from ffhqref.zoo.faceme.schedule import SamplerDraws, Schedule
from ffhqref.zoo.shared.model_folder import own_names

pytestmark = pytest.mark.golden

EIGHT_BIT_SHARE = 5e-4
"""Values that may differ by one level: the folder's README names 0.05 % between machines."""


@pytest.fixture(scope="module")
def folder(golden):
    found = golden / "faceme"
    if not found.is_dir():
        pytest.skip(f"no golden outputs at {found}")
    return found


@pytest.fixture(scope="module")
def setup(folder):
    config = json.loads((folder / "config.json").read_text())
    cases = json.loads((folder / "cases.json").read_text())
    return config, [(case, load_file(folder / case["file"])) for case in cases]


class StoredFaces:
    """What detector and ArcFace gave when the golden files were made."""

    signature = "stored"

    def __init__(self):
        self.known = {}

    def add(self, tensors):
        for picture, box, embedding in zip(
            tensors["refs_u8"], tensors["ref_boxes"], tensors["ref_embeddings"], strict=True
        ):
            face = ReferenceFace(tuple(box.tolist()), embedding.numpy())
            self.known[picture.numpy().tobytes()] = face

    def __call__(self, picture):
        return self.known.get(np.ascontiguousarray(picture).tobytes())


@pytest.fixture(scope="module")
def faceme(folder, setup):
    """Restorers by case settings, made once."""
    config, cases = setup
    faces = StoredFaces()
    for _, tensors in cases:
        faces.add(tensors)
    encoder = {name: config["id_encoder"][name] for name in names(IdentityEncoderConfig) & set(config["id_encoder"])}
    encoder["projection_dim_2"] = config["id_encoder"]["visual_projection_2"][1]
    defaults = config["official_defaults"]
    made = {}

    def make(case):
        prompts = case.get("pos_prompt", defaults["pos_prompt"]), case.get("neg_prompt", defaults["neg_prompt"])
        key = (*prompts, case["steps"], case["lora_applied"], case["color_correction"])
        if key not in made:
            made[key] = make_restorer(
                "faceme",
                device="cpu",
                base=folder / "base",
                controlnet=folder / "controlnet",
                mix=folder / "mix",
                photomaker=folder / "photomaker-v1.bin",
                config={"mix": config["mix"], "id_encoder": encoder},
                preset="lora" if case["lora_applied"] else "published",
                steps=case["steps"],
                guidance_scale=config["inference"]["guidance_scale"],
                color_correction=case["color_correction"],
                prompt=prompts[0],
                negative_prompt=prompts[1],
                key_word=defaults["key_word"],
                max_references=None,
                faces=faces,
            )
        return made[key]

    return make


def names(kind):
    return {field.name for field in fields(kind)}


def shapes(network):
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def stored_draws(tensors):
    return SamplerDraws(tensors["draw_vae"], tensors["draw_start"], tensors["draws_steps"])


def control_of(tensors):
    return (tensors["lq_u8"].double() / 255 * 2 - 1).float().permute(2, 0, 1)[None]


def close(found, expected, relative=1e-4):
    """Largest difference relative to the largest value."""
    assert found.shape == expected.shape
    difference = float((found - expected).abs().max())
    assert difference <= relative * float(expected.abs().max()), difference


def test_identity_of_references(setup, faceme):
    for case, tensors in setup[1]:
        model = faceme(case).model
        crops = [
            clip_pixels(cut_face(picture.numpy(), box.tolist()), model.id_encoder.config.image_size)
            for picture, box in zip(tensors["refs_u8"], tensors["ref_boxes"], strict=True)
        ]
        if "ref_pixels" in tensors:
            assert torch.equal(torch.stack(crops), tensors["ref_pixels"])
        with torch.no_grad():
            close(model.id_encoder(torch.stack(crops)), tensors["clip_embs"], 1e-5)
            close(model.mix(tensors["clip_embs"], tensors["id_embs_normed"]), tensors["mix_out"], 1e-5)
        close(unit_length(tensors["ref_embeddings"]), tensors["id_embs_normed"], 1e-6)


def test_prompt(setup, faceme):
    for case, tensors in setup[1]:
        model = faceme(case).model
        assert model.position == int(tensors["mask_index"])
        for sign, text in (("pos", model.positive), ("neg", model.negative)):
            for number, tokens in enumerate(text.tokens, 1):
                assert torch.equal(tokens, tensors[f"{sign}_tokens_{number}"])
            close(text.states, tensors[f"{sign}_prompt_embeds"], 1e-5)
            close(text.pooled, tensors[f"{sign}_pooled"], 1e-5)
        given = model.conditions(control_of(tensors), tensors["mix_out"])
        close(given.states, tensors["unet_first_states"], 1e-5)
        close(given.added["text_embeds"], tensors["unet_first_text_embeds"], 1e-5)
        assert torch.equal(given.added["time_ids"], tensors["unet_first_time_ids"])


def test_first_step(setup, faceme):
    for case, tensors in setup[1]:
        model, control, draws = faceme(case).model, control_of(tensors), stored_draws(tensors)
        with torch.no_grad():
            posterior = model.vae.encode(control).latent_dist
        close(posterior.mean, tensors["vae_mean"])
        close(posterior.logvar, tensors["vae_logvar"])
        close(model.start(control, draws), tensors["latents_start"])
        schedule = Schedule(model.scheduler, case["steps"])
        assert schedule.timesteps == tensors["timesteps"].tolist()
        assert schedule.timesteps[0] == int(tensors["unet_first_t"])
        residuals = []
        hook = model.controlnet.register_forward_hook(lambda module, given, out, kept=residuals: kept.extend(out))
        given = model.conditions(control, tensors["mix_out"])
        both = model.predict(tensors["latents_start"], schedule.timesteps[0], given)
        hook.remove()
        close(both, tensors["unet_first_out"])
        close(residuals[1], tensors["ctrl_first_mid"])
        if "ctrl_first_down0" in tensors:
            close(residuals[0][0], tensors["ctrl_first_down0"])
            close(residuals[0][-1], tensors["ctrl_first_down_last"])
            close(tensors["latents_start"].expand(2, -1, -1, -1), tensors["unet_first_x"])
        close(guided(both, setup[0]["inference"]["guidance_scale"]), tensors["guided_first"])
        stepped = schedule.step(0, tensors["latents_start"], tensors["guided_first"], draws.steps[0])
        close(stepped, tensors["latents_first"], 1e-6)


def test_last_latents_and_decoder(setup, faceme):
    scale = setup[0]["inference"]["guidance_scale"]
    for case, tensors in setup[1]:
        model = faceme(case).model
        latents = model.sample(control_of(tensors), tensors["mix_out"], stored_draws(tensors), scale)
        close(latents, tensors["latents_last"])
        if "decoded" in tensors:
            close(model.decode(tensors["latents_last"]), tensors["decoded"])


def test_the_restorer_gives_the_published_picture(setup, faceme, monkeypatch):
    for case, tensors in setup[1]:
        restorer = faceme(case)
        draws = stored_draws(tensors)
        monkeypatch.setattr(restorer, "draws", lambda seed, height, width, kept=draws: kept)
        batch = RestorationBatch(
            lq=tensors["lq_u8"].permute(2, 0, 1)[None].float() / 255,
            references=[tensors["refs_u8"].permute(0, 3, 1, 2).float() / 255],
            seeds=[0],
        )
        levels = restorer.restore(batch)[0].permute(1, 2, 0) * 255
        difference = (levels.round().int() - tensors["image_u8"].int()).abs()
        assert int(difference.max()) <= 1
        assert float((difference > 0).float().mean()) <= EIGHT_BIT_SHARE


def test_no_lora_is_another_result(setup, faceme):
    """Otherwise the presets would prove nothing."""
    by_lora = {case["lora_applied"]: (case, tensors) for case, tensors in setup[1]}
    if len(by_lora) < 2:
        pytest.skip("the folder's cases are all of one preset")
    case, tensors = by_lora[True]
    model = faceme({**case, "lora_applied": False}).model
    latents = model.sample(
        control_of(tensors), tensors["mix_out"], stored_draws(tensors), setup[0]["inference"]["guidance_scale"]
    )
    assert float((latents - tensors["latents_last"]).abs().max()) > 0.1


def test_full_size_layout(folder):
    """The released architecture has the names and shapes of the released files."""
    ensure_torchvision()
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    expected = json.loads((folder / "keys_full.json").read_text())
    sdxl = {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    vae = {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
    }
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            **sdxl,
        )
        networks = {
            "base/unet/diffusion_pytorch_model.safetensors": unet,
            "controlnet/diffusion_pytorch_model.safetensors": ControlNetModel(**sdxl),
            "base/vae/diffusion_pytorch_model.safetensors": AutoencoderKL(latent_channels=4, **vae),
            "mix/mix.safetensors": Mix(),
            "photomaker-v1.bin:id_encoder": IdentityEncoder(),
        }
    text = [
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20},
    ]
    with torch.device("meta"):
        first = CLIPTextModel(CLIPTextConfig(**text[0]))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**text[1], projection_dim=1280))
    for folder_name, network in (("text_encoder", first), ("text_encoder_2", second)):
        wanted = expected[f"base/{folder_name}/model.safetensors"]
        assert shapes(network) == own_names(network, {name: list(shape) for name, shape in wanted.items()}), folder_name
    for file, network in networks.items():
        wanted = {name: shape for name, shape in expected[file].items() if not name.startswith("fuse_module.")}
        assert shapes(network) == wanted, file
    assert lora_shapes(unet) == expected["photomaker-v1.bin:lora_weights"]


def test_mix_file_is_written_as_published(folder, setup, tmp_path):
    mix = load_mix(folder / "mix", MixConfig(**setup[0]["mix"]))
    written = load_file(save_mix(mix, tmp_path / "mix"))
    published = load_file(folder / "mix" / "mix.safetensors")
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)
