"""Random weights of a narrow ASFFNet in the published layout, and landmarks that follow an image's brightness."""

import torch

from ffhqref.zoo.asffnet.config import ASFFNetConfig
from ffhqref.zoo.asffnet.network import ASFFNet
from ffhqref.zoo.shared.architecture import read_architecture

from .dmdnet import landmarks as still
from .dmdnet import with_singular_values

CONFIG = {"ngf": 2, "blocks": 1}


def landmarks(picture):
    """Those of DMDNet's tests, with a mouth that opens where the image is bright."""
    points = still(picture)
    points[48:68, 1] += (points[48:68, 1] - 371) * float(picture.mean()) / 256
    return points


def options(folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = ASFFNet(read_architecture(ASFFNetConfig, CONFIG)).state_dict()
    torch.save({"params": with_singular_values(state)}, folder / "asffnet.pth")
    return {"path": folder / "asffnet.pth", "config": CONFIG, "landmarks": landmarks}
