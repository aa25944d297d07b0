"""A crop: the usual one, mirrored."""

import numpy as np

from ffhqref.faces.crops import ffhq_template


def mirrored(images, embedder):
    """Return uint8 RGB [B, S, S, 3] from uint8 RGB [B, 512, 512, 3]."""
    return np.ascontiguousarray(ffhq_template(images, embedder)[:, :, ::-1])
