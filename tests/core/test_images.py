"""Images: every kind that people have is read as the field's code would, and bad ones say why."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ffhqref.core import images
from ffhqref.core.errors import ImageError


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_png_round_trip_is_exact(tmp_path, picture):
    images.save_png(tmp_path / "a" / "x.png", picture)
    assert np.array_equal(images.read_rgb(tmp_path / "a" / "x.png"), picture)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.png"]  # no temporary file stays


def test_grey_palette_rgba_and_cmyk(tmp_path, picture):
    grey = Image.fromarray(picture).convert("L")
    grey.save(tmp_path / "grey.png")
    assert np.array_equal(images.read_rgb(tmp_path / "grey.png"), np.repeat(np.asarray(grey)[..., None], 3, 2))
    palette = Image.fromarray(picture).quantize(16)
    palette.save(tmp_path / "p.gif")
    assert np.array_equal(images.read_rgb(tmp_path / "p.gif"), np.asarray(palette.convert("RGB")))
    rgba = np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(images.read_rgb(tmp_path / "a.png"), picture)
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "c.tif")
    assert np.array_equal(images.read_rgb(tmp_path / "c.tif"), picture)


def test_sixteen_bit_is_scaled_and_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(values).save(tmp_path / "deep.png")
    found = images.read_rgb(tmp_path / "deep.png")[..., 0].astype(float)
    assert np.abs(found - values / 257.0).max() <= 0.5
    assert len(np.unique(found)) == 256


def test_exif_orientation_is_applied(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270 degrees
    Image.fromarray(picture).save(tmp_path / "t.png", exif=exif)
    assert np.array_equal(images.read_rgb(tmp_path / "t.png"), np.rot90(picture, -1))


def test_resizing_is_pils_bicubic_and_only_when_needed(tmp_path, picture):
    images.save_png(tmp_path / "x.png", picture)
    wanted = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(images.read_rgb(tmp_path / "x.png", 32), wanted)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("text.png", b"this is no image", "not an image"),
        ("empty.png", b"", "not an image"),
        ("absent.png", None, "no such file"),
    ],
)
def test_what_is_no_picture_says_so(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=said) as caught:
        images.read_rgb(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_truncated_files_are_errors_and_not_half_grey_faces(tmp_path, picture, kind):
    Image.fromarray(picture).save(tmp_path / f"x.{kind}")
    data = (tmp_path / f"x.{kind}").read_bytes()
    (tmp_path / f"x.{kind}").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="cannot be read"):
        images.read_rgb(tmp_path / f"x.{kind}")


def test_small_pictures_are_refused(tmp_path, picture):
    images.save_png(tmp_path / "x.png", picture[:10, :10])
    with pytest.raises(ImageError, match="10x10 pixels, at least 64"):
        images.read_rgb(tmp_path / "x.png", min_side=64)


def test_eight_bit_rules():
    import torch

    values = torch.tensor([0.0, 0.1, 0.5, 0.999, 1.0, 1.5, -0.2]).view(1, 1, 1, 7).expand(1, 3, 1, 7)
    assert images.to_uint8(values)[0, 0, :, 0].tolist() == [0, 26, 128, 255, 255, 255, 0]
    assert images.to_uint8(values, "truncate")[0, 0, :, 0].tolist() == [0, 25, 127, 254, 255, 255, 0]


def test_tensor_round_trip(picture):
    tensor = images.to_tensor([picture, picture])
    assert tuple(tensor.shape) == (2, 3, 40, 60)
    assert np.array_equal(images.to_uint8(tensor)[1], picture)


def turned_jpeg(path, picture, *entries: bytes) -> None:
    """Write a JPEG with EXIF entries of 12 bytes (tag, type, count, value) put together by hand."""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little") + b"".join(entries) + b"\0\0\0\0"
    Image.fromarray(picture).save(path, quality=95, exif=exif)


TURNED = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"  # orientation 6: a quarter turn


@pytest.mark.parametrize(
    "odd",
    [
        b"\x10\x01\x0a\0\x01\0\0\0\x00\0\0\0",  # a model that is a signed fraction, out of place
        b"\x1a\x01\x02\0\x04\0\0\0abc\0",  # a resolution that is text
        b"\x31\x01\x04\0\x01\0\0\0\x05\0\0\0",  # a program name that is a number
        b"\x69\x87\x02\0\x04\0\0\0abc\0",  # a pointer to more tags that is text
        b"\x32\x01\xff\0\x01\0\0\0\x00\0\0\0",  # an unknown type
    ],
)
def test_a_turned_jpeg_with_an_odd_tag_is_read_upright(tmp_path, picture, odd):
    turned_jpeg(tmp_path / "plain.jpg", picture, TURNED)
    turned_jpeg(tmp_path / "odd.jpg", picture, TURNED, odd)
    upright = images.read_rgb(tmp_path / "plain.jpg")
    assert upright.shape[:2] == (60, 40)
    assert np.array_equal(images.read_rgb(tmp_path / "odd.jpg"), upright)


def test_an_orientation_that_is_none_turns_nothing(tmp_path, picture):
    for number, value in enumerate(
        (b"\x02\0\x02\0\0\0x\0\0\0", b"\x03\0\x01\0\0\0\x63\0\0\0", b"\x05\0\x01\0\0\0\xff\xff\0\0")
    ):
        turned_jpeg(tmp_path / f"{number}.jpg", picture, b"\x12\x01" + value)
        assert images.read_rgb(tmp_path / f"{number}.jpg").shape[:2] == (40, 60)


def test_every_orientation_is_pillow_s(tmp_path, picture):
    from PIL import ImageOps

    for orientation in range(1, 9):
        turned_jpeg(tmp_path / "x.jpg", picture, TURNED[:8] + bytes([orientation, 0, 0, 0]))
        with Image.open(tmp_path / "x.jpg") as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        assert np.array_equal(images.read_rgb(tmp_path / "x.jpg"), expected)


def test_whatever_a_decoder_raises_is_one_line(tmp_path, picture, monkeypatch):
    images.save_png(tmp_path / "x.png", picture)

    def broken(self):
        raise TypeError("an integer is required")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", broken)
    with pytest.raises(ImageError, match="cannot be read"):
        images.read_rgb(tmp_path / "x.png")


@pytest.mark.parametrize(
    "data",
    [
        b"DDS " + b"|\0\0\0" + b"\xff" * 120,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
        b"%PDF-1.4\n",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    ],
)
def test_formats_beside_those_of_the_list_are_no_images_and_start_no_program(tmp_path, monkeypatch, data):
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"not an image|cannot be read"):
        images.read_rgb(tmp_path / "x.png")


@pytest.mark.parametrize("error", [MemoryError(), NotImplementedError("mode"), RecursionError(), AssertionError()])
def test_no_decoder_and_no_conversion_ends_a_run(tmp_path, picture, monkeypatch, error):
    images.save_png(tmp_path / "x.png", picture)

    def fail(*_: object, **__: object) -> None:
        raise error

    for step in ("Image.load", "Image.convert"):
        with monkeypatch.context() as patch:
            patch.setattr(f"PIL.Image.{step}", fail)
            patch.setattr("PIL.ImageFile.ImageFile.load", fail)
            with pytest.raises(ImageError, match="cannot be read"):
                images.read_rgb(tmp_path / "x.png")


def test_every_format_of_the_list_is_read_whatever_the_name_says(tmp_path, picture):
    for name in images._formats():
        if name in Image.SAVE:
            Image.fromarray(picture).save(tmp_path / "x.png", format=name)
            assert images.read_rgb(tmp_path / "x.png").shape == picture.shape


def test_a_bomb_is_refused(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match="decompression bomb"):
        images.read_rgb(tmp_path / "x.png")
