"""LPIPS and DISTS on ImageNet backbones, written from their papers; weights come from ``ffhqref.weights.files``.

LPIPS: R. Zhang and others, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, weights
version 0.1. DISTS: K. Ding and others, Image Quality Assessment: Unifying Structure and Texture Similarity, 2020.
Pictures go through the network one by one, so that a value does not depend on its batch; the features of the last
ground truth are kept, which halves the work when several methods are scored case by case.
"""

from __future__ import annotations

from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.metrics.base import LastTruth, MetricBatch, Runtime, ground_truth
from ffhqref.weights import files as weights

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_BACKBONES = {"vgg": "vgg16-imagenet", "alex": "alexnet-imagenet"}
_VGG_LAYERS = (2, 2, 3, 3, 3)
_VGG_WIDTHS = (64, 128, 256, 512, 512)
_ALEX_LAYERS = ((0, 11, 4, 2, 64), (3, 5, 1, 2, 192), (6, 3, 1, 1, 384), (8, 3, 1, 1, 256), (10, 3, 1, 1, 256))
"""Index in torchvision's ``features``, kernel, stride, padding, width."""


class _FeatureMetric:
    """A distance between features of two pictures; subclasses say which features and which distance."""

    higher_is_better: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"gt"})

    def __init__(self, runtime: Runtime | None) -> None:
        self._runtime = runtime or Runtime()
        self.device = self._runtime.device
        self._tensors: dict[str, torch.Tensor] | None = None
        self._last: LastTruth[list[torch.Tensor]] = LastTruth()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tensors": None}

    def _load(self) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def _features(self, picture: torch.Tensor, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        raise NotImplementedError

    def _distance(
        self, output: list[torch.Tensor], gt: list[torch.Tensor], tensors: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        raise NotImplementedError

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]."""
        import torch

        gt = ground_truth(batch)
        if self._tensors is None:
            self._tensors = {name: value.to(self._runtime.device) for name, value in self._load().items()}
        values = []
        with torch.inference_mode():
            for index in range(len(batch)):
                truth = gt[index : index + 1].to(self._runtime.device)
                known = self._last.of(batch.gt_id(index), partial(self._features, truth, self._tensors))
                output = self._features(batch.output[index : index + 1].to(self._runtime.device), self._tensors)
                values.append(float(self._distance(output, known, self._tensors)))
        return np.array(values, dtype=np.float64)


class LPIPS(_FeatureMetric):
    """Learned perceptual distance, version 0.1; equal to the ``lpips`` package and to pyiqa.

    Takes pictures in 0..1 and scales them itself. The smallest side is 16 px for VGG and 31 px for AlexNet.

    Args:
        net: ``"vgg"`` (ReF-LDM, VQFR family) or ``"alex"`` (pyiqa's plain ``lpips``); two different metrics.
        path: the ImageNet state dict of torchvision; None: found through ``ffhqref.weights.files``.
        runtime: where weights lie and the network runs.
    """

    def __init__(self, net: str = "vgg", path: str | Path | None = None, runtime: Runtime | None = None) -> None:
        super().__init__(runtime)
        if net not in _BACKBONES:
            raise ConfigError(f"lpips: network '{net}' is not known, expected vgg or alex")
        self.net = net
        file = weights.require(
            _BACKBONES[net], path=path, folder=self._runtime.weights_dir, download=self._runtime.download
        )
        self._path = file.path
        self.signature = f"lpips|{net}|heads v0.1|{file.signature}|rgb|vs gt|v1"

    def _load(self) -> dict[str, torch.Tensor]:
        import torch

        heads = {f"head{layer}": torch.from_numpy(values) for layer, values in enumerate(lpips_heads(self.net))}
        return _backbone(self._path, self.net) | heads

    def _features(self, picture: torch.Tensor, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        import torch

        shift = torch.tensor([-0.030, -0.088, -0.188], device=picture.device).view(1, 3, 1, 1)
        scale = torch.tensor([0.458, 0.448, 0.450], device=picture.device).view(1, 3, 1, 1)
        x = (2.0 * picture - 1.0 - shift) / scale
        layers = _vgg_features(x, tensors) if self.net == "vgg" else _alex_features(x, tensors)
        return [layer / (layer.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for layer in layers]

    def _distance(
        self, output: list[torch.Tensor], gt: list[torch.Tensor], tensors: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        import torch

        total = torch.zeros((), device=output[0].device)
        for layer, (first, second) in enumerate(zip(output, gt, strict=True)):
            per_channel = (first - second).square().mean(dim=(2, 3))
            total = total + (per_channel @ tensors[f"head{layer}"]).sum()
        return total


class DISTS(_FeatureMetric):
    """Deep structure and texture distance; equal to pyiqa's ``dists``.

    Args:
        path: ``DISTS_weights-*.pth`` (alpha and beta); None: found through ``ffhqref.weights.files``.
        backbone_path: the VGG-16 state dict; None: found.
        runtime: where weights lie and the network runs.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        backbone_path: str | Path | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(runtime)
        options: dict[str, Any] = {"folder": self._runtime.weights_dir, "download": self._runtime.download}
        backbone = weights.require("vgg16-imagenet", path=backbone_path, **options)
        head = weights.require("dists", path=path, **options)
        self._backbone_path, self._path = backbone.path, head.path
        self.signature = f"dists|{backbone.signature}|{head.signature}|rgb|vs gt|v1"

    def _load(self) -> dict[str, torch.Tensor]:
        found = weights.load_tensors(self._path)
        channels = 3 + sum(_VGG_WIDTHS)
        if not {"alpha", "beta"} <= set(found) or any(found[key].numel() != channels for key in ("alpha", "beta")):
            raise WeightsError(f"{self._path} is no DISTS weight file: alpha and beta of {channels} numbers expected")
        alpha, beta = found["alpha"].reshape(1, -1).float(), found["beta"].reshape(1, -1).float()
        total = alpha.sum() + beta.sum()
        return _backbone(self._backbone_path, "vgg") | {"alpha": alpha / total, "beta": beta / total}

    def _features(self, picture: torch.Tensor, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        import torch

        mean = torch.tensor([0.485, 0.456, 0.406], device=picture.device).view(1, 3, 1, 1)
        deviation = torch.tensor([0.229, 0.224, 0.225], device=picture.device).view(1, 3, 1, 1)
        return [picture, *_vgg_features((picture - mean) / deviation, tensors, pool=_l2_pool)]

    def _distance(
        self, output: list[torch.Tensor], gt: list[torch.Tensor], tensors: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        import torch

        textures, structures = [], []
        for first, second in zip(output, gt, strict=True):
            mean_a, mean_b = first.mean(dim=(2, 3)), second.mean(dim=(2, 3))
            variance_a = first.var(dim=(2, 3), correction=0)
            variance_b = second.var(dim=(2, 3), correction=0)
            covariance = (first * second).mean(dim=(2, 3)) - mean_a * mean_b
            textures.append((2.0 * mean_a * mean_b + 1e-6) / (mean_a.square() + mean_b.square() + 1e-6))
            structures.append((2.0 * covariance + 1e-6) / (variance_a + variance_b + 1e-6))
        alike = (torch.cat(textures, 1) * tensors["alpha"]).sum() + (torch.cat(structures, 1) * tensors["beta"]).sum()
        return 1.0 - alike


def lpips_vgg(path: str | Path | None = None, runtime: Runtime | None = None) -> LPIPS:
    """Return LPIPS on VGG-16."""
    return LPIPS("vgg", path, runtime)


def lpips_alex(path: str | Path | None = None, runtime: Runtime | None = None) -> LPIPS:
    """Return LPIPS on AlexNet."""
    return LPIPS("alex", path, runtime)


@cache
def lpips_heads(net: str) -> tuple[NDArray[np.float32], ...]:
    """Return the five channel weightings of LPIPS v0.1, from the packaged data file."""
    with resources.files("ffhqref.metrics").joinpath("data/lpips_heads_v0.1.npz").open("rb") as stream:
        stored = np.load(stream, allow_pickle=False)
        return tuple(stored[f"{net}{layer}"] for layer in range(5))


def _backbone(path: Path, net: str) -> dict[str, torch.Tensor]:
    """Return the convolutions of a torchvision state dict, checked for their shapes."""
    found = weights.load_tensors(path)
    if net == "vgg":
        wanted = {index: (width, 3) for index, width in _vgg_indices()}
    else:
        wanted = {index: (width, kernel) for index, kernel, _, _, width in _ALEX_LAYERS}
    kept = {}
    for index, (width, kernel) in wanted.items():
        weight, bias = found.get(f"features.{index}.weight"), found.get(f"features.{index}.bias")
        if weight is None or bias is None or weight.shape[0] != width or weight.shape[-1] != kernel:
            raise WeightsError(f"{path} is no ImageNet state dict of torchvision's {net} (layer features.{index})")
        kept[f"w{index}"], kept[f"b{index}"] = weight.float(), bias.float()
    return kept


def _vgg_indices() -> list[tuple[int, int]]:
    """Return (index in torchvision's ``features``, width) of VGG-16's convolutions."""
    indices, at = [], 0
    for count, width in zip(_VGG_LAYERS, _VGG_WIDTHS, strict=True):
        for _ in range(count):
            indices.append((at, width))
            at += 2
        at += 1
    return indices


def _max_pool(x: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.max_pool2d(x, 2)


def _l2_pool(x: torch.Tensor) -> torch.Tensor:
    """DISTS's pooling: root of the Hann-weighted mean square, 3x3, stride 2."""
    import torch

    taps = torch.tensor([0.25, 0.5, 0.25], device=x.device)
    window = torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)
    pooled = torch.nn.functional.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1])
    return (pooled + 1e-12).sqrt()


def _vgg_features(x: torch.Tensor, tensors: dict[str, torch.Tensor], pool: Any = _max_pool) -> list[torch.Tensor]:
    """Return relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 of VGG-16."""
    import torch

    layers: list[torch.Tensor] = []
    indices = iter(_vgg_indices())
    for stage, count in enumerate(_VGG_LAYERS):
        if stage:
            x = pool(x)
        for _ in range(count):
            index, _width = next(indices)
            x = torch.relu(torch.conv2d(x, tensors[f"w{index}"], tensors[f"b{index}"], padding=1))
        layers.append(x)
    return layers


def _alex_features(x: torch.Tensor, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return the five activated convolutions of AlexNet."""
    import torch

    layers: list[torch.Tensor] = []
    for number, (index, _kernel, stride, padding, _width) in enumerate(_ALEX_LAYERS):
        if number in (1, 2):
            x = torch.max_pool2d(x, 3, 2)
        x = torch.relu(torch.conv2d(x, tensors[f"w{index}"], tensors[f"b{index}"], stride=stride, padding=padding))
        layers.append(x)
    return layers
