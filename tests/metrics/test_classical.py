"""PSNR, SSIM, MS-SSIM, NIQE, the VQFR family's variants: against scikit-image, pyiqa, transcriptions, closed forms."""

import cv2
import numpy as np
import pytest
import torch

from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.core.images import read_rgb, to_tensor
from ffhqref.metrics import METRICS, MetricBatch, make_metric
from ffhqref.metrics.niqe import halve, pristine_model
from ffhqref.metrics.structural import MSSSIM

NAMES = ["psnr", "psnr_y", "ssim", "ssim_rgb", "ms_ssim", "psnr_matched", "ssim_matched", "niqe"]
PYIQA = {"psnr": "psnr", "psnr_y": "psnry", "ssim": "ssim", "ssim_rgb": "ssimc", "ms_ssim": "ms_ssim"}


@pytest.fixture(scope="module")
def faces(sample_folder):
    files = sorted(sample_folder.rglob("*.jpg"))[:40:8]
    assert len(files) == 5
    return [read_rgb(file) for file in files]


@pytest.fixture(scope="module")
def outputs(faces):
    """Blur, noise, JPEG, a colour cast and a negative, so that every term of the formulas works."""
    noise = np.random.default_rng(0).normal(0, 12, faces[1].shape)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", faces[2], [cv2.IMWRITE_JPEG_QUALITY, 12])[1], cv2.IMREAD_COLOR)
    return [
        cv2.GaussianBlur(faces[0], (0, 0), 3),
        np.clip(faces[1] + noise, 0, 255).astype(np.uint8),
        jpeg,
        np.clip(faces[3].astype(float) * [0.7, 0.9, 1.0] + [30, 0, 10], 0, 255).astype(np.uint8),
        255 - faces[4],
    ]


def batch(outputs, gts, rows=None, columns=None):
    cut = [slice(rows), slice(columns)]
    return MetricBatch(
        to_tensor([image[cut[0], cut[1]] for image in outputs]), to_tensor([image[cut[0], cut[1]] for image in gts])
    )


def pyiqa_metric(name, **options):
    from ffhqref.core.compat import ensure_torchvision

    ensure_torchvision()
    return pytest.importorskip("pyiqa").create_metric(name, device="cpu", **options)


# against other implementations


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name in PYIQA for size in ((None, None), (201, 333), (96, 192))][:-1],  # ms_ssim needs 161 pixels
)
def test_values_equal_those_of_pyiqa(faces, outputs, name, size):
    if size == (None, None):  # theirs takes seconds an image
        faces, outputs = faces[1:4], outputs[1:4]
    pairs = batch(outputs, faces, *size)
    theirs = pyiqa_metric(PYIQA[name])(pairs.output, pairs.gt).double().numpy().reshape(-1)
    # their Gaussian window is in single precision, which shows in flat regions
    np.testing.assert_allclose(make_metric(name)(pairs), theirs, rtol=1e-5)


@pytest.mark.parametrize("size", [(None, None), (201, 333)], ids=["512", "odd"])
def test_psnr_and_ssim_equal_those_of_scikit_image(faces, outputs, size):
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    pairs = batch(outputs[:4], faces[:4], *size)
    psnr, ssim, ssim_y = (make_metric(name)(pairs) for name in ("psnr", "ssim_rgb", "ssim"))
    for index in range(4):
        one, two = (image[: size[0], : size[1]] for image in (outputs[index], faces[index]))
        assert psnr[index] == pytest.approx(peak_signal_noise_ratio(two, one), abs=1e-4)  # they add no 1e-8
        assert ssim[index] == pytest.approx(structural_similarity(two, one, channel_axis=2, **options), abs=2e-4)
        lumas = [np.rint(image @ np.array([0.299, 0.587, 0.114])) for image in (one, two)]
        assert ssim_y[index] == pytest.approx(structural_similarity(lumas[1], lumas[0], **options), abs=2e-4)


def test_psnr_equals_torchmetrics(faces, outputs):
    from ffhqref.core.compat import ensure_torchvision

    ensure_torchvision()
    from torchmetrics.functional.image import peak_signal_noise_ratio

    pairs = batch(outputs, faces)
    theirs = peak_signal_noise_ratio(
        pairs.output.double(), pairs.gt.double(), data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    np.testing.assert_allclose(make_metric("psnr")(pairs), theirs.numpy(), atol=2e-4)


@pytest.mark.parametrize("size", [(None, None), (201, 333), (480, 97)], ids=["512", "odd", "narrow"])
def test_niqe_equals_that_of_pyiqa(faces, outputs, tmp_path, size):
    from scipy.io import savemat

    mean, covariance = pristine_model()
    savemat(tmp_path / "niqe.mat", {"mu_prisparam": mean[None], "cov_prisparam": covariance})
    theirs = pyiqa_metric("niqe", pretrained_model_path=str(tmp_path / "niqe.mat"))
    black = faces[0].copy()
    black[:100] = 0  # blocks without any texture: undefined features
    pictures = batch([*faces, *outputs, black], [*faces, *outputs, black], *size).output
    found = make_metric("niqe")(MetricBatch(pictures))
    expected = np.array([float(theirs(picture[None])) for picture in pictures])
    assert np.isfinite(expected[:10]).all()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_pristine_model_is_the_published_one(shared):
    published = np.load(shared / "models" / "niqe_pris_params.npz")
    mean, covariance = pristine_model()
    np.testing.assert_array_equal(mean, published["mu_pris_param"].reshape(-1))
    np.testing.assert_array_equal(covariance, published["cov_pris_param"])


def test_halving_is_matlabs_bicubic_imresize():
    plane = np.random.default_rng(1).uniform(0, 255, (20, 34))

    def weights_of(length):
        """The weight matrix of imresize(x, 0.5), from the definition: kernel widened by 2, symmetric edge."""
        matrix = np.zeros((length // 2, length))
        for row in range(length // 2):
            centre = (row + 0.5) * 2 - 0.5
            for at in range(int(centre) - 5, int(centre) + 7):
                x = abs(at - centre) / 2
                if x <= 1:
                    weight = 1.5 * x**3 - 2.5 * x**2 + 1
                elif x <= 2:
                    weight = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
                else:
                    continue
                inside = -at - 1 if at < 0 else (2 * length - 1 - at if at >= length else at)
                matrix[row, inside] += weight
        return matrix / matrix.sum(axis=1, keepdims=True)

    np.testing.assert_allclose(halve(plane), weights_of(20) @ plane @ weights_of(34).T, atol=1e-10)


def test_niqe_prefers_photographs_to_damaged_ones(faces):
    """Lower is better: for each face, blur and coarse JPEG are worse than the image itself."""
    niqe = make_metric("niqe")
    assert not niqe.higher_is_better
    assert niqe.needs == frozenset()
    for face in faces:
        blurred = cv2.GaussianBlur(face, (0, 0), 4)
        jpeg = cv2.imdecode(cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 8])[1], cv2.IMREAD_COLOR)
        clean, *damaged = niqe(MetricBatch(to_tensor([face, blurred, jpeg])))
        assert clean < min(damaged)


def published_matching(output, gt):
    """The steps of VQFR's metric_paper/calculate_psnr_ssim.py: shift, scale, and both again; float32."""
    output, gt = output.astype(np.float32) / 255.0, gt.astype(np.float32) / 255.0
    for channel in range(3):
        for _ in range(2):
            plane = output[..., channel]
            plane = plane - plane.mean() + gt[..., channel].mean()
            output[..., channel] = plane / plane.std() * gt[..., channel].std()
    return output * 255.0, gt * 255.0


def test_matched_values_equal_the_published_recipe(faces, outputs):
    from skimage.metrics import structural_similarity

    pairs = batch(outputs, faces)
    psnr, ssim = make_metric("psnr_matched")(pairs), make_metric("ssim_matched")(pairs)
    for index in range(len(faces)):
        output, gt = (image.astype(np.float64) for image in published_matching(outputs[index], faces[index]))
        assert psnr[index] == pytest.approx(20 * np.log10(255.0 / np.sqrt(((output - gt) ** 2).mean())), abs=1e-3)
        _, full = structural_similarity(
            gt, output, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=255, full=True,
        )  # fmt: skip
        assert ssim[index] == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-5)


def test_a_colour_cast_is_forgiven_by_the_matched_variant_only(faces):
    cast = np.clip(faces[0].astype(float) * 0.8 + 20, 0, 255).astype(np.uint8)
    pair = batch([cast], [faces[0]])
    assert make_metric("psnr")(pair)[0] < 30
    assert make_metric("psnr_matched")(pair)[0] > 45


# closed forms and edges


def test_psnr_of_a_constant_offset_is_its_closed_form():
    gt = torch.full((1, 3, 7, 5), 0.25)
    offset = MetricBatch(gt + 0.125, gt)
    expected = 10 * np.log10(1 / (0.125**2 + 1e-8))
    assert make_metric("psnr")(offset)[0] == pytest.approx(expected, abs=1e-6)
    assert make_metric("psnr_y")(offset)[0] == pytest.approx(expected, abs=1e-5)


def test_luma_weighs_the_channels():
    gt = torch.zeros(1, 3, 8, 8)
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        output = gt.clone()
        output[:, channel] = 0.5
        expected = -10 * np.log10((0.5 * weight) ** 2 + 1e-8)
        assert make_metric("psnr_y")(MetricBatch(output, gt))[0] == pytest.approx(expected, abs=1e-4)


def test_ssim_of_two_constants_is_its_closed_form():
    """Without variance the structure is 1 and only the luminance term is left."""
    low, high = 51.0, 204.0
    pair = MetricBatch(torch.full((1, 3, 192, 176), low / 255), torch.full((1, 3, 192, 176), high / 255))
    c1 = (0.01 * 255) ** 2
    luminance = (2 * low * high + c1) / (low**2 + high**2 + c1)
    assert make_metric("ssim")(pair)[0] == pytest.approx(luminance, abs=1e-6)
    assert make_metric("ssim_rgb")(pair)[0] == pytest.approx(luminance, abs=1e-6)
    assert make_metric("ms_ssim")(pair)[0] == pytest.approx(luminance**0.1333, abs=1e-6)


def test_identical_pictures(faces):
    pair = batch(faces[:2], faces[:2])
    np.testing.assert_allclose(make_metric("psnr")(pair), 80.0)
    for name in ("ssim", "ssim_rgb", "ms_ssim", "ssim_matched"):
        np.testing.assert_allclose(make_metric(name)(pair), 1.0, atol=1e-9)
    assert (make_metric("psnr_matched")(pair) > 150).all()


def test_a_constant_output_has_no_matched_value_and_no_niqe(faces):
    flat = np.full_like(faces[0], 128)
    pair = batch([flat], [faces[0]])
    for name in ("psnr_matched", "ssim_matched", "niqe"):
        assert np.isnan(make_metric(name)(pair)[0]), name
    for name in ("psnr", "psnr_y", "ssim", "ssim_rgb", "ms_ssim"):
        assert np.isfinite(make_metric(name)(pair)[0]), name


def test_pictures_too_small_have_no_value():
    noise = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    for name, side in (("ssim", 11), ("ssim_rgb", 11), ("ssim_matched", 11), ("ms_ssim", 161)):
        for size, finite in ((side - 1, False), (side, True)):
            pair = MetricBatch(noise[..., :size, :size], noise.flip(3)[..., :size, :size])
            assert np.isfinite(make_metric(name)(pair)[0]) == finite, (name, size)
    assert np.isnan(make_metric("niqe")(MetricBatch(noise[..., :191, :96]))[0])
    assert np.isfinite(make_metric("niqe")(MetricBatch(noise[..., :192, :96]))[0])
    assert isinstance(make_metric("ms_ssim"), MSSSIM)


@pytest.mark.parametrize("name", NAMES)
def test_a_value_does_not_depend_on_the_rest_of_its_batch(faces, outputs, name):
    metric = make_metric(name)
    whole = metric(batch(outputs, faces))
    assert whole.dtype == np.float64
    assert whole.shape == (5,)
    for index in range(5):
        assert metric(batch(outputs[index : index + 1], faces[index : index + 1]))[0] == whole[index]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_on_a_gpu_give_the_same_value(faces, outputs, name, cuda):
    pairs = batch(outputs, faces)
    there = MetricBatch(pairs.output.to(cuda), pairs.gt.to(cuda))
    np.testing.assert_array_equal(make_metric(name)(there), make_metric(name)(pairs))


def test_another_size_than_the_ground_truth_is_one_line():
    with pytest.raises(ImageError, match="the output has 20x30 pixels, its ground truth 64x64"):
        make_metric("psnr")(MetricBatch(torch.zeros(1, 3, 30, 20), torch.zeros(1, 3, 64, 64)))
    with pytest.raises(ImageError, match="the benchmark has none"):
        make_metric("ssim")(MetricBatch(torch.zeros(1, 3, 30, 20)))


# names


def test_signatures_differ_and_say_the_convention():
    signatures = {name: make_metric(name).signature for name in NAMES}
    assert len(set(signatures.values())) == len(NAMES)
    assert "rgb" in signatures["psnr"]
    assert "luma" in signatures["ssim"]
    assert "matched" in signatures["psnr_matched"]
    assert all("\n" not in signature for signature in signatures.values())


def test_wrong_names_and_options_are_one_line():
    with pytest.raises(ConfigError, match="Did you mean 'ms_ssim'"):
        make_metric("msssim")
    with pytest.raises(ConfigError, match="metric 'psnr' has no option 'color'; its options: colour"):
        make_metric("psnr", color="y")
    with pytest.raises(ConfigError, match="expected rgb or y"):
        make_metric("psnr", colour="lab")
    assert {"psnr", "ids", "niqe"} <= set(METRICS)
