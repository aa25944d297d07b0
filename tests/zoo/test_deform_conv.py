"""Deformable convolution in plain torch, against a loop, its special cases, and torchvision where that works."""

import math

import pytest
import torch
from torch.nn import functional as F

from ffhqref.zoo.shared import deform_conv
from ffhqref.zoo.shared.deform_conv import deform_conv2d, plain_deform_conv2d


def make(seed, batch=2, channels=4, out=3, side=(5, 6), groups=2, size=3, dtype=torch.float64, reach=2.0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype)

    taps = size * size
    return (
        draw(batch, channels, *side),
        draw(batch, 2 * groups * taps, *side) * reach,
        torch.rand(batch, groups * taps, *side, generator=g, dtype=dtype),
        draw(out, channels, size, size),
        draw(out),
    )


def by_hand(x, offset, mask, weight, bias):
    """One number after another."""
    batch, channels, height, width = x.shape
    out, _, size, _ = weight.shape
    taps, groups = size * size, mask.shape[1] // (size * size)
    made = torch.zeros(batch, out, height, width, dtype=x.dtype)

    def pixel(b, c, row, column):
        return float(x[b, c, row, column]) if 0 <= row < height and 0 <= column < width else 0.0

    for b in range(batch):
        for row in range(height):
            for column in range(width):
                total = bias.clone()
                for c in range(channels):
                    group = c // (channels // groups)
                    for tap in range(taps):
                        at = group * taps + tap
                        y = row + tap // size - size // 2 + float(offset[b, 2 * at, row, column])
                        z = column + tap % size - size // 2 + float(offset[b, 2 * at + 1, row, column])
                        y0, z0 = math.floor(y), math.floor(z)
                        value = sum(
                            pixel(b, c, y0 + i, z0 + j) * (1 - abs(y - y0 - i)) * (1 - abs(z - z0 - j))
                            for i in (0, 1)
                            for j in (0, 1)
                        )
                        total += weight[:, c, tap // size, tap % size] * value * mask[b, at, row, column]
                made[b, :, row, column] = total
    return made


@pytest.mark.parametrize(("seed", "reach"), [(0, 0.3), (1, 2.0), (2, 9.0)])
def test_equals_a_loop(seed, reach):
    given = make(seed, reach=reach)
    torch.testing.assert_close(plain_deform_conv2d(*given), by_hand(*given), rtol=0, atol=1e-12)


def test_without_offsets_it_is_a_convolution():
    x, offset, mask, weight, bias = make(3, channels=8, out=8, side=(20, 31), groups=4)
    made = plain_deform_conv2d(x, offset * 0, mask * 0 + 1, weight, bias)
    torch.testing.assert_close(made, F.conv2d(x, weight, bias, padding=1), rtol=0, atol=1e-12)


def test_whole_offsets_move_the_picture_and_zeros_come_in():
    x, offset, mask, weight, bias = make(4, channels=4, out=2, side=(9, 9), groups=1)
    shifted = torch.zeros_like(offset)
    shifted[:, 0::2], shifted[:, 1::2] = 2, -3
    moved = torch.zeros_like(x)
    moved[:, :, :-2, 3:] = x[:, :, 2:, :-3]
    # inside, where no kernel place looks at what the move cut off
    made = plain_deform_conv2d(x, shifted, mask * 0 + 1, weight, bias)[:, :, 1:-3, 4:-1]
    torch.testing.assert_close(made, F.conv2d(moved, weight, bias, padding=1)[:, :, 1:-3, 4:-1], rtol=0, atol=1e-12)


def test_rows_at_a_time_make_no_difference(monkeypatch):
    given = make(5, side=(16, 12))
    whole = plain_deform_conv2d(*given)
    monkeypatch.setattr(deform_conv, "_CHUNK", 2000)
    torch.testing.assert_close(plain_deform_conv2d(*given), whole, rtol=0, atol=1e-13)


def test_equals_torchvision_where_its_operator_works():
    operator = deform_conv._operator("cpu")
    if operator is None:
        pytest.skip("torchvision's compiled operators do not work on this machine")
    for seed, side, size in ((6, (64, 48), 3), (7, (33, 90), 3), (8, (40, 40), 5)):
        given = make(seed, channels=32, out=16, side=side, groups=4, size=size, dtype=torch.float32, reach=4.0)
        ours, theirs = plain_deform_conv2d(*given), deform_conv2d(*given)
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


def test_works_without_torchvision(monkeypatch):
    monkeypatch.setattr("ffhqref.core.compat.ensure_torchvision", lambda: "absent")
    deform_conv._operator.cache_clear()
    try:
        given = make(9)
        assert torch.equal(deform_conv2d(*given), plain_deform_conv2d(*given))
    finally:
        deform_conv._operator.cache_clear()
