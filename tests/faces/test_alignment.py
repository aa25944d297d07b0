"""The FFHQ alignment against the published algorithm, written down once more, and what is no upright face."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ffhqref.core.errors import ImageError, WeightsError
from ffhqref.core.images import read_rgb
from ffhqref.datasets.stage import file_rows
from ffhqref.faces.align import align_ffhq, ffhq_square, implausible, upright_face
from ffhqref.faces.detect import main_face, make_detector
from ffhqref.faces.stage import AlignStage

FRONTAL = np.array([[190.0, 240.0], [320.0, 240.0], [256.0, 312.0], [205.0, 372.0], [307.0, 372.0]])


def published(image, points, size=512):
    """The steps of Karras, Laine and Aila (2019) with PIL: a quad at four times the size."""
    eye0, eye1, _, mouth0, mouth1 = points
    eyes, mouth = (eye0 + eye1) * 0.5, (mouth0 + mouth1) * 0.5
    x = (eye1 - eye0) - np.flipud(mouth - eyes) * [-1, 1]
    x *= max(np.linalg.norm(eye1 - eye0) * 2.0, np.linalg.norm(mouth - eyes) * 1.8) / np.linalg.norm(x)
    y = np.flipud(x) * [-1, 1]
    middle = eyes + (mouth - eyes) * 0.1
    quad = np.array([middle - x - y, middle - x + y, middle + x + y, middle + x - y])
    extent = np.linalg.norm(x) * 2
    picture = Image.fromarray(image)
    by = int(np.floor(extent / size * 0.5))
    if by > 1:
        new = (int(np.rint(picture.size[0] / by)), int(np.rint(picture.size[1] / by)))
        picture, quad, extent = picture.resize(new, Image.Resampling.LANCZOS), quad / by, extent / by
    border = max(int(np.rint(extent * 0.1)), 3)
    box = [*np.floor(quad.min(0)).astype(int) - border, *np.ceil(quad.max(0)).astype(int) + border]
    box = [max(box[0], 0), max(box[1], 0), min(box[2], picture.size[0]), min(box[3], picture.size[1])]
    picture, quad = picture.crop(box), quad - box[:2]
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    pad = [max(-low[0] + border, 0), max(-low[1] + border, 0)]
    pad += [max(high[0] - picture.size[0] + border, 0), max(high[1] - picture.size[1] + border, 0)]
    if max(pad) > border - 4:
        pad = [max(each, int(np.rint(extent * 0.3))) for each in pad]
        values = np.pad(np.float32(picture), ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), "reflect")
        height, width, _ = values.shape
        yy, xx, _ = np.ogrid[:height, :width, :1]
        mask = np.maximum(
            1.0 - np.minimum(np.float32(xx) / pad[0], np.float32(width - 1 - xx) / pad[2]),
            1.0 - np.minimum(np.float32(yy) / pad[1], np.float32(height - 1 - yy) / pad[3]),
        )
        soft = ndimage.gaussian_filter(values, [extent * 0.02, extent * 0.02, 0])
        values += (soft - values) * np.clip(mask * 3.0 + 1.0, 0.0, 1.0)
        values += (np.median(values, axis=(0, 1)) - values) * np.clip(mask, 0.0, 1.0)
        picture = Image.fromarray(np.uint8(np.clip(np.rint(values), 0, 255)), "RGB")
        quad += pad[:2]
    at = (quad + 0.5).flatten().tolist()
    picture = picture.transform((4 * size, 4 * size), Image.Transform.QUAD, at, Image.Resampling.BILINEAR)
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))


def detailed(height, width, seed=0):
    """An image with structure of every scale, made of noise."""
    rng = np.random.default_rng(seed)
    made = sum(
        ndimage.zoom(rng.uniform(0, 255, (height // step + 2, width // step + 2, 3)), (step, step, 1), order=1)[
            :height, :width
        ]
        for step in (1, 4, 16, 64)
    )
    return np.uint8(made / 4)


@pytest.mark.parametrize(
    ("shape", "scale", "turn", "shift"),
    [
        ((600, 700), 1.0, 0.0, (80, 60)),  # no padding
        ((512, 512), 1.0, 0.1, (0, 0)),  # a little
        ((300, 280), 0.5, -0.3, (40, -30)),  # enlarged, and padded at the top
        ((400, 400), 0.7, 0.2, (150, 150)),  # padded at two sides
        ((1500, 1600), 4.2, 0.05, (-200, -300)),  # shrunk first, and padded at two sides
        ((1024, 1024), 2.0, 0.0, (0, 0)),  # FFHQ's own size
    ],
)
def test_the_crop_is_that_of_the_published_steps(shape, scale, turn, shift):
    image = detailed(*shape)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = FRONTAL @ matrix.T + shift
    wanted = published(image, points)
    found = align_ffhq(image, points)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_photographs_are_cropped_as_published(shared):
    detector = make_detector("dlib68")
    for path in sorted((shared / "faces" / "officials").glob("*.jpg"))[::60]:
        image = read_rgb(path)
        points = upright_face(image, detector).points
        assert np.abs(align_ffhq(image, points).astype(int) - published(image, points)).max() <= 1, path.name


def test_alignment_of_the_whole_image_is_the_image():
    """Landmarks whose square is exactly the image leave it as it is."""
    image = np.uint8(ndimage.gaussian_filter(np.random.default_rng(1).uniform(0, 255, (512, 512, 3)), (3, 3, 0)))
    down = 256.0 / 1.8
    eyes_y = 255.5 - 0.1 * down
    points = np.array([[200.0, eyes_y], [311.0, eyes_y], [256, 300], [220, eyes_y + down], [291, eyes_y + down]])
    assert np.allclose(ffhq_square(points)[0], [-0.5, -0.5])
    inner = (slice(64, 448), slice(64, 448))  # the padding softens the rim
    assert np.abs(align_ffhq(image, points).astype(int) - image)[inner].max() <= 2


def test_outside_the_image_is_no_black_border():
    image = np.full((200, 200, 3), 180, np.uint8)
    points = np.array([[20.0, 30.0], [70.0, 30.0], [45.0, 60.0], [25.0, 90.0], [65.0, 90.0]])
    assert align_ffhq(image, points).min() >= 178


def test_ffhq_s_images_are_their_own_crop(shared):
    """The published crop of an image that was cropped so is nearly the whole image, to 3 % of its size."""
    detector = make_detector("dlib68")
    for path in sorted((shared / "ffhq").glob("*.png")):
        image = read_rgb(path)
        square = ffhq_square(upright_face(image, detector).points) / len(image)
        assert np.abs(square - [[0, 0], [0, 1], [1, 1], [1, 0]]).max() < 0.03, path.name


def test_scale_scatters_little_between_an_image_and_its_mirror_image(shared):
    detector, ratios = make_detector("dlib68"), []
    for path in sorted((shared / "faces" / "officials").glob("*.jpg"))[::3]:
        image = read_rgb(path)
        sizes = []
        for view in (image, np.ascontiguousarray(image[:, ::-1])):
            square = ffhq_square(upright_face(view, detector).points)
            sizes.append(np.hypot(*(square[3] - square[0])))
        ratios.append(np.log(sizes[1] / sizes[0]))
    assert len(ratios) > 50
    assert np.std(ratios) < 0.015


def turned_points(degrees):
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (FRONTAL - 256) @ matrix.T + 256


@pytest.mark.parametrize("degrees", [-30, 0, 20])
def test_upright_points_are_plausible(degrees):
    assert implausible(turned_points(degrees)) is None


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (turned_points(90), "eyes on a line of 90 degrees"),
        (turned_points(-70), "-70 degrees"),
        (FRONTAL * [1, -1] + [0, 500], "degrees aside"),  # the mouth above the eyes
        (FRONTAL * [0.3, 1], "eye distances from eyes to mouth"),
        (np.where(np.arange(5)[:, None] == 2, [[256, 200]], FRONTAL), "a nose that is not"),
        (np.full((5, 2), 40.0), "one point"),
    ],
)
def test_points_of_no_upright_face_are_told(points, words):
    assert words in implausible(points)


@pytest.mark.parametrize("name", ["dlib68", "centerface", "yunet"])
def test_a_turned_photograph_is_a_row_with_the_reason(shared, tmp_path, name):
    root = tmp_path / "photographs"
    root.mkdir()
    sources = [shared / "ffhq" / "00000.png", sorted((shared / "faces" / "officials").glob("*.jpg"))[100]]
    for number, source in enumerate(sources):
        with Image.open(source) as image:
            for quarters in range(4):
                small = image.convert("RGB").resize((400, 400 * image.height // image.width))
                small.rotate(90 * quarters, expand=True).save(root / f"{number}_{quarters}.png")
    options = {"path": shared / "models" / "yunet.onnx"} if name == "yunet" else {}
    stage = AlignStage(root, tmp_path / "aligned", name, options)
    files = {path.stem: path.name for path in sorted(root.iterdir())}
    for result in stage.process(file_rows(root, files)):
        if result.image_id.endswith("_0"):
            assert result.error is None
        else:
            assert "turned" in result.error or "no face" in result.error or "implausible" in result.error
            assert not (tmp_path / "aligned" / f"{result.image_id}.png").exists()


def test_officials_of_all_years_are_found(shared):
    detector, missed = make_detector("dlib68"), []
    with (shared / "faces" / "officials" / "people.csv").open() as stream:
        files = [row["file"] for row in csv.DictReader(stream)][::4]
    for file in files:
        try:
            upright_face(read_rgb(shared / "faces" / "officials" / file), detector)
        except ImageError:
            missed.append(file)
    assert len(missed) <= len(files) * 0.02


def test_an_image_without_a_face_has_none():
    noise = np.random.default_rng(0).integers(0, 256, (200, 220, 3), dtype=np.uint8)
    with pytest.raises(ImageError, match="no face found by dlib68"):
        upright_face(noise, make_detector("dlib68"))


def test_another_file_is_no_landmark_model(tmp_path):
    (tmp_path / "model.dat").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="is no landmark model of dlib"):
        make_detector("dlib68", path=tmp_path / "model.dat")


class Foreign:
    """A detector of a package that knows nothing of our base class."""

    signature = "foreign:1"

    def __call__(self, image):
        return make_detector("dlib68")(image)


def test_a_detector_without_the_base_class_can_align(shared, monkeypatch):
    from ffhqref.faces.detect import DETECTORS

    monkeypatch.setattr(DETECTORS, "make", lambda name, **options: Foreign())
    foreign = make_detector("foreign")
    monkeypatch.undo()
    image = read_rgb(shared / "ffhq" / "00000.png")
    assert main_face(foreign(image), 1024, 1024) is not None
    assert upright_face(image, foreign).score > 0
