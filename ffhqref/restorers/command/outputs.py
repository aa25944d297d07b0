"""Finding what a foreign program wrote, and telling whether it is what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ImageError
from ffhqref.core.images import read_rgb
from ffhqref.restorers.command.program import ProgramError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.restorers.command.layout import Call
    from ffhqref.restorers.command.recipe import Recipe


def collect(recipe: Recipe, call: Call, sizes: Sequence[tuple[int, int]]) -> list[NDArray[np.uint8] | str]:
    """Return for each case its image, uint8 RGB [H, W, 3], or why there is none, one line.

    Args:
        recipe: says where outputs are.
        call: what the program was given.
        sizes: height and width that each output must have.

    Raises:
        ProgramError: there are outputs of cases that were not given, so that no name can be trusted.
    """
    found = [_matches(call.folder, recipe.output.format(id=name)) for name in call.names]
    if "{id}" in recipe.output:
        digits = "[0-9]" * len(call.names[0])
        foreign = {*_matches(call.folder, recipe.output.format(id=digits))} - {
            path for paths in found for path in paths
        }
        if foreign:
            first = min(foreign).relative_to(call.folder)
            raise ProgramError(f"wrote {first}, which belongs to no case it was given: its names cannot be trusted")
    made: list[NDArray[np.uint8] | str] = []
    for paths, name, size in zip(found, call.names, sizes, strict=True):
        try:
            made.append(_read(call.folder, paths, recipe.output.format(id=name), recipe.crop, size))
        except ImageError as error:
            made.append(str(error))
    return made


def _matches(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file() or path.is_symlink())


def _read(
    folder: Path, paths: list[Path], pattern: str, crop: tuple[int, int, int, int] | None, size: tuple[int, int]
) -> NDArray[np.uint8]:
    if not paths:
        raise ImageError(f"wrote no {pattern}")
    if len(paths) > 1:
        raise ImageError(f"wrote {len(paths)} files {pattern}, expected one")
    path = paths[0]
    name = path.relative_to(folder)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ImageError(f"wrote {name} as a link that leaves the folder of the call")
    try:
        picture = read_rgb(path)
    except ImageError as error:
        raise ImageError(f"wrote what cannot be used: {str(error).replace(str(folder) + '/', '')}") from None
    height, width = picture.shape[:2]
    if crop is not None:
        left, top, columns, rows = crop
        if left + columns > width or top + rows > height:
            raise ImageError(f"wrote {name} with {width}x{height} pixels, too few for the crop {list(crop)}")
        picture = np.ascontiguousarray(picture[top : top + rows, left : left + columns])
        height, width = rows, columns
    if (height, width) != size:
        raise ImageError(f"wrote {name} with {width}x{height} pixels, expected {size[1]}x{size[0]}")
    return picture
