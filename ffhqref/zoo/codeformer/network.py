"""The network of CodeFormer, put together from the blocks of spandrel-extra-arches.

That package's own class has the published auto-encoder's width and the colour transfer of codes built in; its blocks
take any. Layout and results are those of ``basicsr/archs/codeformer_arch.py`` (sczhou/CodeFormer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ffhqref.zoo.shared.code_predictor import CodePredictor, code_blocks

if TYPE_CHECKING:
    from ffhqref.zoo.codeformer.config import CodeFormerConfig


class CodeFormerNetwork(CodePredictor):
    """Encoder, code predictor and generator, with random weights.

    Args:
        config: the widths.
    """

    def __init__(self, config: CodeFormerConfig) -> None:
        super().__init__(
            config.emb_dim,
            config.dim_embd,
            config.n_head,
            config.n_layers,
            config.latent_size,
            config.codebook_size,
        )
        blocks = code_blocks()
        self.config = config
        widths = list(config.ch_mult)
        shared = (config.res_blocks, config.img_size, list(config.attn_resolutions))
        self.encoder = blocks.Encoder(3, config.nf, config.emb_dim, widths, *shared)
        self.quantize = blocks.VectorQuantizer(config.codebook_size, config.emb_dim, 0.25)
        self.generator = blocks.Generator(config.nf, widths, *shared, config.emb_dim)
        width = {str(side): config.nf * mult for side, mult in zip(config.sides, config.ch_mult, strict=True)}
        self.fuse_convs_dict = nn.ModuleDict(
            {side: blocks.Fuse_sft_block(width[side], width[side]) for side in config.connect_list}
        )
        step, levels = config.res_blocks + 1, len(config.sides)
        # a level's last residual block in the encoder, before it is halved; its first one in the generator, where
        # the level of attention has a further block for every residual one
        last = {step * (level + 1) - 1: str(side) for level, side in enumerate(config.sides[:-1])}
        first = {
            step * (levels - 1 - level) + config.res_blocks + 4: str(side)
            for level, side in enumerate(config.sides[:-1])
        }
        self._kept = {index: side for index, side in last.items() if side in config.connect_list}
        self._fused = {index: side for index, side in first.items() if side in config.connect_list}

    def forward(
        self, faces: torch.Tensor, fidelity_weight: float = 0.5, adain: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return restored faces and the logits of the codes.

        Args:
            faces: float32 [B, 3, S, S] in −1..1.
            fidelity_weight: how much of the encoder's maps is fused in; 0: nothing.
            adain: whether the codes take on mean and spread of the encoder's map, channel by channel.

        Returns:
            [B, 3, S, S], about −1..1, and [B, tokens, codes].
        """
        kept: dict[str, torch.Tensor] = {}
        x = faces
        for index, block in enumerate(self.encoder.blocks):
            x = block(x)
            if index in self._kept:
                kept[self._kept[index]] = x
        latent = x
        logits = self.logits(latent)
        indices = logits.softmax(dim=2).argmax(dim=2)
        x = self.quantize.embedding(indices).transpose(1, 2).reshape(latent.shape)
        if adain:
            x = _coloured_like(x, latent)
        for index, block in enumerate(self.generator.blocks):
            x = block(x)
            if fidelity_weight > 0 and index in self._fused:
                side = self._fused[index]
                x = self.fuse_convs_dict[side](kept[side], x, fidelity_weight)
        return x, logits


def _coloured_like(codes: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """Return codes with mean and spread of the latent (both [B, C, h, w]), channel by channel."""

    def moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = values.flatten(2)
        return pixels.mean(dim=2)[..., None, None], (pixels.var(dim=2) + 1e-5).sqrt()[..., None, None]

    (own_mean, own_spread), (mean, spread) = moments(codes), moments(latent)
    return (codes - own_mean) / own_spread * spread + mean
