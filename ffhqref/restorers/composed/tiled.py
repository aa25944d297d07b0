"""The restorer `tiled`: another applied to overlapping tiles, for images that memory does not take whole."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.seeding import case_seed
from ffhqref.restorers.base import PartialResult, RestorationBatch, RestorerInfo
from ffhqref.restorers.composed.parts import Composed, make_part, result, run_part

if TYPE_CHECKING:
    import torch


class Tiled(Composed):
    """A restorer applied to tiles, which are blended linearly where they overlap.

    Each tile gets all references, and a seed of its own. A restorer of whole faces sees only parts of one in a tile:
    this is for restorers that look at the neighbourhood of a pixel.

    Args:
        of: the restorer: its name, or options with ``name``.
        size: side of a tile in pixels; None: the whole image at once.
        overlap: of neighbouring tiles in pixels, less than ``size``; at the last tile of a row it may be more.
        device: handed to the restorer.
        batch_size: see `Composed`.

    Raises:
        ConfigError: wrong numbers, or a restorer that takes images of another size.
    """

    info = RestorerInfo(
        name="tiled", summary="a restorer on overlapping tiles", max_references=None, input_size=None,
        licence="that of its parts", verified_against="pointwise restorers, unchanged by tiling",
    )  # fmt: skip
    """Of the kind; an instance's own follows from its parts."""

    def __init__(
        self, of: Any = None, size: int | None = None, overlap: int = 32, device: str = "cpu",
        batch_size: int | None = None,
    ) -> None:  # fmt: skip
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (size or 1, overlap))
        if not whole or (size is not None and not 0 <= overlap < size):
            raise ConfigError(f"tiled: size={size} overlap={overlap}, expected whole numbers, 0 <= overlap < size")
        part = make_part(of, "of", device)
        if size is not None and part.info.input_size not in (None, size):
            raise ConfigError(f"tiled: '{part.name}' takes images of {part.info.input_size} pixels, not {size}")
        self.size, self.overlap = size, overlap
        summary = part.name if size is None else f"{part.name} on tiles of {size} pixels"
        facts: dict[str, Any] = {} if size is None else {"input_size": None}
        super().__init__(
            [part], {"size": size, "overlap": overlap}, name="tiled", summary=summary, facts=facts,
            batch_size=batch_size,
        )  # fmt: skip

    def restore(self, batch: RestorationBatch) -> torch.Tensor | PartialResult:
        """Return float32 [B, 3, H, W] in 0..1; a case fails where one of its tiles does."""
        import torch

        if self.size is None:
            return result(*run_part(self.parts[0], batch))
        height, width = batch.lq.shape[-2:]
        total, weight = torch.zeros_like(batch.lq, device="cpu"), torch.zeros(height, width)
        reasons: dict[int, str] = {}
        corners = [(top, left) for top in starts(height, self.size, self.overlap)
                   for left in starts(width, self.size, self.overlap)]  # fmt: skip
        for number, (top, left) in enumerate(corners):
            rows, columns = slice(top, top + self.size), slice(left, left + self.size)
            seeds = batch.seeds if number == 0 else [case_seed(seed, "tile", number) for seed in batch.seeds]
            tile = dataclasses.replace(batch, lq=batch.lq[..., rows, columns].contiguous(), seeds=seeds)
            made, failed = run_part(self.parts[0], tile)
            share = torch.outer(*(_ramp(side, self.overlap) for side in made.shape[-2:]))
            total[..., rows, columns] += made * share
            weight[rows, columns] += share
            reasons |= {index: f"tile {number + 1} of {len(corners)}: {why}" for index, why in failed.items()}
        return result(total / weight, reasons)


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Return where tiles begin that cover a length, each inside it, neighbours overlapping by at least ``overlap``.

    >>> starts(512, 256, 32), starts(100, 256, 32)
    ([0, 224, 256], [0])
    """
    last = max(0, length - size)
    return [*range(0, last, size - overlap), last]


def _ramp(length: int, overlap: int) -> torch.Tensor:
    """Return the weight of each position of a tile: rising over the overlap, never 0."""
    import torch

    position = torch.arange(1, length + 1)
    return torch.minimum(position, position.flip(0)).clamp(max=overlap + 1) / (overlap + 1)
