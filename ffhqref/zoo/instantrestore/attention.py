"""Self-attention of the U-Nets' up blocks: one records its keys and values, the other attends to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor, nn

EPSILON = 1e-5
"""Added to both standard deviations of AdaIN."""


KeysValues = dict[int, tuple["Tensor", "Tensor"]]
"""Keys and values of references by layer, [B · n, tokens, C] before the split into heads, image by image."""


class Recording:
    """Ordinary self-attention that keeps its keys and values.

    Args:
        kept: where.
        layer: index there.
    """

    def __init__(self, kept: KeysValues, layer: int) -> None:
        self._kept = kept
        self._layer = layer

    def __call__(self, attn: Any, hidden_states: Tensor, **_unused: Any) -> Tensor:
        """Return the output of a diffusers ``Attention``."""
        key, value = attn.to_k(hidden_states), attn.to_v(hidden_states)
        self._kept[self._layer] = key, value
        return _attend(attn, attn.to_q(hidden_states), key, value)


class Shared:
    """Self-attention that looks at the references.

    Args:
        given: keys and values of the references.
        layer: index there.
        adain: give the references' values the mean and deviation of the image's own.
        own: look at the image's own keys and values too. Without it its values serve `adain` alone.
    """

    def __init__(self, given: KeysValues, layer: int, *, adain: bool, own: bool) -> None:
        self._given = given
        self._layer = layer
        self._adain = adain
        self._own = own

    def __call__(self, attn: Any, hidden_states: Tensor, **_unused: Any) -> Tensor:
        """Return the output of a diffusers ``Attention``."""
        keys, values = (item.unflatten(0, (len(hidden_states), -1)) for item in self._given[self._layer])
        if self._adain:
            values = adapted(values, attn.to_v(hidden_states)[:, None])
        key, value = keys.flatten(1, 2), values.flatten(1, 2)
        if self._own:
            key = torch.cat([attn.to_k(hidden_states), key], dim=1)
            value = torch.cat([attn.to_v(hidden_states), value], dim=1)
        return _attend(attn, attn.to_q(hidden_states), key, value)


def adapted(values: Tensor, like: Tensor) -> Tensor:
    """Return values [..., tokens, C] with the mean and the unbiased standard deviation over tokens of others."""
    mean, deviation = values.mean(-2, keepdim=True), values.std(-2, keepdim=True) + EPSILON
    wanted_mean, wanted = like.mean(-2, keepdim=True), like.std(-2, keepdim=True) + EPSILON
    return (values - mean) / deviation * wanted + wanted_mean


def shared_layers(unet: nn.Module) -> list[Any]:
    """Return the self-attentions of a U-Net's up blocks, in network order."""
    return [layer for name, layer in unet.named_modules() if name.startswith("up_blocks.") and name.endswith(".attn1")]


def _attend(attn: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (tensor.unflatten(2, (attn.heads, -1)).transpose(1, 2) for tensor in (query, key, value))
    made = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    out: Tensor = attn.to_out[0](made.to(query.dtype))
    return out
