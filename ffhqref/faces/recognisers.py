"""Embedders of networks in torch: AdaFace and FaceNet. Each knows its channel order, normalisation and crop."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.faces.embedders import OnnxEmbedder, check_channels, check_faces, normalised
from ffhqref.weights.files import Weights, by_filename, require
from ffhqref.weights.tensors import load_into, load_tensors

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

PREFIXES = ("model.net.", "net.", "model.", "")
"""What stands before the names of layers: CVLface on the hub, CVLface, AdaFace's Lightning checkpoints, bare."""


class TorchEmbedder(ABC):
    """A recognition network in torch.

    Args:
        path: its state dict.
        channels: ``rgb`` or ``bgr``: order in which the network takes colours.
        device: ``cpu``, ``cuda`` or ``cuda:1``; ``auto``: CUDA where there is one.
        batch_size: faces a call.

    Raises:
        ConfigError: no file is named, or the order of channels is none.
        WeightsError: the file is absent, or does not fit the network.
    """

    dim = 512
    face_size: int
    template = "arcface"
    mean: float
    std: float
    """Input of the network: (level - mean) / std."""

    def __init__(self, path: Weights | str | Path | None, channels: str, device: str, batch_size: int) -> None:
        import torch

        if not path:
            raise ConfigError("this embedder needs a file: embedder.path=/path/to/weights")
        check_channels(channels)
        file = path if isinstance(path, Weights) else require(by_filename(Path(path).name), path=path)
        self.device = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        network, name = self._load(file)
        self._network = network.eval().to(self.device)
        self._flip, self._batch = channels == "bgr", batch_size
        self.weights_sha256 = {file.path.name: file.sha256}
        values = f"x=({self.mean:g},{self.std:g}) {channels}"
        self.signature = f"{name}:{file.sha256[:12]}|{values}|{self.face_size}px {self.template}"

    @abstractmethod
    def _load(self, file: Weights) -> tuple[torch.nn.Module, str]:
        """Return the network with its weights, and its name in signatures."""

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 [B, 512], L2-normalised, from uint8 RGB [B, S, S, 3]."""
        import torch

        check_faces(faces, self.face_size)
        parts = []
        for start in range(0, len(faces), self._batch):
            levels = faces[start : start + self._batch, ..., :: -1 if self._flip else 1].transpose(0, 3, 1, 2)
            values = torch.from_numpy((levels.astype(np.float32) - self.mean) / self.std).to(self.device)
            with torch.inference_mode():
                parts.append(self._network(values).cpu().numpy())
        return normalised(np.concatenate(parts)) if parts else np.zeros((0, self.dim), np.float32)


class AdaFaceEmbedder(TorchEmbedder):
    """AdaFace's IR-18, IR-50 or IR-101 from its ``.ckpt`` or from CVLface's state dict; see `adaface_embedder`."""

    face_size = 112
    mean = std = 127.5

    def _load(self, file: Weights) -> tuple[torch.nn.Module, str]:
        from ffhqref.faces.recogniser_networks import IRESNETS, IResNet

        tensors = _backbone(load_tensors(file, wrappers=("state_dict",)), file)
        blocks = len({name.split(".")[1] for name in tensors if name.startswith("body.")})
        if blocks not in IRESNETS:
            known = " or ".join(str(count) for count in IRESNETS)
            raise WeightsError(f"{file}: {blocks} blocks, expected {known} (IR-18, IR-50, IR-101)")
        network = IResNet(IRESNETS[blocks])
        load_into(network, tensors, file)
        return network, f"adaface-{blocks}-blocks"


def _backbone(tensors: Mapping[str, torch.Tensor], path: Weights) -> dict[str, torch.Tensor]:
    """Return the tensors of the backbone alone; those of the loss (``head.``) stay behind, others are refused."""
    prefix = next((prefix for prefix in PREFIXES if f"{prefix}input_layer.0.weight" in tensors), None)
    if prefix is None:
        raise WeightsError(f"{path} holds no IResNet of AdaFace: no tensor 'input_layer.0.weight'")
    if "net." in prefix:
        log.warning(
            "%s has the layout of CVLface, some of whose networks take RGB (color_space in its config.json): "
            "check the option channels", path.path.name,
        )  # fmt: skip
    kept = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    return {name.removeprefix(prefix): value for name, value in kept.items()}


def adaface_embedder(
    path: Weights | str | Path | None,
    channels: str = "bgr",
    device: str = "auto",
    batch_size: int = 16,
    fall_back: bool = False,
) -> AdaFaceEmbedder | OnnxEmbedder:
    """Return AdaFace from its own checkpoint, CVLface's state dict, or an ONNX copy.

    AdaFace takes **BGR** in -1..1. Given RGB it returns plausible vectors and wrong cosines.

    Args:
        path: ``.ckpt``, ``.pt``, ``.safetensors`` or ``.onnx``.
        channels: ``bgr``; ``rgb`` for a network that CVLface trained so.
        device: see `TorchEmbedder`.
        batch_size: faces a call.
        fall_back: see `OnnxEmbedder`.
    """
    if path and Path(path).suffix == ".onnx":
        return OnnxEmbedder(path, channels=channels, device=device, batch_size=batch_size, fall_back=fall_back)
    return AdaFaceEmbedder(path, channels, device, batch_size)


class FaceNetEmbedder(TorchEmbedder):
    """FaceNet's Inception-ResNet-v1 from a state dict of the package facenet-pytorch, which need not be installed.

    Input RGB [n, 3, 160, 160], (level - 127.5) / 128. It was trained on boxes of a face detector without alignment: the
    crop is ``facenet_box``.

    Args:
        path: ``20180402-114759-vggface2.pt`` or ``20180408-102900-casia-webface.pt``.
        channels: ``rgb``, unless the file is another's.
        device: see `TorchEmbedder`.
        batch_size: faces a call.
    """

    face_size = 160
    mean, std = 127.5, 128.0

    def __init__(
        self,
        path: Weights | str | Path | None,
        channels: str = "rgb",
        device: str = "auto",
        batch_size: int = 16,
    ) -> None:
        super().__init__(path, channels, device, batch_size)

    def _load(self, file: Weights) -> tuple[torch.nn.Module, str]:
        from ffhqref.faces.recogniser_networks import InceptionResNetV1

        tensors = {name: value for name, value in load_tensors(file).items() if not name.startswith("logits.")}
        network = InceptionResNetV1()
        load_into(network, tensors, file)
        return network, "facenet-inception-resnet-v1"
