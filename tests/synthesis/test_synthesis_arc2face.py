"""Arc2Face on small random networks, against diffusers' own pipeline; the released weights were never run."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from ffhqref.core.compat import ensure_torchvision  # noqa: E402
from ffhqref.core.errors import ConfigError, WeightsError  # noqa: E402
from ffhqref.core.images import read_rgb, resize  # noqa: E402
from ffhqref.faces.crops import crop_faces  # noqa: E402
from ffhqref.faces.embedders import OnnxEmbedder  # noqa: E402
from ffhqref.synthesis import make_renderer  # noqa: E402
from ffhqref.synthesis.arc2face.config import Arc2FaceConfig  # noqa: E402
from ffhqref.synthesis.arc2face.networks import build  # noqa: E402
from ffhqref.synthesis.base import RenderRequest  # noqa: E402

from .tiny_arc2face import files_in, networks, write_files  # noqa: E402

ensure_torchvision()

SD15_SCHEDULER = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True,
    "steps_offset": 1, "trained_betas": None, "clip_sample": False,
}  # fmt: skip
"""The scheduler file of Stable Diffusion 1.5."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weight files in the published layout, and the networks they were written from."""
    folder = tmp_path_factory.mktemp("arc2face")
    write_files(folder)
    return folder, networks()


def options(folder, **changes):
    return {**files_in(folder), "steps": 4, "device": "cpu", **changes}


@pytest.fixture(scope="module")
def requests(sample_folder):
    draw = np.random.default_rng(1)
    faces = [read_rgb(sample_folder / f"{n:05d}.jpg", 512) for n in (0, 1, 6)]
    maps = [np.repeat(np.repeat(draw.integers(0, 256, (8, 8, 3), np.uint8), 64, 0), 64, 1) for _ in faces]
    return [
        RenderRequest(face, faces[0], normals, 50 + k)
        for k, (face, normals) in enumerate(zip(faces, maps, strict=True))
    ]


def by_diffusers(folder, made, requests, guidance_scale):
    """The published demo's composition: diffusers' pipeline, fed with prompt embeddings."""
    from diffusers import DPMSolverMultistepScheduler, PNDMScheduler, StableDiffusionControlNetPipeline

    embedder = OnnxEmbedder(folder / "arcface.onnx")
    vectors = embedder(crop_faces(np.stack([r.identity for r in requests]), "ffhq_template", embedder))
    encoder = made.encoder
    table = encoder.get_input_embeddings().weight
    kept = table[8].clone()
    prompts = []
    with torch.no_grad():
        for vector in vectors:  # the vector as the embedding of the token itself: no injection needed
            table[8] = torch.nn.functional.pad(torch.from_numpy(vector), (0, 8))
            prompts.append(encoder(torch.tensor([[38, 5, 6, 7, 8, 9, *[39] * 6]]))[0])
        table[8] = kept
        empty = encoder(torch.tensor([[38, *[39] * 11]]))[0]
    pipeline = StableDiffusionControlNetPipeline(
        vae=made.vae, text_encoder=encoder, tokenizer=None, unet=made.unet, controlnet=made.controlnet,
        scheduler=DPMSolverMultistepScheduler.from_config(PNDMScheduler.from_config(SD15_SCHEDULER).config),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    from PIL import Image

    out = pipeline(
        image=[Image.fromarray(resize(r.normals, 32)) for r in requests],
        prompt_embeds=torch.cat(prompts),
        negative_prompt_embeds=empty.expand(len(requests), -1, -1),
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        generator=[torch.Generator().manual_seed(r.seed) for r in requests],
        output_type="pil",
    )
    return [np.asarray(picture) for picture in out.images]


@pytest.mark.parametrize("guidance_scale", [3.0, 1.0])
def test_the_renderer_equals_diffusers_own_pipeline(files, requests, guidance_scale):
    folder, made = files
    mine = make_renderer("arc2face", **options(folder, guidance_scale=guidance_scale)).render(requests)
    theirs = [resize(picture, 512) for picture in by_diffusers(folder, made, requests, guidance_scale)]
    for one, other in zip(mine, theirs, strict=True):
        assert one.shape == (512, 512, 3)
        assert one.std() > 5, "a flat image would show nothing"
        assert np.array_equal(one, other)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_cuda_device_gives_the_pictures_of_the_cpu(files, requests, cuda, precision):
    there = make_renderer("arc2face", **options(files[0], device=cuda, precision=precision, steps=2))
    here = make_renderer(
        "arc2face", **options(files[0], precision="float32" if precision != "auto" else "float16", steps=2)
    )
    assert there.precision == here.precision  # of itself half precision on a GPU
    for one, other in zip(there.render(requests[:2]), here.render(requests[:2]), strict=True):
        assert np.abs(one.astype(int) - other).mean() < 2
        assert one.std() > 5


def test_identity_pose_and_seed_each_change_the_picture_and_neighbours_do_not(files, requests):
    folder, _ = files
    renderer = make_renderer("arc2face", **options(folder))
    together = renderer.render(requests)
    alone = renderer.render(requests[1:2])[0]
    assert np.abs(alone.astype(int) - together[1]).max() <= 1
    base = requests[0]
    for other in (
        RenderRequest(requests[1].identity, base.pose, base.normals, base.seed),
        RenderRequest(base.identity, base.pose, requests[1].normals, base.seed),
        RenderRequest(base.identity, base.pose, base.normals, base.seed + 1),
    ):
        changed = renderer.render([other])[0]
        assert np.abs(changed.astype(int) - together[0]).mean() > 0.5
    again = make_renderer("arc2face", **options(folder)).render(requests)
    assert all(np.array_equal(a, b) for a, b in zip(together, again, strict=True))


def test_the_published_architecture_is_that_of_stable_diffusion_1_5():
    """Parameter counts of the released networks, and the solver's times, without weights."""
    from diffusers import DPMSolverMultistepScheduler, PNDMScheduler

    config = Arc2FaceConfig()
    with torch.device("meta"):
        made = build(config)
    counts = {
        name: sum(p.numel() for p in getattr(made, name).parameters())
        for name in ("unet", "controlnet", "vae", "encoder")
    }
    assert counts == {
        "unet": 859_520_964,
        "controlnet": 361_279_120,
        "vae": 83_653_863,
        "encoder": 123_060_480,
    }
    empty, prompt = config.tokens
    assert len(empty) == len(prompt) == 77
    assert prompt[:7] == (49406, 1125, 539, 320, 1014, 2533, 49407)
    mine = DPMSolverMultistepScheduler(**config.scheduler)
    theirs = DPMSolverMultistepScheduler.from_config(PNDMScheduler.from_config(SD15_SCHEDULER).config)
    for scheduler in (mine, theirs):
        scheduler.set_timesteps(25)
    assert torch.equal(mine.timesteps, theirs.timesteps)
    assert torch.equal(mine.sigmas, theirs.sigmas)
    assert len(mine.timesteps) == 25


def test_wrong_files_are_refused_in_one_line(files, requests, tmp_path):
    folder, _ = files
    (tmp_path / "cut.safetensors").write_bytes((folder / "unet.safetensors").read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"cut\.safetensors is not whole"):
        make_renderer("arc2face", **options(folder, unet_path=tmp_path / "cut.safetensors")).render(requests[:1])
    with pytest.raises(WeightsError, match=r"controlnet\.safetensors does not fit UNet2DConditionModel: tensors "):
        make_renderer("arc2face", **options(folder, unet_path=folder / "controlnet.safetensors")).render(requests[:1])
    with pytest.raises(WeightsError, match=r"weights 'arc2face-unet': no such file"):
        make_renderer("arc2face", **options(folder, unet_path=tmp_path / "none"))
    blind = RenderRequest(requests[0].identity, requests[0].pose, None, 1)
    with pytest.raises(ConfigError, match="without a normal map"):
        make_renderer("arc2face", **options(folder)).render([blind])


def test_wrong_configs_are_refused_in_one_line(files, tmp_path):
    folder, _ = files
    with pytest.raises(ConfigError, match=r"unknown config entry 'unett'. Did you mean 'unet'"):
        Arc2FaceConfig.of({"unett": {}})
    with pytest.raises(ConfigError, match="must hold token 1014 once"):
        Arc2FaceConfig.of({"prompt": [1, 2]})
    with pytest.raises(ConfigError, match=r"no such file: .*none\.json"):
        Arc2FaceConfig.of(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="precision=half"):
        make_renderer("arc2face", **options(folder, precision="half"))


def test_the_signature_tells_what_a_picture_depends_on(files, tmp_path):
    folder, _ = files
    first = make_renderer("arc2face", **options(folder)).signature
    assert first == make_renderer("arc2face", **options(folder)).signature
    assert first == make_renderer("arc2face", **options(folder, batch_size=1)).signature
    other = tmp_path / "unet.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({key: value * 1.01 for key, value in load_file(folder / "unet.safetensors").items()}, other)
    for changes in ({"steps": 5}, {"guidance_scale": 2.0}, {"precision": "bfloat16"}, {"unet_path": other}):
        assert make_renderer("arc2face", **options(folder, **changes)).signature != first
    assert "never run" in make_renderer("arc2face", **options(folder)).info.verified_against
