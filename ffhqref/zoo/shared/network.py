"""What restorers that are networks with published weight files share: the files, the device, the value range."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ffhqref.restorers.base import Restorer
from ffhqref.weights.files import Weights, require
from ffhqref.weights.tensors import load_into

if TYPE_CHECKING:
    import torch

    M = TypeVar("M", bound=torch.nn.Module)


class NetworkRestorer(Restorer):
    """Base of native restorers. Files are found and hashed by the constructor, networks are built on first use.

    Args:
        files: weight-registry name to a file the user named; None: wherever the registry finds it.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        WeightsError: a file is missing, damaged, or not the published one.
    """

    cache_ignored_options: tuple[str, ...] = ("path",)

    def __init__(self, files: Mapping[str, str | Path | None], device: str = "auto") -> None:
        self.files: dict[str, Weights] = {name: require(name, path=path) for name, path in files.items()}
        self.device = best_device() if device == "auto" else device
        self.weights_sha256 = {name: weights.sha256 for name, weights in self.files.items()}


def ready(network: M, tensors: Mapping[str, torch.Tensor], path: Weights | Path, device: str) -> M:
    """Return the network with the tensors in it, to be run and not trained, on the device.

    Args:
        network: with random weights, on the CPU.
        tensors: its tensors by name.
        path: where they came from, for messages.
        device: of torch.

    Raises:
        WeightsError: the tensors do not fit.
    """
    load_into(network, tensors, path)
    return network.eval().requires_grad_(False).to(device)


def signed(pictures: torch.Tensor) -> torch.Tensor:
    """Return images of 0..1 in −1..1."""
    return pictures * 2.0 - 1.0


def unsigned(pictures: torch.Tensor) -> torch.Tensor:
    """Return images of −1..1 in 0..1, clamped, float32."""
    return ((pictures.float() + 1.0) / 2.0).clamp(0.0, 1.0)


def best_device() -> str:
    """Return ``cuda``, ``mps`` or ``cpu``, the first that is there."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
