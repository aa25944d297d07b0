"""FaceMe's parts against other libraries and closed forms; bad input."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError, ImageError, WeightsError
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.faceme.clip import clip_pixels, cut_face
from ffhqref.zoo.faceme.config import FaceMeConfig
from ffhqref.zoo.faceme.faces import SIZES, InsightFaces
from ffhqref.zoo.faceme.model import finish
from ffhqref.zoo.faceme.prompt import insert_identity
from ffhqref.zoo.faceme.schedule import SamplerDraws, Schedule

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

TINY = Path(__file__).parent / "tiny" / "faceme.py"


def tiny():
    spec = importlib.util.spec_from_file_location("tiny_faceme_parts", TINY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return tiny().options(tmp_path_factory.mktemp("faceme"))


def scheduler(**changes):
    ensure_torchvision()
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config({**tiny().SCHEDULER, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prediction_type": "v_prediction"},
        {"clip_sample": True},
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "linspace"},
        {"steps_offset": 0},
    ],
)
def test_steps_are_those_of_diffusers(changes, monkeypatch):
    from diffusers.schedulers import scheduling_ddpm

    theirs = scheduler(**changes)
    ours = Schedule(scheduler(**changes), 7)
    theirs.set_timesteps(7)
    assert ours.timesteps == theirs.timesteps.tolist()
    draws = SamplerDraws.of_seed(3, (1, 4, 6, 5), 7)
    x = draws.start
    for index, t in enumerate(theirs.timesteps):
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, kept=draws.steps[index], **k: kept)
        predicted = torch.sin(x * 3 + index)
        expected = theirs.step(predicted, t, x).prev_sample
        x = ours.step(index, x, predicted, draws.steps[index])
        torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-6)
    started = theirs.add_noise(draws.posterior, draws.start, torch.tensor([999]))
    torch.testing.assert_close(ours.start(draws.posterior, draws.start), started, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "steps", "words"),
    [
        ({"variance_type": "learned"}, 5, "variance_type 'learned'"),
        ({"prediction_type": "sample"}, 5, "prediction_type 'sample'"),
        ({}, 0, "steps must be from 1 to 1000"),
        ({}, 1001, "steps must be from 1 to 1000"),
    ],
)
def test_other_schedules_are_refused(changes, steps, words):
    with pytest.raises(ConfigError, match=words):
        Schedule(scheduler(**changes), steps)


def test_draws_follow_the_seed_and_not_the_number_of_steps():
    short, long, other = (SamplerDraws.of_seed(seed, (1, 4, 2, 2), steps) for seed, steps in ((5, 2), (5, 6), (6, 2)))
    assert torch.equal(short.start, long.start)
    assert torch.equal(short.steps, long.steps[:2])
    assert not torch.equal(short.start, other.start)


def test_identity_tokens_take_the_place_of_one_word():
    states = torch.arange(7.0).reshape(1, 7, 1).requires_grad_()
    identity = torch.tensor([[[10.0], [11.0], [12.0]], [[20.0], [21.0], [22.0]]])
    made = insert_identity(states, 2, identity)
    assert made[..., 0].tolist() == [[0, 1, 10, 11, 12, 3, 4], [0, 1, 20, 21, 22, 3, 4]]
    made.sum().backward()
    assert states.grad[0, :, 0].tolist() == [2, 2, 0, 2, 2, 0, 0]
    many = insert_identity(states, 2, torch.full((1, 9, 1), 5.0))
    assert many[0, :, 0].tolist() == [0, 1, 5, 5, 5, 5, 5]


def test_clip_pixels_are_those_of_transformers():
    ensure_torchvision()
    processors = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    from PIL import Image

    rng = np.random.default_rng(0)
    for height, width in ((300, 211), (40, 97), (224, 224), (500, 225)):
        face = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = processors.CLIPImageProcessorPil()(Image.fromarray(face))["pixel_values"][0]
        assert np.array_equal(clip_pixels(face).numpy(), expected)


def test_boxes_are_rounded_and_black_outside():
    picture = np.full((10, 8, 3), 9, np.uint8)
    cut = cut_face(picture, (-1.5, 2.5, 4.4, 11.6))
    assert cut.shape == (10, 6, 3)  # −2..4 and 2..12
    assert (cut[:8, 2:] == 9).all()
    assert not cut[8:].any()
    assert not cut[:, :2].any()
    with pytest.raises(ImageError, match="without pixels"):
        cut_face(picture, (3.2, 1, 3.4, 5))


def test_eight_bit_twice():
    """Without colours the round trip loses a level at some values, and only there."""
    levels = torch.arange(256) / 255 * 2 - 1
    picture = levels.float().expand(1, 3, 4, 256)
    lost = np.arange(256) - finish(picture, None)[0, :, 0].astype(int)
    expected = np.arange(256) - ((np.arange(256) / 255.0 * 2.0 - 1.0) * 127.5 + 127.5).astype(np.uint8)
    assert np.array_equal(lost, expected)
    assert set(lost) == {0, 1}


class StubDetector:
    """Sees one face with more red than blue in the middle, at the smallest size only."""

    asked: list = []

    def __init__(self, path, longest):
        self.longest, self.signature = longest, f"stub {longest}"

    def __call__(self, picture):
        from ffhqref.faces.detect import Face

        self.asked.append((self.longest, tuple(int(v) for v in picture[0, 0])))
        points = np.array([[30, 40], [60, 40], [45, 55], [33, 70], [58, 70]], float)
        faces = [Face((20, 20, 70, 80), 0.9, points), Face((0, 0, 95, 95), 0.6, points + 5)]
        return faces if self.longest == SIZES[-1] else []


class StubEmbedder:
    signature, dim = "stub", 3

    def __init__(self, path, **_):
        pass

    def __call__(self, faces):
        return faces.astype(np.float32).mean(axis=(1, 2))


def test_faces_are_looked_for_as_published(monkeypatch):
    from ffhqref.faces import detect, embedders

    monkeypatch.setattr(detect, "ScrfdDetector", StubDetector)
    monkeypatch.setattr(embedders, "OnnxEmbedder", StubEmbedder)
    monkeypatch.setattr(StubDetector, "asked", [])
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[...] = (200, 100, 0)
    best = InsightFaces("d", "a")(picture)
    assert [size for size, _ in StubDetector.asked] == [512, 640, 576, 448, 384, 320, 256]
    assert {colour for _, colour in StubDetector.asked} == {(0, 100, 200)}  # red and blue swapped, as published
    assert best.box == (20, 20, 70, 80)
    assert best.embedding[0] < best.embedding[2]
    assert InsightFaces("d", "a", largest=True)(picture).box == (0, 0, 95, 95)


class NoFace:
    signature = "blind"

    def __call__(self, picture):
        return None


def batch(count=1, side=64):
    torch.manual_seed(0)
    return RestorationBatch(torch.rand(1, 3, side, side), [torch.rand(count, 3, 64, 64)], [1], ["a"])


def test_a_reference_without_a_face_is_an_error_of_the_case(options):
    restorer = make_restorer("faceme", device="cpu", **{**options, "faces": NoFace()})
    with pytest.raises(ImageError, match=r"no face found in reference 1 of 2 \(blind\)"):
        restorer.restore(batch(2))


def test_a_reference_without_a_face_is_a_failure_row_and_its_neighbours_are_restored(options, tmp_path):
    from ffhqref.core.images import save_png
    from ffhqref.restorers.runner import RestoreRow, RestoreStage

    class OneBlind(type(options["faces"])):
        def __call__(self, picture):
            return super().__call__(picture) if picture.any() else None

    rng = np.random.default_rng(0)
    for name in ("lq", "face"):
        save_png(tmp_path / f"{name}.png", rng.integers(0, 256, (512, 512, 3), dtype=np.uint8))
    save_png(tmp_path / "black.png", np.zeros((512, 512, 3), np.uint8))
    rows = [
        {
            "benchmark": "b", "case_id": name, "lq_path": "lq.png", "lq_sha256": None, "reference_paths": [name],
            "reference_sha256": [None], "seed": 1, "age": None, "out_path": f"out/{name}",
        }
        for name in ("face.png", "black.png")
    ]  # fmt: skip
    stage = RestoreStage(tmp_path, "faceme", {**options, "faces": OneBlind(), "steps": 1}, batch_size=2)
    good, blind = stage.process([RestoreRow(**row) for row in rows])
    assert good.status == "ok"
    assert (tmp_path / good.output_path).is_file()
    assert blind.status == "failed"
    assert blind.error == "no face found in reference 1 of 1 (centre)"


def test_half_precision_is_near(options):
    full, half = (
        make_restorer("faceme", device="cpu", **options, dtype=dtype).restore(batch())
        for dtype in ("float32", "bfloat16")
    )
    assert not torch.equal(full, half)
    assert (full - half).abs().mean() < 0.02


def test_sides_must_fit_the_latent(options):
    with pytest.raises(ImageError, match="multiples of 8, not 60x60"):
        make_restorer("faceme", device="cpu", **options).restore(batch(side=60))


def test_presets_and_references_change_the_result(options):
    def run(count=3, **changes):
        return make_restorer("faceme", device="cpu", **{**options, **changes}).restore(batch(count))

    published = run()
    assert not torch.equal(run(preset="lora"), published)
    assert torch.equal(run(max_references=2), run(count=3, max_references=2))
    assert not torch.equal(run(max_references=2), published)
    assert not torch.equal(run(color_correction=False), published)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"preset": "publised"}, ConfigError, "Did you mean 'published'"),
        ({"dtype": "fp16"}, ConfigError, "dtype must be"),
        ({"max_references": 0}, ConfigError, "max_references must be"),
        ({"config": {"mix": {"embed": 3}}}, ConfigError, "unknown entry 'embed'"),
        ({"config": {"mix": {"embed_dim": 24, "id_dim": 6}}}, ConfigError, "mix.embed_dim must be 2048"),
        ({"config": {"mix": {"id_dim": 0}}}, ConfigError, "mix.id_dim must be above 0"),
        ({"config": {"mix": {"id_dim": "six"}}}, ConfigError, "id_dim='six'"),
        ({"config": "nowhere.yaml"}, ConfigError, "no such file: nowhere.yaml; expected the FaceMe config"),
        ({"info": {"size": 1}}, ConfigError, "info has an unknown entry"),
        ({"base": "nowhere"}, WeightsError, "no weight file"),
        ({"photomaker": "nowhere.bin"}, WeightsError, "no such file: nowhere.bin"),
        ({"faces": None}, WeightsError, "antelopev2-scrfd"),
    ],
)
def test_wrong_options_are_told(options, changes, error, words, tmp_path, monkeypatch):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("INSIGHTFACE_HOME", str(tmp_path))
    with pytest.raises(error, match=words) as told:
        make_restorer("faceme", device="cpu", **{**options, **changes})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("prompt", ["a cat.", "face face", "a fac"])
def test_the_key_word_must_stand_in_the_prompt_once(options, prompt):
    with pytest.raises(ConfigError, match="must be one token and stand once"):
        make_restorer("faceme", device="cpu", **{**options, "prompt": prompt}).restore(batch())


@pytest.mark.parametrize(
    ("file", "how", "words"),
    [
        ("base/unet/diffusion_pytorch_model.safetensors", "cut", "is not whole"),
        ("base/vae/diffusion_pytorch_model.safetensors", "foreign", "AutoencoderKL"),
        ("base/text_encoder/model.safetensors", "foreign", "CLIPTextModel"),
        ("base/text_encoder_2/config.json", "cut", "cannot be read"),
        ("base/scheduler/scheduler_config.json", "absent", "no such file"),
        ("base/tokenizer/vocab.json", "absent", "no such file"),
        ("controlnet/diffusion_pytorch_model.safetensors", "foreign", "ControlNetModel"),
        ("mix/mix.safetensors", "foreign", "Mix"),
        ("mix/mix.safetensors", "cut", "is not whole"),
        ("photomaker-v1.bin", "cut", "is not whole"),
        ("photomaker-v1.bin", "foreign", "IdentityEncoder"),
    ],
)
def test_wrong_files_are_refused_in_one_line(file, how, words, options, tmp_path):
    import shutil

    from safetensors.torch import save_file

    shutil.copytree(options["base"].parent, tmp_path / "copy")
    target = tmp_path / "copy" / file
    if how == "cut":
        target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    elif how == "absent":
        target.unlink()
    elif target.suffix == ".bin":
        torch.save({"id_encoder": {"x": torch.ones(1)}}, target)
    else:
        save_file({"x": torch.ones(1)}, target)
    moved = {
        "base": tmp_path / "copy" / "base",
        "controlnet": tmp_path / "copy" / "controlnet",
        "mix": tmp_path / "copy" / "mix",
        "photomaker": tmp_path / "copy" / "photomaker-v1.bin",
    }
    with pytest.raises(WeightsError, match=words) as told:
        make_restorer("faceme", device="cpu", **{**options, **moved}).restore(batch())
    assert "\n" not in str(told.value)


def test_a_lora_of_another_network_is_refused(options, tmp_path):
    content = torch.load(options["photomaker"], weights_only=True)
    content["lora_weights"].pop(next(iter(content["lora_weights"])))
    torch.save(content, tmp_path / "photomaker-v1.bin")
    changed = {**options, "photomaker": tmp_path / "photomaker-v1.bin"}
    make_restorer("faceme", device="cpu", **changed).restore(batch())  # not looked at where it is not applied
    with pytest.raises(WeightsError, match="LoRA does not fit the U-Net: 1 tensors missing"):
        make_restorer("faceme", device="cpu", **changed, preset="lora").restore(batch())


def test_signature_covers_what_results_depend_on(options, tmp_path):
    import shutil

    before = make_restorer("faceme", device="cpu", **options).weights_sha256
    shutil.copytree(options["base"], tmp_path / "base")
    settings = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    settings.write_text(settings.read_text().replace("0.012", "0.013"))
    after = make_restorer("faceme", device="cpu", **{**options, "base": tmp_path / "base"}).weights_sha256
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"realvisxl-3/scheduler/scheduler_config.json"}


def test_a_config_may_be_a_file(tmp_path):
    (tmp_path / "widths.yaml").write_text("mix: {embed_dim: 2048, id_dim: 256}\n")
    assert FaceMeConfig.load(tmp_path / "widths.yaml").mix.id_dim == 256
    assert FaceMeConfig.load(None).id_encoder.num_hidden_layers == 24
