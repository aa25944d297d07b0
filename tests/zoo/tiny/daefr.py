"""Random weights of a narrow DAEFR of 64 pixels in the published layout, groups of training included."""

from importlib.util import find_spec

import pytest
import torch

from ffhqref.zoo.daefr.config import DAEFRConfig
from ffhqref.zoo.daefr.network import DAEFR
from ffhqref.zoo.shared.architecture import read_architecture

CONFIG = {
    "resolution": 64, "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "n_embed": 64, "embed_dim": 32,
    "z_channels": 16, "cross_heads": 4, "dim_embd": 32, "n_head": 4, "n_layers": 2,
}  # fmt: skip


def options(folder):
    if not find_spec("spandrel_extra_arches"):
        pytest.skip("no spandrel_extra_arches here")
    config = read_architecture(DAEFRConfig, CONFIG)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = DAEFR(config).state_dict()
    state["vqvae.HQ_quantize.embedding.weight"] = torch.ones(config.n_embed, config.embed_dim)
    torch.save({"state_dict": state, "epoch": 3}, folder / "daefr.ckpt")
    return {"path": folder / "daefr.ckpt", "config": CONFIG}
