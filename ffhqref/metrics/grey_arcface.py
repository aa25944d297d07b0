"""The grey ResNet-18 with which the VQFR family measures identity.

Network of the project ronghuaiyang/arcface-pytorch (file ``resnet18_110.pth``, no squeeze-and-excitation), as VQFR's
``metric_paper/calculate_cos_dist.py`` uses it: the whole 512 px image as grey, bilinear to 128x128,
(x - 127.5) / 127.5, 512 numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ffhqref.core.images import to_uint8
from ffhqref.metrics._pixels import png_grey
from ffhqref.metrics.base import MetricRuntime
from ffhqref.metrics.identity import EmbeddingCache, FaceEmbedder, IdentityMetric
from ffhqref.weights.fetch import obtain
from ffhqref.weights.tensors import load_into, load_tensors

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Width and stride of the four stages, two blocks each."""


def grey_resnet18() -> torch.nn.Module:
    """Return the network: grey [B, 1, 128, 128] in -1..1 to [B, 512]; names as in the published state dict."""
    import torch
    from torch import nn

    class Block(nn.Module):
        """Normalise, convolve, activate, convolve, add; both activations share their slope."""

        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.bn0 = nn.BatchNorm2d(before)
            self.conv1 = nn.Conv2d(before, before, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(before)
            self.prelu = nn.PReLU()
            self.conv2 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(after)
            changes = stride != 1 or before != after
            self.downsample = (
                nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
                if changes
                else None
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = self.prelu(self.bn1(self.conv1(self.bn0(x))))
            beside = x if self.downsample is None else self.downsample(x)
            made: torch.Tensor = self.prelu(self.bn2(self.conv2(inner)) + beside)
            return made

    class GreyResNet18(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 64, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.prelu = nn.PReLU()
            width = 64
            for number, (after, stride) in enumerate(_STAGES, start=1):
                stage = nn.Sequential(Block(width, after, stride), Block(after, after, 1))
                setattr(self, f"layer{number}", stage)
                width = after
            self.bn4 = nn.BatchNorm2d(512)
            self.fc5 = nn.Linear(512 * 8 * 8, 512)
            self.bn5 = nn.BatchNorm1d(512)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.max_pool2d(self.prelu(self.bn1(self.conv1(x))), 2)
            for number in range(1, 5):
                x = getattr(self, f"layer{number}")(x)
            made: torch.Tensor = self.bn5(self.fc5(self.bn4(x).flatten(1)))
            return made

    return GreyResNet18().eval()


class GreyEmbedder(FaceEmbedder):
    """Vectors of the grey ResNet-18; see `ffhqref.metrics.identity.FaceEmbedder`.

    Args:
        path: the state dict; None: found through ``ffhqref.weights.files`` (``arcface-grey-r18``).
        runtime: where weights lie and the network runs.
    """

    def __init__(self, path: str | Path | None = None, runtime: MetricRuntime | None = None) -> None:
        self._runtime = runtime or MetricRuntime()
        self.device = self._runtime.device
        file = obtain("arcface-grey-r18", path=path, folder=self._runtime.weights_dir, download=self._runtime.download)
        self._path = file
        self._network: torch.nn.Module | None = None
        self.signature = f"grey-resnet18:{file.signature}|crop=whole image libpng-grey 128 bilinear"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_network": None}

    def __call__(self, image: torch.Tensor) -> NDArray[np.float32]:
        """Return float32 [512] from float32 [3, H, W] in 0..1 RGB."""
        import torch

        if self._network is None:
            network = grey_resnet18()
            load_into(network, load_tensors(self._path, prefix="module."), self._path)
            self._network = network.to(self._runtime.device)
        grey = png_grey(to_uint8(image[None])[0])
        small = cv2.resize(grey, (128, 128), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        values = torch.from_numpy((small - 127.5) / 127.5)[None, None].to(self._runtime.device)
        with torch.inference_mode():
            return np.asarray(self._network(values)[0].cpu().numpy(), dtype=np.float32)


class GreyAngle(IdentityMetric):
    """The "Deg" of the VQFR family: angle of grey ResNet-18 vectors against the ground truth.

    Args:
        path: ``resnet18_110.pth``; None: found through ``ffhqref.weights.files``.
        drop_identical: leave pairs under 1 degree out, as the published script leaves them out of its mean. Off by
            default: a mean over fewer cases flatters.
        runtime: where weights lie and the network runs.
    """

    higher_is_better = False
    unit = "degrees"

    def __init__(
        self, path: str | Path | None = None, drop_identical: bool = False, runtime: MetricRuntime | None = None
    ) -> None:
        self._configure(
            EmbeddingCache(GreyEmbedder(path, runtime)), "gt", "degrees", drop_below=1.0 if drop_identical else None
        )
