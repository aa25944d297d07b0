"""Keys and values of references (CacheKV) as explicit objects, and the attention that uses them.

The published code keeps them in a module-level dictionary and needs one number of references in a batch
(ldm/cache_kv.py). Here the U-Net is told, for one call, how to attend: over itself alone, over itself while
writing keys and values down, or over itself and the references of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Attend(Protocol):
    """How the attention layers of one U-Net call work. ``layer`` counts them in the order they run."""

    rows: int | None
    """Rows that attention works on, when that is more than the U-Net was given: the branches of guidance are the
    same up to the first attention layer, so they part only there. None: as many as were given."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attended values, [rows, heads, tokens, channels of a head], as are q, k and v."""
        ...


class SelfOnly:
    """Attention over the image's own tokens."""

    rows: int | None = None

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
        """Return plain self-attention."""
        return F.scaled_dot_product_attention(q, k, v)


@dataclass
class Recorder(SelfOnly):
    """Self-attention that also writes the keys and values of each layer down."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return plain self-attention."""
        self.keys.append(k)
        self.values.append(v)
        return super().__call__(layer, q, k, v)


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of every attention layer, each [rows, heads, tokens, channels of a head]."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Return the memory held, in bytes."""
        return sum(item.nbytes for item in (*self.keys, *self.values))

    def merged(self, references: int) -> KeysValues:
        """Return rows of R·N references as R rows with the tokens of N references joined."""

        def join(item: Tensor) -> Tensor:
            rows, heads, length, channels = item.shape
            parted = item.reshape(rows // references, references, heads, length, channels)
            return parted.transpose(1, 2).reshape(rows // references, heads, references * length, channels)

        return KeysValues(tuple(map(join, self.keys)), tuple(map(join, self.values)))

    @staticmethod
    def stacked(parts: Sequence[KeysValues]) -> KeysValues:
        """Return the rows of all parts, one below the other; their token counts must be equal."""
        if len(parts) == 1:
            return parts[0]
        layers = range(len(parts[0].keys))
        return KeysValues(
            tuple(torch.cat([part.keys[layer] for part in parts]) for layer in layers),
            tuple(torch.cat([part.values[layer] for part in parts]) for layer in layers),
        )


@dataclass(frozen=True)
class RowGroup:
    """Neighbouring rows of a batch that attend to the same number of reference tokens.

    Attributes:
        start, stop: the rows.
        given: their keys and values, for one row (shared by all of them) or for each; None: no references.
        copies: how often each of the given tokens counts, [rows]; None: once. N equal references weigh the same
            as one whose attention logits are raised by log N, which is how the N null references of guidance are
            attended to without being multiplied.
    """

    start: int
    stop: int
    given: KeysValues | None
    copies: Tensor | None = None


class WithReferences:
    """Attention over each row's own tokens and those of its references."""

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        self.groups = tuple(groups)
        self.rows: int | None = groups[-1].stop

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return attention group by group, so that no row waits on padding."""
        parts = [
            self._attend(
                group, layer, q[group.start : group.stop], k[group.start : group.stop], v[group.start : group.stop]
            )
            for group in self.groups
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    def _attend(group: RowGroup, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if group.given is None:
            return F.scaled_dot_product_attention(q, k, v)
        keys, values = group.given.keys[layer], group.given.values[layer]
        bias = None
        if group.copies is not None:
            bias = q.new_zeros(q.shape[0], 1, 1, keys.shape[2] + k.shape[2])
            bias[..., : keys.shape[2]] = group.copies.log().to(q.dtype).view(-1, 1, 1, 1)
        shape = (q.shape[0], *keys.shape[1:])
        return F.scaled_dot_product_attention(
            q, torch.cat([keys.expand(shape), k], dim=2), torch.cat([values.expand(shape), v], dim=2), attn_mask=bias
        )
