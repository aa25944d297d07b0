"""Residual blocks of RestorerID: plain ones, and those that structure features and identity tokens modulate.

The names of the layers are those that diffusers gives to its own residual block, which the plain one is equal to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32
"""Groups of every normalisation."""
IDENTITY_HEADS = 8
"""Heads of the attention to identity tokens in `IdentityBalance`."""


@dataclass(frozen=True)
class Modulation:
    """Widths of what modulates a block."""

    feature: int
    """Channels of a structure feature."""
    context: int
    """Channels of an identity token."""
    hidden: int
    """Channels in between."""


class Conditions:
    """What the modulated blocks of one U-Net look at. The U-Net sets it before each call."""

    features: dict[int, Tensor]
    """Width in latent pixels to the structure feature of that width, [1, C, h, w]."""
    identity: Tensor
    """Identity tokens of each half, [B, n, C]."""


def norm(channels: int) -> nn.GroupNorm:
    """Return the group norm of the U-Net and of the structure encoder."""
    return nn.GroupNorm(GROUPS, channels, eps=1e-5)


def _conv(channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, padding=1)


class ResidualBlock(nn.Module):
    """Two convolutions; the time is added between them."""

    def __init__(self, channels: int, embedding: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.conv1 = _conv(channels, out_channels)
        self.time_emb_proj = nn.Linear(embedding, out_channels)
        self.norm2 = norm(out_channels)
        self.conv2 = _conv(out_channels, out_channels)
        self.conv_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def _branch(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(emb))[:, :, None, None]
        return cast("Tensor", self.conv2(F.silu(self.norm2(h))))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return [B, C', h, w] of [B, C, h, w] and the time embedding [B, E]."""
        return cast("Tensor", self.conv_shortcut(x)) + self._branch(x, emb)


class ModulatedBlock(ResidualBlock):
    """A residual block whose branch a structure feature modulates, and whose result the identity tokens shift."""

    def __init__(
        self,
        channels: int,
        embedding: int,
        out_channels: int,
        modulation: Modulation,
        conditions: Conditions,
    ) -> None:
        super().__init__(channels, embedding, out_channels)
        self.spade = Spade(out_channels, modulation)
        self.IDBalance = IdentityBalance(out_channels, modulation)
        self._conditions = conditions

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return [B, C', h, w] of [B, C, h, w] and the time embedding [B, E]."""
        given = self._conditions
        h = self._branch(x, emb)
        feature = given.features[h.shape[-1]]
        h = cast("Tensor", self.conv_shortcut(x)) + self.spade(h, feature)
        return cast("Tensor", h + self.IDBalance(h, feature, given.identity))


class Spade(nn.Module):
    """Scale and shift of the normed input, pixel by pixel, from a structure feature.

    The norm has weights, whatever its published name says.
    """

    def __init__(self, channels: int, modulation: Modulation) -> None:
        super().__init__()
        feature, hidden = modulation.feature, modulation.hidden
        self.param_free_norm = norm(channels)
        self.mlp_shared = nn.Sequential(_conv(feature, hidden), nn.ReLU())
        self.mlp_gamma = _conv(hidden, channels)
        self.mlp_beta = _conv(hidden, channels)

    def forward(self, h: Tensor, feature: Tensor) -> Tensor:
        """Return [B, C, h, w] of the same and a feature [1, F, h, w]."""
        a = self.mlp_shared(feature)
        return cast("Tensor", self.param_free_norm(h) * (1 + self.mlp_gamma(a)) + self.mlp_beta(a))


class IdentityBalance(Spade):
    """The same from a structure feature that has attended to the identity tokens; no 1 is added to the scale."""

    def __init__(self, channels: int, modulation: Modulation) -> None:
        super().__init__(channels, modulation)
        self.norm = nn.LayerNorm(modulation.feature)
        self.crossattn = _CrossAttention(modulation.feature, modulation.context)

    def forward(self, h: Tensor, feature: Tensor, identity: Tensor) -> Tensor:  # type: ignore[override]
        """Return [B, C, h, w] of the same, a feature [1, F, h, w] and identity tokens [B, n, C]."""
        pixels = feature.flatten(2).transpose(1, 2)
        pixels = pixels + self.crossattn(self.norm(pixels), identity)
        a = self.mlp_shared(pixels.transpose(1, 2).unflatten(2, feature.shape[2:]))
        return cast("Tensor", self.param_free_norm(h) * self.mlp_gamma(a) + self.mlp_beta(a))


class _CrossAttention(nn.Module):
    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context, channels, bias=False)
        self.to_v = nn.Linear(context, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = (
            layer(given).unflatten(2, (IDENTITY_HEADS, -1)).transpose(1, 2)
            for layer, given in ((self.to_q, pixels), (self.to_k, tokens), (self.to_v, tokens))
        )
        out = F.scaled_dot_product_attention(q.expand(len(tokens), -1, -1, -1), k, v)
        return cast("Tensor", self.to_out(out.transpose(1, 2).flatten(2)))
