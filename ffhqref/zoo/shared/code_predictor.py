"""The Transformer that CodeFormer and DAEFR predict codes with, of spandrel-extra-arches' layers."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from ffhqref.core.compat import ensure_torchvision


class CodePredictor(nn.Module):
    """Base of networks that predict the codes of an auto-encoder, with random weights.

    Args:
        embed_dim: width of the map that codes are predicted from.
        dim_embd: width of the Transformer.
        n_head: its heads.
        n_layers: its layers.
        tokens: pixels of the map.
        codes: number of codes.
    """

    def __init__(self, embed_dim: int, dim_embd: int, n_head: int, n_layers: int, tokens: int, codes: int) -> None:
        super().__init__()
        layer = code_blocks().TransformerSALayer
        self.position_emb = nn.Parameter(torch.zeros(tokens, dim_embd))
        self.feat_emb = nn.Linear(embed_dim, dim_embd)
        self.ft_layers = nn.Sequential(*(layer(dim_embd, n_head, 2 * dim_embd) for _ in range(n_layers)))
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(dim_embd), nn.Linear(dim_embd, codes, bias=False))

    def logits(self, latent: torch.Tensor) -> torch.Tensor:
        """Return [B, tokens, codes] from the encoder's map [B, C, h, w]; tokens run row by row."""
        tokens = self.feat_emb(latent.flatten(2).permute(2, 0, 1))
        places = self.position_emb.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        for layer in self.ft_layers:
            tokens = layer(tokens, query_pos=places)
        result: torch.Tensor = self.idx_pred_layer(tokens).permute(1, 0, 2)
        return result


def code_blocks() -> Any:
    """Return the module that the package's CodeFormer class stands in, with the blocks beside it."""
    ensure_torchvision()
    package = importlib.import_module("spandrel_extra_arches.architectures.CodeFormer")
    return importlib.import_module(package.CodeFormer.__module__)
