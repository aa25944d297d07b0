"""The networks of RestoreFormer (spandrel's) and RestoreFormer++ (made of the same modules)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.restoreformer.config import RestoreFormerConfig


def build_network(config: RestoreFormerConfig) -> Any:
    """Return spandrel's ``RestoreFormer`` with random weights, its decoder exchanged where the config asks for it."""
    from ffhqref.core.compat import ensure_torchvision

    ensure_torchvision()
    from spandrel.architectures.RestoreFormer import RestoreFormer as Network

    options = dataclasses.asdict(config)
    del options["ex_multi_scale_num"]
    network: Any = Network(**options)
    if config.ex_multi_scale_num:
        for name in ("n_embed", "embed_dim"):
            del options[name]
        options["attn_resolutions"] = config.decoder_attention
        network.decoder = type(network.decoder)(out_ch=3, **options)
    return network


def run_network(network: Any, faces: torch.Tensor) -> torch.Tensor:
    """Return the output of `build_network`'s network, both float32 [B, 3, H, W] in −1..1.

    spandrel's decoder takes the queries of a level from ``block_<level>_atten``, which its encoder fills for the
    last level only. At a higher level RestoreFormer++ takes the encoder's map before the downsampling.
    """
    quantised, _, _, maps = network.encode(faces)
    levels = [name for name in maps if name.startswith("block_") and not name.endswith("_atten")]
    picture: torch.Tensor = network.decode(quantised, {**{f"{name}_atten": maps[name] for name in levels}, **maps})
    return picture
