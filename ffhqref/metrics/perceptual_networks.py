"""LPIPS and DISTS as differentiable modules: float32 images [B, 3, H, W] in 0..1 RGB to distances [B]."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

VGG_LAYERS = (2, 2, 3, 3, 3)
VGG_WIDTHS = (64, 128, 256, 512, 512)
ALEX_LAYERS = ((0, 11, 4, 2, 64), (3, 5, 1, 2, 192), (6, 3, 1, 1, 384), (8, 3, 1, 1, 256), (10, 3, 1, 1, 256))
"""Index in torchvision's ``features``, kernel, stride, padding, width."""


class FeatureDistance(nn.Module):
    """A distance between the features of two batches of images. The weights are frozen buffers.

    Args:
        tensors: weights by name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def tensor(self, name: str) -> Tensor:
        """Return a weight by name."""
        return self.get_buffer(name)

    @abstractmethod
    def features(self, images: Tensor) -> list[Tensor]:
        """Return the features of images."""

    @abstractmethod
    def distance(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """Return the distances [B] of two lists of features."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distances [B] of two batches of images."""
        return self.distance(self.features(first), self.features(second))


class LPIPSNetwork(FeatureDistance):
    """LPIPS v0.1.

    Args:
        net: ``"vgg"`` or ``"alex"``.
        tensors: ``wN`` and ``bN`` of the convolutions, ``headN`` of the five layers.
    """

    def __init__(self, net: str, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self._extract = _vgg_features if net == "vgg" else _alex_features
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the five layers, each position normalised to length 1."""
        x = (2.0 * images - 1.0 - self.tensor("shift")) / self.tensor("scale")
        # vector_norm has the gradient 0 at 0, where a square root has none
        return [
            layer / (torch.linalg.vector_norm(layer, dim=1, keepdim=True) + 1e-10)
            for layer in self._extract(x, self.tensor)
        ]

    def distance(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """Return the weighted mean squared difference [B], summed over the layers."""
        total = first[0].new_zeros(len(first[0]))
        for layer, (one, two) in enumerate(zip(first, second, strict=True)):
            total = total + (one - two).square().mean(dim=(2, 3)) @ self.tensor(f"head{layer}")
        return total


class DISTSNetwork(FeatureDistance):
    """DISTS: VGG-16 with L2 pooling.

    Args:
        tensors: ``wN`` and ``bN`` of the convolutions, ``alpha`` and ``beta`` [1, channels] that sum to 1 together.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the images themselves and the five layers."""
        normalised = (images - self.tensor("mean")) / self.tensor("deviation")
        return [images, *_vgg_features(normalised, self.tensor, pool=_l2_pool)]

    def distance(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """Return 1 minus the weighted similarity of textures and structures, [B]."""
        textures, structures = [], []
        for one, two in zip(first, second, strict=True):
            mean_a, mean_b = one.mean(dim=(2, 3)), two.mean(dim=(2, 3))
            variance_a = one.var(dim=(2, 3), correction=0)
            variance_b = two.var(dim=(2, 3), correction=0)
            covariance = (one * two).mean(dim=(2, 3)) - mean_a * mean_b
            textures.append((2.0 * mean_a * mean_b + 1e-6) / (mean_a.square() + mean_b.square() + 1e-6))
            structures.append((2.0 * covariance + 1e-6) / (variance_a + variance_b + 1e-6))
        texture = (torch.cat(textures, 1) * self.tensor("alpha")).sum(dim=1)
        structure = (torch.cat(structures, 1) * self.tensor("beta")).sum(dim=1)
        return 1.0 - (texture + structure)


def vgg_indices() -> list[tuple[int, int]]:
    """Return (index in torchvision's ``features``, width) of VGG-16's convolutions."""
    indices, at = [], 0
    for count, width in zip(VGG_LAYERS, VGG_WIDTHS, strict=True):
        for _ in range(count):
            indices.append((at, width))
            at += 2
        at += 1
    return indices


def _max_pool(x: Tensor) -> Tensor:
    return torch.max_pool2d(x, 2)


def _l2_pool(x: Tensor) -> Tensor:
    """Pool as DISTS: root of the Hann-weighted mean square, 3x3, stride 2."""
    taps = torch.tensor([0.25, 0.5, 0.25], device=x.device)
    window = torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)
    pooled = nn.functional.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1])
    return (pooled + 1e-12).sqrt()


def _vgg_features(
    x: Tensor, tensor: Callable[[str], Tensor], pool: Callable[[Tensor], Tensor] = _max_pool
) -> list[Tensor]:
    """Return relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 of VGG-16."""
    layers: list[Tensor] = []
    indices = iter(vgg_indices())
    for stage, count in enumerate(VGG_LAYERS):
        if stage:
            x = pool(x)
        for _ in range(count):
            index, _width = next(indices)
            x = torch.relu(torch.conv2d(x, tensor(f"w{index}"), tensor(f"b{index}"), padding=1))
        layers.append(x)
    return layers


def _alex_features(x: Tensor, tensor: Callable[[str], Tensor]) -> list[Tensor]:
    """Return the five activated convolutions of AlexNet."""
    layers: list[Tensor] = []
    for number, (index, _kernel, stride, padding, _width) in enumerate(ALEX_LAYERS):
        if number in (1, 2):
            x = torch.max_pool2d(x, 3, 2)
        x = torch.relu(torch.conv2d(x, tensor(f"w{index}"), tensor(f"b{index}"), stride=stride, padding=padding))
        layers.append(x)
    return layers
