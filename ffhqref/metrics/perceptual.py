"""LPIPS and DISTS on ImageNet backbones, written from their papers; weights come from ``ffhqref.weights.files``.

LPIPS: R. Zhang and others, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, weights
version 0.1. DISTS: K. Ding and others, Image Quality Assessment: Unifying Structure and Texture Similarity, 2020.
Images pass through the network one by one, so that a value does not depend on its batch. The features of the last
ground truth are cached, which halves the work when several methods are scored case by case.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.metrics.base import LastTruth, Metric, MetricBatch, MetricRuntime, ground_truth
from ffhqref.weights.fetch import obtain
from ffhqref.weights.tensors import load_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from ffhqref.metrics.perceptual_networks import FeatureDistance
    from ffhqref.weights import files as weights

_BACKBONES = {"vgg": "vgg16-imagenet", "alex": "alexnet-imagenet"}


class _FeatureMetric(Metric):
    """A distance between features of two images; subclasses build the network."""

    higher_is_better = False
    role = "fidelity"

    def __init__(self, runtime: MetricRuntime | None) -> None:
        self._runtime = runtime or MetricRuntime()
        self.device = self._runtime.device
        self._network: FeatureDistance | None = None
        self._last: LastTruth[list[torch.Tensor]] = LastTruth()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_network": None}

    @abstractmethod
    def network(self) -> FeatureDistance:
        """Return a new network on the CPU, a differentiable module with frozen weights."""

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]."""
        import torch

        gt, device = ground_truth(batch), self._runtime.device
        if self._network is None:
            self._network = self.network().to(device)
        network, values = self._network, []
        with torch.inference_mode():
            for index in range(len(batch)):
                truth = gt[index : index + 1].to(device)
                known = self._last.of(batch.gt_id(index), partial(network.features, truth))
                output = network.features(batch.output[index : index + 1].to(device))
                values.append(float(network.distance(output, known)))
        return np.array(values, dtype=np.float64)


class LPIPS(_FeatureMetric):
    """Learned perceptual distance, version 0.1; equal to the ``lpips`` package and to pyiqa.

    Takes images in 0..1 and scales them itself. The smallest size is 16 px for VGG and 31 px for AlexNet.

    Args:
        net: ``"vgg"`` (ReF-LDM, VQFR family) or ``"alex"`` (pyiqa's plain ``lpips``); two different metrics.
        path: the ImageNet state dict of torchvision; None: found through ``ffhqref.weights.files``.
        runtime: where weights lie and the network runs.
    """

    def __init__(self, net: str = "vgg", path: str | Path | None = None, runtime: MetricRuntime | None = None) -> None:
        super().__init__(runtime)
        if net not in _BACKBONES:
            raise ConfigError(f"lpips: network '{net}' is not known, expected vgg or alex")
        self.net = net
        file = obtain(_BACKBONES[net], path=path, folder=self._runtime.weights_dir, download=self._runtime.download)
        self._path = file
        self.signature = f"lpips|{net}|heads v0.1|{file.signature}|rgb|vs gt|v1"

    def network(self) -> FeatureDistance:
        """Return LPIPS as a module."""
        import torch

        from ffhqref.metrics.perceptual_networks import LPIPSNetwork

        heads = {f"head{layer}": torch.from_numpy(values) for layer, values in enumerate(lpips_heads(self.net))}
        return LPIPSNetwork(self.net, _backbone(self._path, self.net) | heads)


class VGGLPIPS(LPIPS):
    """LPIPS on VGG-16."""

    def __init__(self, path: str | Path | None = None, runtime: MetricRuntime | None = None) -> None:
        super().__init__("vgg", path, runtime)


class AlexLPIPS(LPIPS):
    """LPIPS on AlexNet."""

    def __init__(self, path: str | Path | None = None, runtime: MetricRuntime | None = None) -> None:
        super().__init__("alex", path, runtime)


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
        runtime: MetricRuntime | None = None,
    ) -> None:
        super().__init__(runtime)
        folder, download = self._runtime.weights_dir, self._runtime.download
        backbone = obtain("vgg16-imagenet", path=backbone_path, folder=folder, download=download)
        head = obtain("dists", path=path, folder=folder, download=download)
        self._backbone_path, self._path = backbone, head
        self.signature = f"dists|{backbone.signature}|{head.signature}|rgb|vs gt|v1"

    def network(self) -> FeatureDistance:
        """Return DISTS as a module."""
        from ffhqref.metrics.perceptual_networks import VGG_WIDTHS, DISTSNetwork

        found = load_tensors(self._path)
        channels = 3 + sum(VGG_WIDTHS)
        if not {"alpha", "beta"} <= set(found) or any(found[key].numel() != channels for key in ("alpha", "beta")):
            raise WeightsError(f"{self._path} is no DISTS weight file: alpha and beta of {channels} numbers expected")
        alpha, beta = found["alpha"].reshape(1, -1).float(), found["beta"].reshape(1, -1).float()
        total = alpha.sum() + beta.sum()
        return DISTSNetwork(_backbone(self._backbone_path, "vgg") | {"alpha": alpha / total, "beta": beta / total})


def perceptual_loss(
    net: str = "vgg", path: str | Path | None = None, runtime: MetricRuntime | None = None
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return LPIPS as a differentiable loss: two batches [B, 3, H, W] in -1..1 to distances [B].

    Args:
        net: see `LPIPS`.
        path: see `LPIPS`.
        runtime: see `LPIPS`.

    Raises:
        WeightsError: the backbone is absent, or another network's.
    """
    metric = LPIPS(net, path, runtime)
    network = metric.network().to(metric.device)

    def loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = network((first + 1.0) / 2.0, (second + 1.0) / 2.0)
        return result

    return loss


@cache
def lpips_heads(net: str) -> tuple[NDArray[np.float32], ...]:
    """Return the five channel weightings of LPIPS v0.1, from the packaged data file."""
    with resources.files("ffhqref.metrics").joinpath("data/lpips_heads_v0.1.npz").open("rb") as stream:
        stored = np.load(stream, allow_pickle=False)
        return tuple(stored[f"{net}{layer}"] for layer in range(5))


def _backbone(path: weights.Weights, net: str) -> dict[str, torch.Tensor]:
    """Return the convolutions of a torchvision state dict, checked for their shapes."""
    from ffhqref.metrics.perceptual_networks import ALEX_LAYERS, vgg_indices

    found = load_tensors(path)
    if net == "vgg":
        wanted = {index: (width, 3) for index, width in vgg_indices()}
    else:
        wanted = {index: (width, kernel) for index, kernel, _, _, width in ALEX_LAYERS}
    kept = {}
    for index, (width, kernel) in wanted.items():
        weight, bias = found.get(f"features.{index}.weight"), found.get(f"features.{index}.bias")
        if weight is None or bias is None or weight.shape[0] != width or weight.shape[-1] != kernel:
            raise WeightsError(f"{path} is no ImageNet state dict of torchvision's {net} (layer features.{index})")
        kept[f"w{index}"], kept[f"b{index}"] = weight.float(), bias.float()
    return kept
