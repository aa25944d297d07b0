"""Judges of identity: named recognition networks, each with its own channel order, normalisation and crop.

A method that was trained with a network's loss is flattered by it, so that no single network decides. ``ids_jury`` of
conf/metric chooses all of them; `ffhqref.metrics.jury` sums them up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ffhqref.metrics.base import MetricRuntime
from ffhqref.metrics.identity import CroppedEmbedder, EmbeddingCache, IdentityMetric
from ffhqref.weights.fetch import obtain
from ffhqref.weights.files import by_filename


class JudgeIDS(IdentityMetric):
    """Cosine of a named network, on the crop that it was made for.

    Args:
        path: the network's file; None: that of ``weights``.
        weights: name of its file in the weight registry; None: the judge's own.
        target: see `ffhqref.metrics.identity.IDS`.
        crop: name of the crop; None: the judge's own.
        channels: ``rgb`` or ``bgr``; None: the judge's own.
        mean: of an ONNX file, see `ffhqref.faces.embedders.OnnxEmbedder`; None: what the network asks for.
        std: likewise.
        runtime: where weights lie and the network runs.
    """

    embedder = "onnx"
    """Name in `ffhqref.faces.EMBEDDERS`."""
    file: str
    """Name of its weights in the registry."""
    crop = "ffhq_template"
    channels = "rgb"

    def __init__(
        self,
        path: str | Path | None = None,
        weights: str | None = None,
        target: str = "gt",
        crop: str | None = None,
        channels: str | None = None,
        mean: float | None = None,
        std: float | None = None,
        runtime: MetricRuntime | None = None,
    ) -> None:
        self.describe({"target": target})
        runtime = runtime or MetricRuntime()
        name = weights or self.file
        file = obtain(name, path=path, folder=runtime.weights_dir, download=runtime.download)
        given: dict[str, Any] = {"mean": mean, "std": std}
        options = {key: value for key, value in given.items() if value is not None}
        options |= {"path": file, "channels": channels or self.channels, "device": runtime.device}
        if self.embedder != "facenet":
            options["fall_back"] = True
        self.recogniser = name if path is None else by_filename(Path(path).name).name
        """Name in the weight registry of the network that judges."""
        self._configure(EmbeddingCache(CroppedEmbedder(self.embedder, options, crop or self.crop)), target, "cosine")


class AdaFaceIDS(JudgeIDS):
    """AdaFace: IR-101 (WebFace12M) by default. It takes BGR.

    The file may be a ``.ckpt`` of AdaFace, a state dict of CVLface or an ONNX copy, of IR-18, IR-50 or IR-101.
    """

    embedder, file, channels = "adaface", "adaface-ir101-onnx", "bgr"


class ArcFaceR50IDS(JudgeIDS):
    """ArcFace R50 (WebFace600K), the recogniser of insightface's buffalo_l."""

    file = "buffalo-l-r50"


class ArcFaceR100IDS(JudgeIDS):
    """ArcFace R100 (Glint360K), the recogniser of insightface's antelopev2."""

    file = "antelopev2-glintr100"


class EdgeFaceIDS(JudgeIDS):
    """EdgeFace-XS, a small network of another family than the IResNets."""

    file = "edgeface-xs"


class FaceNetIDS(JudgeIDS):
    """FaceNet (VGGFace2) on the box of its own detector, without alignment."""

    embedder, file, crop = "facenet", "facenet-vggface2", "facenet_box"


class DlibIDS(JudgeIDS):
    """dlib's ResNet, which the packages bring.

    Args:
        path: another file of it.
        target: see `ffhqref.metrics.identity.IDS`.
        crop: name of the crop.
    """

    embedder, file = "dlib", "dlib-resnet-v1"

    def __init__(self, path: str | Path | None = None, target: str = "gt", crop: str = "ffhq_template") -> None:
        self.describe({"target": target})
        self.recogniser = self.file
        self._configure(EmbeddingCache(CroppedEmbedder("dlib", {"path": path}, crop)), target, "cosine")
