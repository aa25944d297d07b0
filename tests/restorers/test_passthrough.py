"""Outputs that are the input again, and restorations that change little."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ffhqref.core.images import read_rgb, to_tensor, to_uint8
from ffhqref.degradation import apply, draw
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.restorers.passthrough import same_as_input


@pytest.fixture(scope="module", params=["moderate", "severe"])
def lq(request, sample_folder):
    face = read_rgb(sorted(sample_folder.rglob("*.jpg"))[7], 512)
    return apply(face, draw(request.param, 3, "case"))


def pillow(image, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return np.asarray(Image.open(stream).convert("RGB"))


def opencv(image, kind, *options):
    return np.ascontiguousarray(cv2.imdecode(cv2.imencode(kind, image[..., ::-1], options)[1], 1)[..., ::-1])


def by_torch(image, size, antialias):
    values = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    resize = torch.nn.functional.interpolate
    small = resize(values, size=(size, size), mode="bicubic", antialias=antialias)
    large = resize(small, size=(512, 512), mode="bicubic")
    return large.clamp(0, 255).round().byte()[0].permute(1, 2, 0).numpy()


AGAIN = {
    "equal": (lambda x: x.copy(), "equals the input"),
    "Pillow's JPEG": (lambda x: pillow(x, "JPEG"), "as JPEG"),
    "OpenCV's JPEG": (lambda x: opencv(x, ".jpg"), "as JPEG"),
    "JPEG 4:4:4": (lambda x: pillow(x, "JPEG", quality=33, subsampling=0), "as JPEG"),
    "WebP": (lambda x: pillow(x, "WEBP", quality=80), "as WebP"),
    "Pillow's resize": (lambda x: np.asarray(Image.fromarray(x).resize((256, 256)).resize((512, 512))), "by 256/512"),
    "OpenCV's resize": (lambda x: cv2.resize(cv2.resize(x, (128, 128)), (512, 512), interpolation=2), "by 128/512"),
    "enlarged": (lambda x: cv2.resize(cv2.resize(x, (1024, 1024)), (512, 512), interpolation=3), "by 1024/512"),
    "torch's resize": (lambda x: by_torch(x, 256, antialias=False), "by 256/512"),
    "torch's antialiased": (lambda x: by_torch(x, 224, antialias=True), "by 224/512"),
}


@pytest.mark.parametrize(("operation", "words"), AGAIN.values(), ids=AGAIN)
def test_the_input_again_is_found(lq, operation, words):
    assert words in same_as_input(operation(lq), lq)


@pytest.mark.parametrize("name", ["nlm", "tv"])
def test_a_denoiser_that_changes_little_is_not_taken_for_it(lq, name):
    made = make_restorer(name).restore(RestorationBatch(to_tensor([lq]), [torch.zeros(0, 3, 512, 512)], [0]))
    output = to_uint8(made)[0]
    assert cv2.PSNR(output, lq) > 30
    assert same_as_input(output, lq) is None


def test_other_changes_are_not_taken_for_it(lq):
    noisy = np.clip(lq + np.random.default_rng(0).normal(0, 1, lq.shape), 0, 255).astype(np.uint8)
    for output in (cv2.GaussianBlur(lq, (0, 0), 1.2), np.clip(lq.astype(int) + 1, 0, 255).astype(np.uint8), noisy):
        assert same_as_input(output, lq) is None
    assert same_as_input(255 - lq, lq) is None


def test_a_blur_of_noise_is_not_taken_for_a_resize(lq):
    noisy = np.clip(lq + np.random.default_rng(0).normal(0, 6, lq.shape), 0, 255).astype(np.uint8)
    assert same_as_input(cv2.GaussianBlur(noisy, (0, 0), 2), noisy) is None


def test_bicubic_declares_that_it_resizes(lq):
    restorer = make_restorer("bicubic")
    made = restorer.restore(RestorationBatch(to_tensor([lq]), [torch.zeros(0, 3, 512, 512)], [0]))
    assert "resized" in same_as_input(to_uint8(made)[0], lq)
    assert restorer.info.passthrough
