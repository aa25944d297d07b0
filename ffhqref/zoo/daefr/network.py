"""The network of DAEFR (Tsai et al., ICLR 2024), of spandrel's RestoreFormer blocks and CodeFormer's Transformer.

Those blocks give the published code's tensors to the last bit under the same weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ffhqref.core.compat import ensure_torchvision
from ffhqref.zoo.shared.code_predictor import CodePredictor

if TYPE_CHECKING:
    from ffhqref.zoo.daefr.config import DAEFRConfig

AUTO_ENCODER = "vqvae."
"""Part of the names of the released file; the published loader takes files without it too."""

USED = ("encoder.", "HQ_encoder.", "decoder.", "quant_conv.", "HQ_quant_conv.", "post_quant_conv.", "Fixed_quantize.")
"""Groups of the auto-encoder that an image goes through."""

UNUSED = ("Fixed_encoder.", "Fixed_quant_conv.", "HQ_quantize.", "LQ_quantize.", "loss")
"""Groups of training, which need not be in a file."""


class AutoEncoder(nn.Module):
    """Two encoders of the same degraded face and a decoder of codes, under the published names.

    The encoder without a prefix is that of low quality, and the codebook in use is not ``HQ_quantize``.
    """

    def __init__(self, config: DAEFRConfig) -> None:
        super().__init__()
        blocks = _blocks()
        sizes: dict[str, Any] = {
            "ch": config.ch, "ch_mult": config.ch_mult, "num_res_blocks": config.num_res_blocks,
            "attn_resolutions": config.attn_resolutions, "resolution": config.resolution,
            "z_channels": config.z_channels, "head_size": config.head_size, "out_ch": 3,
        }  # fmt: skip
        self.encoder = blocks.MultiHeadEncoder(double_z=False, **sizes)
        self.HQ_encoder = blocks.MultiHeadEncoder(double_z=False, **sizes)
        self.decoder = blocks.MultiHeadDecoder(**sizes)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.HQ_quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)
        self.Fixed_quantize = nn.ModuleDict({"embedding": nn.Embedding(config.n_embed, config.embed_dim)})

    def codes(self, indices: torch.Tensor) -> torch.Tensor:
        """Return [B, tokens, embed_dim] of codes by their numbers [B, tokens]."""
        found: torch.Tensor = self.Fixed_quantize["embedding"](indices)
        return found


class DAEFR(CodePredictor):
    """Encoders, attention between them, code predictor and decoder, with random weights.

    Args:
        config: the widths.
    """

    def __init__(self, config: DAEFRConfig) -> None:
        super().__init__(
            config.embed_dim, config.dim_embd, config.n_head, config.n_layers, config.tokens, config.n_embed
        )
        self.vqvae = AutoEncoder(config)
        self.cross_attention = _blocks().MultiHeadAttnBlock(config.embed_dim, config.cross_heads)

    def forward(self, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return restored faces and the logits of the codes.

        Args:
            faces: float32 [B, 3, S, S] in −1..1.

        Returns:
            [B, 3, S, S], about −1..1, and [B, tokens, codes].
        """
        parts = self.vqvae
        low = parts.quant_conv(parts.encoder(faces)["out"])
        high = parts.HQ_quant_conv(parts.HQ_encoder(faces)["out"])
        joined = self.cross_attention(high, low)
        logits = self.logits(joined)
        codes = parts.codes(logits.softmax(dim=2).argmax(dim=2)).transpose(1, 2).reshape(joined.shape)
        codes = joined + (codes - joined)  # as published: the codes up to rounding
        restored: torch.Tensor = parts.decoder(parts.post_quant_conv(codes))
        return restored, logits


def used(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint under the names that `DAEFR` gives them, without those of training."""
    full = {name: AUTO_ENCODER + name if name.startswith((*USED, *UNUSED)) else name for name in tensors}
    skipped = tuple(AUTO_ENCODER + group for group in UNUSED)
    return {
        full[name]: value
        for name, value in tensors.items()
        if not full[name].startswith(skipped) and (full[name] == name or full[name] not in tensors)
    }


def _blocks() -> Any:
    """Return the module that spandrel's RestoreFormer class stands in, with the blocks beside it."""
    ensure_torchvision()
    package = importlib.import_module("spandrel.architectures.RestoreFormer")
    return importlib.import_module(package.RestoreFormer.__module__)
