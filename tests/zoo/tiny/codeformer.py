"""Random weights of a narrow CodeFormer of 64 pixels in the published layout."""

from importlib.util import find_spec

import pytest
import torch

from ffhqref.zoo.codeformer.config import CodeFormerConfig
from ffhqref.zoo.codeformer.network import CodeFormerNetwork
from ffhqref.zoo.shared.architecture import read_architecture

CONFIG = {
    "dim_embd": 32, "n_head": 4, "n_layers": 2, "codebook_size": 64, "connect_list": ["32"], "img_size": 64, "nf": 32,
    "ch_mult": [1, 1, 2], "res_blocks": 1, "emb_dim": 32,
}  # fmt: skip


def options(folder):
    if not find_spec("spandrel_extra_arches"):
        pytest.skip("no spandrel_extra_arches here")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = CodeFormerNetwork(read_architecture(CodeFormerConfig, CONFIG)).state_dict()
    torch.save({"params_ema": state}, folder / "codeformer.pth")
    return {"path": folder / "codeformer.pth", "config": CONFIG}
