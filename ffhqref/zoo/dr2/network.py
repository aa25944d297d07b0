"""SPARNetHD, DR2's enhancer: an encoder and decoder whose residual blocks are masked by small hourglasses.

Chen et al., "Learning Spatial Attention for Face Super-Resolution" (2020). Names as in the published checkpoint,
where the spectral normalisation of its convolutions has been folded into their weights (`folded`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.core.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from ffhqref.weights.files import Weights
    from ffhqref.zoo.dr2.config import SPARNetConfig

Scale = Literal["down", "up"] | None


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class _Norm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.norm(x))


class _Conv(nn.Module):
    """Enlarge, convolve with mirrored edges, normalise; the activation is the caller's."""

    def __init__(self, channels: int, width: int, scale: Scale = None, norm: bool = True) -> None:
        super().__init__()
        self.scale = scale
        self.conv2d = nn.Conv2d(channels, width, 3, stride=2 if scale == "down" else 1, bias=not norm)
        self.norm = _Norm(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.scale == "up":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return cast("Tensor", self.norm(self.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"))))


class _Hourglass(nn.Module):
    """The image's features times a map of one channel in 0..1, made at several scales."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for level in range(depth, 0, -1):
            before = channels if level == depth else width
            setattr(self, f"b1_{level}", _Conv(before, width))
            setattr(self, f"b2_{level}", _Conv(before, width, "down"))
        self.b2_plus_1 = _Conv(width, width)
        for level in range(1, depth + 1):
            setattr(self, f"b3_{level}", _Conv(width, width, "up"))
        self.out_block = nn.Sequential(_Conv(width, 1, norm=False))

    def _level(self, level: int, x: Tensor) -> Tensor:
        beside = _leaky(getattr(self, f"b1_{level}")(x))
        low = _leaky(getattr(self, f"b2_{level}")(x))
        low = _leaky(self.b2_plus_1(low)) if level == 1 else self._level(level - 1, low)
        up = _leaky(getattr(self, f"b3_{level}")(low))
        if up.shape[2:] != beside.shape[2:]:
            up = F.interpolate(up, size=beside.shape[2:], mode="nearest")
        return beside + up

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.out_block(self._level(self.depth, x)))


class _Block(nn.Module):
    def __init__(self, config: SPARNetConfig, channels: int, width: int, depth: int, scale: Scale = None) -> None:
        super().__init__()
        same = scale is None and channels == width
        self.shortcut_func = nn.Identity() if same else _Conv(channels, width, scale, norm=False)
        self.preact_func = nn.Sequential(_Norm(channels))
        self.conv1 = _Conv(channels, width, "up" if scale == "up" else None)
        self.conv2 = _Conv(width, width, "down" if scale == "down" else None)
        self.att_func = _Hourglass(width, config.hourglass_mid, depth)

    def forward(self, x: Tensor) -> Tensor:
        h = _leaky(self.conv1(_leaky(self.preact_func(x))))
        return cast("Tensor", self.shortcut_func(x) + self.att_func(self.conv2(h)))


class SPARNetHD(nn.Module):
    """Enhanced images [B, 3, S, S], −1..1 but not clamped, from images [B, 3, S, S] in −1..1."""

    def __init__(self, config: SPARNetConfig) -> None:
        super().__init__()
        steps, clip = config.steps, config.width
        width = clip(config.max_ch // (steps + 1))
        depth = config.depth
        encoder: list[nn.Module] = [_Conv(3, width, norm=False)]
        for _ in range(steps):
            encoder.append(_Block(config, clip(width), clip(2 * width), depth, "down"))
            width, depth = 2 * width, depth - 1
        depth += 1
        self.encoder = nn.Sequential(*encoder)
        self.res_layers = nn.Sequential(
            *(_Block(config, clip(width), clip(width), depth) for _ in range(config.res_depth + 3 - steps))
        )
        decoder: list[nn.Module] = []
        for _ in range(steps):
            depth += 1
            decoder.append(_Block(config, clip(width), clip(width // 2), depth, "up"))
            width //= 2
        self.decoder = nn.Sequential(*decoder)
        self.out_conv = _Conv(clip(width), 3, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the enhanced images."""
        return cast("Tensor", self.out_conv(self.decoder(self.res_layers(self.encoder(x)))))


def folded(tensors: Mapping[str, Tensor], path: Weights | str | Path) -> dict[str, Tensor]:
    """Return published tensors with each weight divided by its spectral norm, as stored (no further iteration).

    Args:
        tensors: with ``weight_orig``, ``weight_u`` and ``weight_v`` in place of the weights of convolutions.
        path: their file, for messages.

    Raises:
        WeightsError: one of the three is missing, or of another shape than the others need.
    """
    plain = {name: value for name, value in tensors.items() if not name.endswith(("weight_u", "weight_v"))}
    for name in [name for name in plain if name.endswith("weight_orig")]:
        stem = name.removesuffix("_orig")
        weight = plain.pop(name)
        matrix = weight.flatten(1)
        u, v = (tensors.get(f"{stem}_{part}") for part in "uv")
        if u is None or v is None or (len(u), len(v)) != tuple(matrix.shape):
            raise WeightsError(f"{path} does not fit SPARNetHD: {stem}_u and {stem}_v do not belong to {name}")
        plain[stem] = weight / torch.dot(u, torch.mv(matrix, v))
    return plain
