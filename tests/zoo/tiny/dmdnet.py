"""Random weights of a narrow DMDNet in the published layout, and landmarks where an aligned face has them."""

import numpy as np
import torch

from ffhqref.zoo.dmdnet.config import DMDNetConfig
from ffhqref.zoo.dmdnet.network import DMDNet

CONFIG = {"ngf": 4, "banks_num": 4}


def landmarks(picture):
    """Ellipses for eyes and mouth, arcs for brows, on 512x512."""
    points = np.full((68, 2), 256.0)

    def ellipse(count, x, y, a, b):
        angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
        return np.stack([x + a * np.cos(angles), y + b * np.sin(angles)], axis=1)

    points[17:22], points[22:27] = ellipse(5, 190, 205, 40, 8), ellipse(5, 322, 205, 40, 8)
    points[36:42], points[42:48] = ellipse(6, 193, 240, 25, 8), ellipse(6, 319, 240, 25, 8)
    points[48:68] = ellipse(20, 257, 371, 55, 20)
    return points


def with_singular_values(state):
    """Return the weights with the vectors of their spectral norms."""
    for name, value in state.items():
        if name.endswith("weight_v"):  # a largest singular value of 1.2, or the references are hardly seen
            stem = name.removesuffix("_v")
            weight = state[f"{stem}_orig"].flatten(1)
            left, _, right = torch.linalg.svd(weight, full_matrices=False)
            state[f"{stem}_u"], state[name] = left[:, 0].contiguous(), right[0] / 1.2
            assert value.shape == state[name].shape
    return state


def options(folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = DMDNet(DMDNetConfig(**CONFIG)).state_dict()
    torch.save(with_singular_values(state), folder / "dmdnet.pth")
    return {"path": folder / "dmdnet.pth", "config": CONFIG, "landmarks": landmarks}
