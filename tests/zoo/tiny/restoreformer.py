"""Random weights of a RestoreFormer of 64 pixels in the published layout."""

from importlib.util import find_spec

import pytest
import torch

from ffhqref.zoo.restoreformer.config import RestoreFormerConfig
from ffhqref.zoo.restoreformer.network import build_network
from ffhqref.zoo.shared.architecture import read_architecture

CONFIG = {
    "resolution": 64, "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "n_embed": 64, "embed_dim": 16,
    "z_channels": 16,
}  # fmt: skip


def options(folder, kind=RestoreFormerConfig, config=None):
    config = CONFIG if config is None else config
    if not find_spec("spandrel"):
        pytest.skip("no spandrel here")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build_network(read_architecture(kind, config)).state_dict()
    path = folder / "restoreformer.ckpt"
    torch.save({"state_dict": {f"vqvae.{name}": value for name, value in state.items()}}, path)
    return {"path": path, "config": config}
