"""Crops and alignment against independent implementations and real faces."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.images import read_rgb
from ffhqref.faces.align import ffhq_square
from ffhqref.faces.crops import ARCFACE_POINTS, FFHQ_POINTS, arcface_crop, crop_faces, similarity
from ffhqref.faces.detect import main_face, make_detector


@pytest.mark.parametrize("side", [112, 224])
def test_arcface_crop_is_insightfaces(side):
    face_align = pytest.importorskip("insightface.utils.face_align")
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (160, 150, 3), dtype=np.uint8)
    points = np.array([[48, 60], [95, 63], [70, 88], [52, 110], [91, 112]]) + rng.normal(0, 2, (5, 2))
    theirs = face_align.norm_crop(picture, points.astype(np.float32), side)
    assert np.abs(arcface_crop(picture, points, side).astype(int) - theirs.astype(int)).max() <= 1


class Fake:
    """An embedder's shape only."""

    dim, signature = 4, "fake"

    def __init__(self, size, template):
        self.face_size, self.template = size, template


@settings(max_examples=50, deadline=None)
@given(angle=st.floats(-3, 3), scale=st.floats(0.1, 5), dx=st.floats(-50, 50), dy=st.floats(-50, 50))
def test_similarity_recovers_what_was_applied(angle, scale, dx, dy):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(FFHQ_POINTS, FFHQ_POINTS @ turn.T + [dx, dy])
    assert np.allclose(matrix, np.hstack([turn, [[dx], [dy]]]), atol=1e-6)


def test_similarity_equals_scikit_image():
    wanted = SimilarityTransform.from_estimate(FFHQ_POINTS, ARCFACE_POINTS)
    assert np.allclose(similarity(FFHQ_POINTS, ARCFACE_POINTS), wanted.params[:2], atol=1e-9)


@pytest.mark.parametrize("template", ["arcface", "dlib"])
def test_template_crop_puts_the_template_where_the_network_expects_it(template):
    """Dots painted on the FFHQ template appear on the network's template to within half a pixel."""
    from ffhqref.faces import crops

    source = crops.FFHQ_POINTS if template == "arcface" else crops.FFHQ_DLIB_POINTS
    size = 112 if template == "arcface" else 150
    target = crops.ARCFACE_POINTS if template == "arcface" else crops.DLIB_POINTS
    fitted = source @ similarity(source, target)[:, :2].T + similarity(source, target)[:, 2]
    for point, wanted in zip(source, fitted, strict=True):
        image = np.zeros((512, 512, 3), np.uint8)
        yy, xx = np.mgrid[:512, :512]
        image[...] = (255 * np.exp(-((xx - point[0]) ** 2 + (yy - point[1]) ** 2) / 72))[..., None].astype(np.uint8)
        face = crop_faces(image[None], "ffhq_template", Fake(size, template))[0, ..., 0].astype(float)
        rows, columns = np.mgrid[:size, :size]
        found = np.array([(face * columns).sum(), (face * rows).sum()]) / face.sum()
        assert np.abs(found - wanted).max() < 0.5


def test_refldm_crop_is_the_area_mean_of_the_centre():
    """448 px to 112 px by area is the mean over blocks of 4x4."""
    image = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), dtype=np.uint8)
    blocks = image[0, 32:480, 32:480].reshape(112, 4, 112, 4, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(crop_faces(image, "refldm_center", Fake(112, "arcface"))[0] - blocks).max() <= 0.51


def test_unknown_crop_gets_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'refldm_center'"):
        crop_faces(np.zeros((1, 512, 512, 3), np.uint8), "refldm_centre", Fake(112, "arcface"))


def test_square_of_an_upright_face_in_closed_form():
    points = np.array([[80.0, 100.0], [120.0, 100.0], [100.0, 120.0], [85.0, 150.0], [115.0, 150.0]])
    # eye line 40, eyes to mouth 50: half side max(2.0 * 40, 1.8 * 50) = 90, centre 0.1 * 50 below the eyes
    wanted = np.array([[10.0, 15.0], [10.0, 195.0], [190.0, 195.0], [190.0, 15.0]])
    assert np.allclose(ffhq_square(points), wanted)


@settings(max_examples=30, deadline=None)
@given(angle=st.floats(-0.8, 0.8), scale=st.floats(0.5, 3))
def test_square_turns_and_grows_with_the_face(angle, scale):
    points = np.array([[80.0, 100.0], [121.0, 98.0], [100.0, 120.0], [86.0, 150.0], [117.0, 149.0]])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.allclose(ffhq_square(points @ turn.T), ffhq_square(points) @ turn.T, atol=1e-6)


@pytest.mark.parametrize("name", ["yunet", "centerface", "dlib68"])
def test_detectors_find_real_faces_and_their_ffhq_frame(shared, name):
    """FFHQ's own images are aligned: the square of their face is nearly the whole image."""
    detector = make_detector(name, path=shared / "models" / "yunet.onnx" if name == "yunet" else None)
    for path in sorted((shared / "ffhq").glob("*.png")):
        image = read_rgb(path, 512)
        face = main_face(detector(image), 512, 512)
        assert face is not None, path.name
        square = ffhq_square(face.points) / 512
        assert np.abs(square - [[0, 0], [0, 1], [1, 1], [1, 0]]).max() < 0.15, path.name


def test_detectors_find_every_official(shared):
    detector = make_detector("yunet", path=shared / "models" / "yunet.onnx")
    with (shared / "faces" / "officials" / "people.csv").open() as stream:
        files = [row["file"] for row in csv.DictReader(stream)][:40]
    for file in files:
        image = read_rgb(shared / "faces" / "officials" / file)
        assert main_face(detector(image), image.shape[1], image.shape[0]) is not None, file


def test_another_network_is_no_yunet(shared):
    with pytest.raises(WeightsError, match="is no YuNet network"):
        make_detector("yunet", path=shared / "models" / "edgeface_xs.onnx")


def test_a_picture_without_a_face_has_none(shared):
    detector = make_detector("yunet", path=shared / "models" / "yunet.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    assert detector(noise) == []
    assert main_face([], 200, 300) is None
