"""PMRF's tiled attention against the same attention under a dense mask, and what the restorer says of images."""

import pytest
import torch
from torch.nn import functional as F

from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.pmrf.config import PMRFConfig
from ffhqref.zoo.pmrf.neighbourhood import attend

from .conftest import tiny


def dense(q, k, v, kernel):
    """Attention to all tokens, those outside the shifted square of each query masked out."""
    height, width = q.shape[1:3]

    def seen(length):
        start = (torch.arange(length) - kernel // 2).clamp(0, length - kernel)[:, None]
        key = torch.arange(length)
        return (key >= start) & (key < start + kernel)

    rows, columns = seen(height), seen(width)
    mask = (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1).flatten(1, 2)
    flat = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(*flat, attn_mask=mask, scale=1.0).transpose(1, 2).reshape(q.shape)


@pytest.mark.parametrize(
    ("height", "width", "kernel"), [(16, 24, 7), (7, 8, 7), (9, 14, 5), (11, 20, 3), (8, 40, 7), (13, 7, 7)]
)
def test_tiles_equal_a_dense_mask(height, width, kernel):
    q, k, v = torch.randn((3, 2, height, width, 2, 8), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attend(q, k, v, kernel), dense(q, k, v, kernel), rtol=0, atol=2e-6)


def test_sides_that_the_networks_do_not_take(tmp_path):
    restorer = make_restorer("pmrf", device="cpu", **tiny("pmrf").options(tmp_path))
    with pytest.raises(ImageError, match=r"multiples of 64, not 96x64"):
        restorer.restore(RestorationBatch(torch.zeros(1, 3, 64, 96), [torch.zeros(0, 3, 8, 8)], [1]))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hdit": {"self_attns": [{"type": "shifted-window"}] * 3}}, "shifted-window"),
        ({"hdit": {"widths": [64, 96]}}, "one entry for each level"),
        ({"hdit": {"width": [64]}}, "widths"),
        ({"swinir": {"sf": 4}}, "unshuffle_scale"),
        ({"flow": {}}, "unknown entry 'flow'"),
    ],
)
def test_another_architecture_is_told(config, words):
    with pytest.raises(ConfigError, match=words):
        PMRFConfig.load(config)
