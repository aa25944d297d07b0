"""The steps against an independent implementation, and their edges."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ffhqref.degradation import DEGRADATIONS, Parameters, apply, draw, get_degradation
from ffhqref.degradation.steps import blur_kernel, recorded_noise, reduced_size


def face(height=72, width=60, seed=3):
    """A smooth coloured image with some texture."""
    rng = np.random.default_rng(seed)
    low = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize((width, height), 3)
    return np.clip(np.array(low, int) + rng.integers(-12, 13, (height, width, 3)), 0, 255).astype(np.uint8)


def parameters(**changes):
    values = {
        "preset": "severe", "kernel": "iso", "sigma_x": 2.0, "sigma_y": 2.0, "rotation": 0.0, "scale": 2.0,
        "noise_sigma": 0.0, "jpeg_quality": 100.0, "seed": 1, "noise_skip": 0,
    }  # fmt: skip
    return Parameters(**{**values, **changes})


def bilinear(picture, height, width):
    """Bilinear resizing without smoothing, pixel centres aligned, edges repeated."""

    def weights(new, old):
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.minimum(np.floor(place).astype(int), max(old - 2, 0))
        matrix = np.zeros((new, old))
        matrix[np.arange(new), low] += 1 - (place - low)
        matrix[np.arange(new), np.minimum(low + 1, old - 1)] += place - low
        return matrix

    return np.einsum("ij,jkc,lk->ilc", weights(height, picture.shape[0]), picture, weights(width, picture.shape[1]))


def by_hand(image, one, preset):
    """The shared formula in float64 with scipy, NumPy and PIL."""
    axis = np.arange(-20, 21)
    x, y = np.meshgrid(axis, axis)
    cosine, sine = np.cos(one.rotation), np.sin(one.rotation)
    along, across = x * cosine + y * sine, -x * sine + y * cosine
    kernel = np.exp(-0.5 * ((along / one.sigma_x) ** 2 + (across / one.sigma_y) ** 2))
    kernel /= kernel.sum()
    picture = image / 255.0
    grey = np.array([0.299, 0.587, 0.114])
    if one.grey and preset.grey_first:
        picture = np.repeat((picture @ grey)[..., None], 3, 2)
    picture = np.stack([ndimage.correlate(picture[..., c], kernel, mode="mirror") for c in range(3)], 2)
    height, width = image.shape[:2]
    picture = bilinear(picture, int(height // one.scale), int(width // one.scale))
    noise = recorded_noise(one, picture.shape[:2], preset)
    order = slice(None, None, -1 if preset.colour_order == "bgr" else 1)
    picture = np.clip(picture + noise[..., order] * one.noise_sigma / 255, 0, 1)
    # the encoder sees red as blue when the published code hands it RGB
    as_encoder = picture if preset.colour_order == "bgr" else picture[..., ::-1]
    stream = io.BytesIO()
    levels = np.round(as_encoder * 255).astype(np.uint8)
    Image.fromarray(levels).save(stream, "JPEG", quality=int(one.jpeg_quality), subsampling=2)
    decoded = np.array(Image.open(stream)) / 255.0
    picture = bilinear(decoded if preset.colour_order == "bgr" else decoded[..., ::-1], height, width)
    if one.colour_shift is not None:
        picture = np.clip(picture + np.array(one.colour_shift)[order], 0, 1)
    if one.grey and not preset.grey_first:
        picture = np.repeat((picture @ grey)[..., None], 3, 2)
    return np.clip(np.round(picture * 255), 0, 255)


@pytest.mark.parametrize("name", sorted(DEGRADATIONS))
def test_equals_the_formula_written_with_other_libraries(name):
    image = face()
    compared = kinds = 0
    for number in range(16):
        one = draw(name, 5, str(number))
        if min(one.sigma_x, one.sigma_y) < 0.2 or one.scale > 40:
            continue
        expected = by_hand(image, one, get_degradation(name))
        difference = np.abs(apply(image, one).astype(int) - expected)
        # one level apart before JPEG can move a block by several levels, in few places
        assert np.mean(difference > 1) < 0.02, (number, one)
        assert difference.mean() < 0.1
        compared += 1
        kinds += one.grey or one.colour_shift is not None
    assert compared > 8
    assert kinds or not (
        get_degradation(name).colour_shift_probability or (get_degradation(name).grey_probability or 0) > 0.05
    )


@pytest.mark.parametrize("name", ["moderate", "severe", "refldm-train", "vqfr"])
def test_equals_the_straight_transcription_bit_for_bit(name):
    """The program that measures speed carries the published steps as written; float64 up to JPEG in training."""
    path = Path(__file__).parents[2] / "benchmarks" / "degradation.py"
    spec = importlib.util.spec_from_file_location("benchmark_degradation", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    for number in range(12):
        image = face(301, 256, seed=number)
        drawn = draw(name, 5, str(number))
        np.random.seed([drawn.seed & 0xFFFFFFFF, drawn.seed >> 32])  # noqa: NPY002
        np.random.random_sample(drawn.noise_skip)  # noqa: NPY002
        given = image if get_degradation(name).precision == "float64" else image.astype(np.float32)
        assert np.array_equal(apply(image, drawn), benchmark.transcription(given, drawn))


def test_kernel_sums_to_one_and_turns_with_the_angle():
    one = parameters(kernel="aniso", sigma_x=6.0, sigma_y=1.5, rotation=0.0)
    kernel = blur_kernel(one, 41)
    axis = np.arange(-20, 21)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert (kernel.sum(0) * axis**2).sum() == pytest.approx(36, rel=0.02), "sigma_x lies along the rows"
    assert (kernel.sum(1) * axis**2).sum() == pytest.approx(2.25, rel=0.02)
    turned = blur_kernel(parameters(kernel="aniso", sigma_x=6.0, sigma_y=1.5, rotation=np.pi / 2), 41)
    assert np.allclose(turned, kernel.T, atol=1e-12)


@pytest.mark.parametrize("kernel", ["iso", "aniso"])
@pytest.mark.parametrize("sigma", [0.0, 1e-300, 1e-9, 1e-3])
def test_sigma_zero_blurs_nothing_instead_of_failing(kernel, sigma):
    made = blur_kernel(parameters(kernel=kernel, sigma_x=sigma, sigma_y=sigma, rotation=0.7), 41)
    delta = np.zeros((41, 41))
    delta[20, 20] = 1
    assert np.array_equal(made, delta)
    half = blur_kernel(parameters(kernel="aniso", sigma_x=sigma, sigma_y=3.0), 41)
    assert np.isfinite(half).all()
    assert half.sum() == pytest.approx(1)


def test_identity_parameters_leave_the_picture_but_for_jpeg():
    image = np.asarray(Image.fromarray(face()).resize((512, 512), 3))
    same = apply(image, parameters(sigma_x=0.0, sigma_y=0.0, scale=1.0))
    assert np.abs(same.astype(int) - image).mean() < 2


@pytest.mark.parametrize("level", [0, 1, 77, 128, 255])
def test_a_constant_picture_stays_constant_without_noise(level):
    image = np.full((64, 64, 3), level, np.uint8)
    made = apply(image, parameters(kernel="aniso", sigma_y=9.0, scale=3.3, jpeg_quality=90.0))
    assert np.array_equal(made, image)


def test_noise_has_the_recorded_deviation_and_is_independent_per_channel():
    one = parameters(scale=1.0, noise_sigma=12.0)
    noise = recorded_noise(one, (256, 256), get_degradation("severe")).reshape(-1, 3)
    assert np.allclose(np.cov(noise.T), np.eye(3), atol=0.02)
    assert not np.array_equal(
        noise, recorded_noise(parameters(seed=2), (256, 256), get_degradation("severe")).reshape(-1, 3)
    )
    luma = np.array([0.299, 0.587, 0.114])
    values = apply(np.full((256, 256, 3), 128, np.uint8), one).reshape(-1, 3) @ luma  # JPEG smooths colour only
    assert values.std() == pytest.approx(12 * np.sqrt((luma**2).sum()), rel=0.05)


def test_sides_are_rounded_down_and_never_vanish():
    assert reduced_size(np.zeros((512, 512, 3)), parameters(scale=5.9)) == (86, 86)
    assert reduced_size(np.zeros((100, 60, 3)), parameters(scale=7.0)) == (14, 8)
    assert reduced_size(np.zeros((10, 4, 3)), parameters(scale=32.0)) == (1, 1)
    # 0.8 is a little more than 4/5 in binary, and the published code divides the same way
    assert reduced_size(np.zeros((512, 512, 3)), parameters(scale=0.8)) == (639, 639)


@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_other_arrays_are_refused(wrong):
    with pytest.raises(ValueError, match="uint8 image"):
        apply(wrong, parameters())


def test_input_is_not_changed_and_may_be_any_view():
    image = face(64, 64)
    view = np.asfortranarray(image)[::1, ::-1]
    view.flags.writeable = False
    one = draw("moderate", 1, "a")
    assert np.array_equal(apply(view, one), apply(view.copy(), one))
