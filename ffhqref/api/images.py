"""Images as users have them, and as the rooms below take them.

An image is one of: a tensor [3, H, W], a NumPy array [H, W, 3], a PIL image, or a path. It is RGB, uint8 in 0..255 or
float in 0..1. Several are a tensor [B, 3, H, W], an array [B, H, W, 3], or a sequence of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ffhqref.core.errors import ImageError
from ffhqref.core.images import check_square, read_rgb, resize, to_tensor, to_uint8

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    Picture: TypeAlias = "torch.Tensor | NDArray[Any] | Image.Image | str | Path"
    """One image."""
    Pictures: TypeAlias = "Picture | Sequence[Picture]"
    """One image or several."""

RANGE_TOLERANCE = 0.05
"""How far a float may lie outside 0..1; so far it is clamped."""


def is_single(given: Any) -> bool:
    """Return whether something is one image, not several.

    >>> is_single("face.png"), is_single(["a.png", "b.png"]), is_single(np.zeros((2, 8, 8, 3)))
    (True, False, False)
    """
    if isinstance(given, (list, tuple)):
        return False
    return not hasattr(given, "shape") or len(given.shape) < 4


def as_images(given: Any, what: str, size: int | None = None) -> list[NDArray[np.uint8]]:
    """Return one image or several as uint8 RGB [H, W, 3], floats rounded as when an image is saved.

    Args:
        given: see the module.
        what: it is, for messages.
        size: files are resized to this square (bicubic), as the pipelines do; None: read as they are.

    Raises:
        ImageError: anything else, values of another range, or a file that cannot be read.

    >>> as_images(np.full((1, 2, 2, 3), 0.5), "output")[0][0, 0].tolist()
    [128, 128, 128]
    """
    if is_single(given):
        return [as_image(given, what, size)]
    return [as_image(item, what, size) for item in given]


def as_square(image: NDArray[np.uint8], size: int, what: str) -> NDArray[np.uint8]:
    """Return a square image uint8 RGB [H, H, 3] in this size (bicubic).

    Raises:
        ImageError: it is not square.
    """
    check_square(image.shape[1], image.shape[0], what)
    return resize(image, size)


def as_image(given: Any, what: str, size: int | None = None) -> NDArray[np.uint8]:
    """Return one image as uint8 RGB [H, W, 3]; see `as_images`."""
    if isinstance(given, (str, Path)):
        image = read_rgb(given)
        return image if size is None else as_square(image, size, str(given))
    image = _from_tensor(given, what) if _is_tensor(given) else np.asarray(given)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(
            f"{what}: {type(given).__name__} of shape {list(np.shape(given))}, expected RGB: a tensor [3, H, W], an "
            "array [H, W, 3], a PIL image in mode RGB, or a path"
        )
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    check_floats(image, what)
    made: NDArray[np.uint8] = to_uint8(_tensor(image)[None])[0]
    return made


def check_floats(image: NDArray[Any], what: str) -> None:
    """Refuse values that are no floats in 0..1.

    Raises:
        ImageError: NaN, infinity, whole numbers other than uint8, or another range.
    """
    if image.dtype.kind != "f":
        raise ImageError(f"{what}: values of type {image.dtype}, expected uint8 in 0..255 or float in 0..1")
    if not np.isfinite(image).all():
        raise ImageError(f"{what}: NaN or infinite values, expected 0..1")
    low, high = float(image.min()), float(image.max())
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise ImageError(f"{what}: values from {low:.3g} to {high:.3g}, expected float in 0..1, or uint8 in 0..255")


def as_floats(given: Any, what: str, size: int | None = None) -> torch.Tensor:
    """Return one image or several as float32 [B, 3, H, W] in 0..1, floats kept as they are.

    Raises:
        ImageError: see `as_images`, or images of different sizes.
    """
    import torch

    items = [given] if is_single(given) else list(given)
    found = [_float(item, what, size) for item in items]
    if len({tuple(one.shape) for one in found}) > 1:
        raise ImageError(f"{what}: images of different sizes in one call; expected one size")
    return torch.stack(found) if found else torch.zeros((0, 3, size or 1, size or 1))


def _float(given: Any, what: str, size: int | None) -> torch.Tensor:
    import torch

    if _is_tensor(given) and given.dtype.is_floating_point:
        as_image(given, what)  # refuses another shape or range
        return torch.as_tensor(given.detach().cpu().to(torch.float32))
    if isinstance(given, np.ndarray) and given.dtype.kind == "f":
        as_image(given, what)
        return _tensor(given)
    return to_tensor([as_image(given, what, size)])[0]


def _tensor(image: NDArray[Any]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), np.float32))


def as_given(images: torch.Tensor, given: Any, rule: str = "round") -> Any:
    """Return images in the form of what was given: tensors as float32, everything else as uint8 arrays.

    Args:
        images: float32 [B, 3, H, W] in 0..1.
        given: the input that they were made from.
        rule: from 0..1 to 8 bit, see `ffhqref.core.images.to_uint8`.
    """
    tensors = _is_tensor(given) or (isinstance(given, (list, tuple)) and bool(given) and _is_tensor(given[0]))
    made = images.clamp(0, 1) if tensors else to_uint8(images, rule)
    return made[0] if is_single(given) else made


def _is_tensor(given: Any) -> bool:
    return type(given).__module__.partition(".")[0] == "torch"


def _from_tensor(given: Any, what: str) -> NDArray[Any]:
    if given.ndim != 3 or given.shape[0] != 3:
        raise ImageError(f"{what}: tensor of shape {list(given.shape)}, expected [3, H, W] or [B, 3, H, W]")
    array = given.detach().cpu()
    if given.dtype.is_floating_point:
        array = array.float()
    return np.asarray(array.numpy().transpose(1, 2, 0))
