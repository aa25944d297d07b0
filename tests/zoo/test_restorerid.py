"""RestorerID beyond its golden set: what weighs the identity, other files, inputs that cannot be restored."""

import numpy as np
import pytest
import torch

from ffhqref.core.errors import ConfigError, ImageError, WeightsError
from ffhqref.faces.crops import arcface_crop
from ffhqref.metrics import iqa
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.restorerid.config import RestorerIDConfig
from ffhqref.zoo.restorerid.faces import AlignedFaces

from .tiny.restorerid import options


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return options(tmp_path_factory.mktemp("restorerid"))


@pytest.fixture(scope="module")
def restorer(given):
    return make_restorer("restorerid", device="cpu", **given)


def pictures(height=64, width=64, count=2):
    coarse = torch.rand((count, 3, 4, 4), generator=torch.Generator().manual_seed(5))
    made = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return (made * 255).round() / 255


def batch_of(lq, reference):
    return RestorationBatch(lq=lq[None], references=[reference[None]], seeds=[3])


@pytest.fixture
def musiq_file(tmp_path, monkeypatch):
    """The place of MUSIQ's weights, alone in the weights folder."""
    for name in ("FFHQREF_WEIGHTS", "TORCH_HOME", "XDG_CACHE_HOME", "INSIGHTFACE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path / "FFHQREF_WEIGHTS" / "musiq_koniq_ckpt-e95806b9.pth"


class Brightness:
    """In place of MUSIQ: the mean of an image in percent."""

    signature = "brightness"

    def __init__(self, runtime):
        pass

    def __call__(self, batch):
        return batch.output.mean(dim=(1, 2, 3)).double().numpy() * 100


def test_identity_is_weighed_by_the_quality_of_the_input(given, musiq_file, monkeypatch):
    musiq_file.parent.mkdir()
    torch.save({"weight": torch.zeros(1)}, musiq_file)
    monkeypatch.setattr(iqa, "MUSIQ", Brightness)
    lq, reference = pictures()
    judged = make_restorer("restorerid", device="cpu", **{**given, "identity_scale": None})
    scale = float(np.exp(0.1 * (9.5 - 100 * float(lq.mean()))))
    named = make_restorer("restorerid", device="cpu", **{**given, "identity_scale": scale})
    assert "musiq" in judged.weights_sha256
    assert "musiq" not in named.weights_sha256
    named._model = judged.model
    made = [made.restore(batch_of(lq, reference)) for made in (judged, named)]
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1e-6)


def test_without_musiq_and_without_a_scale_there_is_one_line(given, musiq_file):
    with pytest.raises(WeightsError, match=r"input's MUSIQ.*musiq_koniq_ckpt.*identity_scale=") as caught:
        make_restorer("restorerid", device="cpu", **{**given, "identity_scale": None})
    assert "\n" not in str(caught.value)


def test_the_scale_and_the_reference_count(restorer, given):
    lq, reference = pictures()
    weighed = make_restorer("restorerid", device="cpu", **{**given, "identity_scale": 2.0})
    weighed._model = restorer.model
    first = restorer.restore(batch_of(lq, reference))
    assert not torch.equal(first, weighed.restore(batch_of(lq, reference)))
    assert not torch.equal(first, restorer.restore(batch_of(lq, 1 - reference)))


def test_inputs_of_other_sizes(restorer):
    """Cut down to multiples of 32 and back; where the U-Net does not take that, a line says so."""
    from ffhqref.zoo.restorerid.model import fitted

    lq, reference = pictures(70, 150)
    assert restorer.restore(batch_of(lq, reference)).shape == (1, 3, 70, 150)
    with pytest.raises(ImageError, match=rf"multiples of {restorer.config.unit}, not 31x64"):
        restorer.restore(batch_of(pictures(64, 31)[0], reference))
    with pytest.raises(ImageError, match="multiples of 64, not 100x64"):
        fitted(np.zeros((64, 100, 3), np.uint8), RestorerIDConfig().unit)


def test_a_reference_without_a_face_is_told(restorer, monkeypatch):
    class Nobody:
        signature = "nobody"

        def __call__(self, picture):
            return None

    monkeypatch.setattr(restorer, "_faces", Nobody())
    with pytest.raises(ImageError, match=r"no face found in the reference \(nobody\)"):
        restorer.restore(batch_of(*pictures()))


def test_a_checkpoint_without_the_adapter_takes_its_published_files(restorer, given, tmp_path):
    tensors = torch.load(given["checkpoint"])["state_dict"]
    bare = {name: value for name, value in tensors.items() if not name.startswith("Adapter.")}
    torch.save({"state_dict": bare}, tmp_path / "bare.ckpt")
    parts = {
        prefix: {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in ("Adapter.image_proj_model.", "Adapter.image_encoder.")
    }
    torch.save({"image_proj": parts["Adapter.image_proj_model."], "ip_adapter": {}}, tmp_path / "adapter.bin")
    text = {"text_model.final_layer_norm.weight": torch.zeros(4), "logit_scale": torch.zeros(())}
    torch.save({**parts["Adapter.image_encoder."], **text}, tmp_path / "clip.bin")
    alone = make_restorer("restorerid", device="cpu", **{**given, "checkpoint": tmp_path / "bare.ckpt"})
    with pytest.raises(WeightsError, match=r"bare.ckpt holds no tensors of the identity projection: .*adapter=PATH"):
        alone.restore(batch_of(*pictures()))
    files = {"checkpoint": tmp_path / "bare.ckpt", "adapter": tmp_path / "adapter.bin",
             "image_encoder": tmp_path / "clip.bin"}  # fmt: skip
    whole = make_restorer("restorerid", device="cpu", **{**given, **files})
    assert torch.equal(whole.restore(batch_of(*pictures())), restorer.restore(batch_of(*pictures())))


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        ("attn2.to_k_lora.up", r"no tensor model.diffusion_model.*attn2.to_k_lora.up.weight"),
        ("first_stage_model.", r"does not fit AutoencoderKL"),
        ("", r"holds no tensors of the identity projection"),
    ],
)
def test_a_foreign_checkpoint_is_one_line(given, tmp_path, left_out, words):
    tensors = torch.load(given["checkpoint"])["state_dict"]
    kept = {name: value for name, value in tensors.items() if left_out not in name}
    torch.save({"state_dict": kept or {"weight": torch.zeros(1)}}, tmp_path / "foreign.ckpt")
    made = make_restorer("restorerid", device="cpu", **{**given, "checkpoint": tmp_path / "foreign.ckpt"})
    with pytest.raises(WeightsError, match=words) as caught:
        made.restore(batch_of(*pictures()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"color_correction": "wavelets"}, "color_correction=wavelets: .*Did you mean 'wavelet'"),
        ({"dtype": "half"}, "dtype=half: expected auto"),
        ({"faces": {"name": "align"}}, "faces.name=align: expected insightface or aligned"),
        ({"config": {"adapter": {"context": 24}}}, "unet.context_dim and adapter.context must be equal"),
        ({"steps": 0}, "steps must be from 1 to 1000"),
        ({"eta": 2.0}, "eta must be from 0 to 1"),
    ],
)
def test_wrong_options_are_told_at_once(given, changes, words):
    with pytest.raises(ConfigError, match=words):
        make_restorer("restorerid", device="cpu", **{**given, **changes})


def test_points_of_an_aligned_face_go_to_the_template():
    """A bright dot at the left eye of the FFHQ template lands on the crop's left eye, as far as two templates agree."""
    picture = np.zeros((512, 512, 3), np.uint8)
    face = AlignedFaces("dlib")(picture)
    x, y = face.points[0].round().astype(int)
    picture[y - 6 : y + 7, x - 6 : x + 7] = 255
    crop = arcface_crop(picture, face.points, 224)[..., 0]
    rows, columns = np.nonzero(crop > 128)
    assert (columns.mean(), rows.mean()) == pytest.approx((2 * 38.2946, 2 * 51.6963), abs=3)
