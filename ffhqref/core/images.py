"""Read, resize and save images: the 512x512 RGB convention, in one place.

An image is uint8 RGB [H, W, 3], a tensor float32 RGB [B, 3, H, W] in 0..1.
"""

from __future__ import annotations

import io
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ffhqref.core.errors import ImageError, one_line
from ffhqref.core.files import read_regular, write_atomic
from ffhqref.core.hashing import sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

SIZE = 512
"""Height and width of an aligned face in pixels, as in FFHQ-Ref, FaceMe and the whole field."""

EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".ppm", ".tga",
)  # fmt: skip
"""File name endings of images, in lower case."""

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "GIF", "JPEG2000", "PPM", "TGA")
"""What is looked for in a file, whatever its name: Pillow knows more, some of which start other programs."""


MOST = 1 << 30
"""Bytes of an image's file."""


def read_rgb(
    path: str | Path, size: int | None = None, min_side: int = 1, *, sha256: str | None = None
) -> NDArray[np.uint8]:
    """Read an image as uint8 RGB [H, W, 3]; see `decode_rgb`.

    Args:
        path: the file.
        size: if given, the image is resized to ``size`` x ``size``.
        min_side: images with a shorter side are refused.
        sha256: if given, the file must have this hash. It is read once: the pixels are those of the hashed bytes.

    Raises:
        ImageError: the file is missing, empty, truncated, no image, too small, or has another hash.
    """
    data = read_bytes(path)
    if sha256 is not None and sha256_bytes(data) != sha256:
        raise ImageError(f"changed since its hash was recorded, run the pipeline that recorded it again: {path}")
    return decode_rgb(data, path, size, min_side)


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file.

    Raises:
        ImageError: it is missing or may not be read.
    """
    try:
        return read_regular(path, MOST)
    except FileNotFoundError:
        raise ImageError(f"no such file: {path}") from None
    except OSError as error:
        raise ImageError(f"cannot be read ({error}): {path}") from None


def decode_rgb(data: bytes, path: str | Path, size: int | None = None, min_side: int = 1) -> NDArray[np.uint8]:
    """Decode an image as uint8 RGB [H, W, 3].

    Greyscale, palette and CMYK images are converted. Of a GIF the first frame is taken. Alpha is dropped. 16-bit
    values are scaled to 8 bit (PIL's own conversion clips them). The EXIF orientation is applied.

    Args:
        data: content of the file.
        path: the file, for messages.
        size: if given and the image is not already ``size`` x ``size``, it is resized with PIL's bicubic filter, the
            default filter that ReF-LDM's code relies on. Whether it is square is checked where images enter, see
            `check_square`.
        min_side: images with a shorter side are refused.

    Raises:
        ImageError: empty, truncated, no image, or too small.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage that does not keep an image from being read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_formats()) as opened:
                opened.load()
                picture = _upright(opened)
        if min(picture.size) < min_side:
            raise ImageError(f"{picture.width}x{picture.height} pixels, at least {min_side} a side are needed: {path}")
        picture = _to_rgb(picture)
        if size is not None and picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(picture, dtype=np.uint8).copy()
    except UnidentifiedImageError:
        raise ImageError(f"not an image: {path}") from None
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything on a damaged file
        raise ImageError(f"cannot be read ({one_line(error)}): {path}") from None


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def check_square(width: int, height: int, path: str | Path) -> None:
    """Refuse an image that would be distorted if it were made a square.

    Raises:
        ImageError: it is not square.
    """
    if width != height:
        raise ImageError(
            f"{width}x{height} pixels, an aligned face is square: crop it or align it (dataset.aligned=false): {path}"
        )


def _upright(picture: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says; one that cannot be understood turns nothing.

    Pillow's own ``exif_transpose`` writes the other tags again, and fails where one of them has an odd type.
    """
    try:
        orientation = int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - whatever a damaged block of tags makes Pillow raise
        return picture
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF orientation to what makes the image upright."""


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # I;16 and I: 16 bit data, which convert("RGB") would clip at 255
        values = np.asarray(picture).astype(np.float64)
        return Image.fromarray(np.clip(np.round(values / 257.0), 0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        top = 255.0 if values.max(initial=0.0) > 1.0 else 1.0
        return Image.fromarray(np.clip(np.round(values / top * 255.0), 0, 255).astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize uint8 RGB [H, W, 3] to [size, size, 3] with PIL's bicubic filter."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode uint8 RGB [H, W, 3] as PNG bytes; the same image gives the same bytes in one environment."""
    import cv2

    ok, data = cv2.imencode(".png", image[..., ::-1])
    if not ok:
        raise ImageError(f"cannot encode an image of shape {image.shape} as PNG")
    return bytes(data.tobytes())


def encode_webp(image: NDArray[np.uint8], quality: int = 80) -> bytes:
    """Encode uint8 RGB [H, W, 3] as lossy WebP bytes, for thumbnails."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "WEBP", quality=quality, method=2)
    return stream.getvalue()


def save_png(path: str | Path, image: NDArray[np.uint8]) -> bytes:
    """Write uint8 RGB [H, W, 3] as PNG, atomically, and return the bytes written."""
    data = encode_png(image)
    write_atomic(path, data)
    return data


def to_tensor(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> torch.Tensor:
    """Return float32 [B, 3, H, W] in 0..1 from uint8 RGB images [H, W, 3] of one size."""
    import torch

    stack = np.ascontiguousarray(np.stack(list(images)).transpose(0, 3, 1, 2))
    return torch.from_numpy(stack).to(torch.float32) / 255.0


def to_uint8(tensor: Any, rule: str = "round") -> NDArray[np.uint8]:
    """Return uint8 RGB [B, H, W, 3] from float [B, 3, H, W] in 0..1, clamped.

    Args:
        tensor: the images.
        rule: ``"round"`` (most scripts) or ``"truncate"`` (ReF-LDM, GPEN: restorers.md section 2, hazard 7).
    """
    # in float32, as the published scripts compute: truncation can land a level lower than in double
    values = tensor.detach().to("cpu").float().clamp(0.0, 1.0).numpy() * np.float32(255.0)
    values = np.floor(values) if rule == "truncate" else np.round(values)
    return np.ascontiguousarray(values.astype(np.uint8).transpose(0, 2, 3, 1))
