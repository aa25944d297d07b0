"""Random weights of a RestoreFormer++ of 64 pixels in the published layout."""

from ffhqref.zoo.restoreformer.config import RestoreFormerPPConfig

from .restoreformer import CONFIG
from .restoreformer import options as restoreformer_options


def options(folder):
    return restoreformer_options(folder, RestoreFormerPPConfig, CONFIG)
