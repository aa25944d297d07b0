"""The network of DMDNet (Li et al., TPAMI 2022, arXiv 2210.08160), in the published file's layout.

It works on one image at a time, since every image has boxes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.zoo.dmdnet.blocks import KeyValue, Mask, MultiDilation, Query, UpBlock, read_memory
from ffhqref.zoo.dmdnet.boxes import PARTS
from ffhqref.zoo.shared.spectral import Residual, SpectralConv, pair, with_statistics_of

if TYPE_CHECKING:
    from ffhqref.zoo.dmdnet.config import DMDNetConfig

Boxes = Mapping[str, tuple[int, ...]]

SCALES = (256, 128, 64)
"""Sides of the encoder's maps in an image of 512, by which the file names them."""

_SIDES = {"LE": (40, 20, 10), "RE": (40, 20, 10), "MO": (55, 27, 13)}
_NAMES = [(part, scale) for part in PARTS for scale in SCALES]


class Encoder(nn.Module):
    """Image to maps at three scales, and the queries of its parts."""

    def __init__(self, config: DMDNetConfig) -> None:
        super().__init__()
        first, second, third = (config.channels(scale) for scale in SCALES)
        self.conv1, self.res1 = pair(3, first, stride=2), Residual(first, "Res", (5, 3))
        self.conv2, self.res2 = pair(first, first), Residual(first, "Res", (5, 3))
        self.conv3, self.res3 = pair(first, second, stride=2), Residual(second, "Res", (3, 1))
        self.conv4, self.res4 = pair(second, second), Residual(second, "Res", (3, 1))
        self.conv5, self.res5 = pair(second, third, stride=2), Residual(third, "Res")
        self.conv6, self.res6 = pair(third, third), Residual(third, "Res")
        for part, scale in _NAMES:
            self.add_module(f"{part}_{scale}_Q", Query(config.channels(scale)))

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Return the maps by scale: a half, a quarter and an eighth of the sides."""
        fine = self.res2(self.conv2(self.res1(self.conv1(x))))
        middle = self.res4(self.conv4(self.res3(self.conv3(fine))))
        coarse = self.res6(self.conv6(self.res5(self.conv5(middle))))
        return dict(zip(SCALES, (fine, middle, coarse), strict=True))


class DMDNet(nn.Module):
    """Encoder, memories and decoder.

    Args:
        config: the architecture.
    """

    def __init__(self, config: DMDNetConfig) -> None:
        super().__init__()
        self.E_lq, self.E_hq = Encoder(config), Encoder(config)
        for part, scale in _NAMES:
            channels, side = config.channels(scale), _SIDES[part][SCALES.index(scale)]
            self.add_module(f"{part}_{scale}_KV", KeyValue(channels))
            self.add_module(f"{part}_{scale}_Attention", pair(channels, channels))
            self.add_module(f"{part}_{scale}_Mask", Mask(channels))
            name = f"{part.lower()}_{scale}_mem"
            self.register_buffer(f"{name}_key", torch.randn(config.banks_num, channels // 4, side, side))
            self.register_buffer(f"{name}_value", torch.randn(config.banks_num, channels, side, side))
        first, second, third = (config.channels(scale) for scale in SCALES)
        self.MSDilate = MultiDilation(third)
        self.up1, self.up2, self.up3 = UpBlock(third, second), UpBlock(second, first), UpBlock(first, first)
        self.up4 = nn.Sequential(
            SpectralConv(first, first),
            nn.LeakyReLU(0.2),
            Residual(first, "Model"),
            Residual(first, "Model"),
            SpectralConv(first, 3),
            nn.Tanh(),
        )

    def forward(self, lq: Tensor, boxes: Boxes, references: Sequence[tuple[Tensor, Boxes]] = ()) -> Tensor:
        """Return [1, 3, H, W] in −1..1.

        Args:
            lq: RGB [1, 3, H, W] in −1..1, sides divisible by 8.
            boxes: of its parts, in pixels.
            references: images like ``lq`` with their boxes; none: the generic result.
        """
        maps = self.E_lq(lq)
        specific = self.specific_memory(references) if references else {}
        pasted = {scale: feature.clone() for scale, feature in maps.items()}
        for part, scale in _NAMES:
            left, top, right, bottom = _scaled(boxes[part], scale)
            own = _cut(maps[scale], boxes, part, scale)
            made = self.restored_part(own, part, scale, specific)
            size = (bottom - top, right - left)
            pasted[scale][:, :, top:bottom, left:right] = _resize(made, size)
        x = self.up1(self.MSDilate(maps[64]), pasted[64])
        found: Tensor = self.up4(self.up3(self.up2(x, pasted[128]), pasted[256]))
        return found

    def specific_memory(self, references: Sequence[tuple[Tensor, Boxes]]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return keys and values [N, …] by part and scale (``LE_256``), one slot for each reference."""
        slots: dict[str, list[tuple[Tensor, Tensor]]] = {f"{part}_{scale}": [] for part, scale in _NAMES}
        for picture, boxes in references:
            maps = self.E_hq(picture)
            for part, scale in _NAMES:
                name = f"{part}_{scale}"
                slots[name].append(self.get_submodule(f"{name}_KV")(_cut(maps[scale], boxes, part, scale)))
        return {
            name: (torch.cat([k for k, _ in kept]), torch.cat([v for _, v in kept])) for name, kept in slots.items()
        }

    def restored_part(
        self, own: Tensor, part: str, scale: int, specific: Mapping[str, tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Return a part's feature [1, C, h, w] re-written from the memories."""
        name = f"{part}_{scale}"
        query = self.E_lq.get_submodule(f"{name}_Q")(own)
        memory = f"{part.lower()}_{scale}_mem"
        read = read_memory(query, self.get_buffer(f"{memory}_key"), self.get_buffer(f"{memory}_value"))
        if specific:
            closer = read_memory(query, *specific[name])
            mask = self.get_submodule(f"{name}_Mask")(own, closer, read)
            read = mask * closer + (1 - mask) * read
        normed = with_statistics_of(read, own)
        made: Tensor = self.get_submodule(f"{name}_Attention")(normed - own) * normed + own
        return made


def _scaled(box: tuple[int, ...], scale: int) -> tuple[int, int, int, int]:
    """Return a box of the image in pixels of the map of that scale."""
    left, top, right, bottom = (value // (512 // scale) for value in box)
    return left, top, right, bottom


def _cut(feature: Tensor, boxes: Boxes, part: str, scale: int) -> Tensor:
    left, top, right, bottom = _scaled(boxes[part], scale)
    side = _SIDES[part][SCALES.index(scale)]
    return _resize(feature[:, :, top:bottom, left:right], (side, side))


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
