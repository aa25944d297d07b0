"""IDS, identity similarity, in each published form: network, crop, target and unit are named, never implied.

Papers use IDS for different numbers: the cosine of ArcFace R50 vectors on ReF-LDM's centre crop; the angle of a grey
ResNet-18 (VQFR family); the cosine of aligned antelopev2 vectors; and some that do not name the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.images import to_uint8
from ffhqref.faces.base import unchanged
from ffhqref.faces.crops import check_crop
from ffhqref.faces.embedders import OnnxEmbedder, onnxruntime_has_cuda
from ffhqref.faces.onnx_input import input_rule
from ffhqref.metrics.base import Metric, MetricBatch, MetricRuntime, MetricTraits, ground_truth
from ffhqref.weights.fetch import obtain

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ffhqref.faces.base import Embedder

TARGETS = {
    "gt": "gt",
    "first": "first reference",
    "best": "best reference",
    "mean": "references, mean of similarities",
}
"""What an output is compared with, and its words in a signature."""
UNITS = ("cosine", "degrees")


class FaceEmbedder(ABC):
    """A face-recognition network together with its crop. It must pickle."""

    signature: str
    """Network, hash of the weights, preprocessing and crop."""
    device: str = "cpu"

    @abstractmethod
    def __call__(self, image: torch.Tensor) -> NDArray[np.float32]:
        """Return float32 [dim] from float32 [3, 512, 512] in 0..1 RGB."""


class CroppedEmbedder(FaceEmbedder):
    """An embedder of `ffhqref.faces` on a named crop.

    Args:
        embedder: name in ``EMBEDDERS``.
        options: of the embedder, for instance ``path``.
        crop: see ``ffhqref.faces.crops.crop_faces``.
    """

    def __init__(self, embedder: str, options: dict[str, Any], crop: str) -> None:
        from ffhqref.faces import make_embedder

        check_crop(crop)
        self._name, self._options, self.crop = embedder, dict(options), crop
        made = make_embedder(embedder, **self._options)
        self._embedder: Embedder | None = made
        self.signature = f"{made.signature}|crop={crop}"
        self.device = str(vars(made).get("device", "cpu"))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_embedder": None}  # networks do not pickle; each worker loads its own

    def __call__(self, image: torch.Tensor) -> NDArray[np.float32]:
        """Return float32 [dim] from float32 [3, 512, 512] in 0..1."""
        from ffhqref.faces import embed, make_embedder

        if self._embedder is None:
            made = make_embedder(self._name, **self._options)
            self._embedder = unchanged(made, self.signature.removesuffix(f"|crop={self.crop}"))
        return np.asarray(embed(to_uint8(image[None]), self._embedder, self.crop)[0])


class RefldmEmbedder(FaceEmbedder):
    """ReF-LDM's ``scripts/eval.py`` step by step: R50 WebFace12M on the unrounded centre crop.

    Rows and columns 6.25 % to 93.75 %, area interpolation to 112x112, values in -1..1, no alignment, no flip.

    Args:
        path: the ONNX file; None: found through ``ffhqref.weights.files`` (``webface-r50``).
        runtime: where weights lie and the network runs: on CUDA where onnxruntime has it, else on the CPU.
        mean: see `OnnxEmbedder`: a network that normalises its own input is given levels.
        std: likewise.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        runtime: MetricRuntime | None = None,
        mean: float | None = None,
        std: float | None = None,
    ) -> None:
        runtime = runtime or MetricRuntime()
        file = obtain("webface-r50", path=path, folder=runtime.weights_dir, download=runtime.download)
        self._path = file
        self._embedder: OnnxEmbedder | None = None
        self.device = runtime.device if runtime.device.startswith("cuda") and onnxruntime_has_cuda() else "cpu"
        self._rule = input_rule(file, mean, std)
        values = f"x=({self._rule.mean:g},{self._rule.std:g})"
        self.signature = f"onnx:{file.signature}|{values}|crop=6.25-93.75% area 112 unrounded"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_embedder": None}

    def __call__(self, image: torch.Tensor) -> NDArray[np.float32]:
        """Return float32 [dim] from float32 [3, H, W] in 0..1."""
        import torch

        if self._embedder is None:
            self._embedder = OnnxEmbedder(
                self._path, self._rule.mean, self._rule.std, device=self.device, fall_back=True
            )
        height, width = image.shape[-2:]
        rows = slice(int(height * 0.0625), int(height * 0.9375))
        columns = slice(int(width * 0.0625), int(width * 0.9375))
        size = (self._embedder.face_size,) * 2
        face = torch.nn.functional.interpolate(image[None, :, rows, columns], size, mode="area")
        levels = (face * 255.0).permute(0, 2, 3, 1).cpu().numpy()
        return np.asarray(self._embedder(np.ascontiguousarray(levels, dtype=np.float32))[0])


class EmbeddingCache:
    """Vectors of images, cached by content hash, so that a ground truth or reference is embedded once.

    Args:
        embedder: the network and crop.
        capacity: vectors kept; the least recently used goes first.
    """

    def __init__(self, embedder: FaceEmbedder, capacity: int = 4096) -> None:
        self.embedder = embedder
        self._capacity = capacity
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def get(self, images: Sequence[torch.Tensor] | torch.Tensor, index: int, ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the vector of ``images[index]``; the image is not touched when its hash is cached."""
        key = ids[index] if index < len(ids) else ""
        if key and key in self._vectors:
            self._vectors.move_to_end(key)
            return self._vectors[key]
        vector = self.embedder(images[index])
        if key:
            self._vectors[key] = vector
            if len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)
        return vector


class IdentityMetric(Metric):
    """Similarity of embeddings; subclasses say whose, and call `_configure`."""

    higher_is_better = True
    role = "identity"
    target = "gt"
    unit = "cosine"

    def _configure(self, cache: EmbeddingCache, target: str, unit: str, drop_below: float | None = None) -> None:
        traits = self.describe({"target": target, "unit": unit})
        self.cache, self.target, self.unit, self.drop_below = cache, target, unit, drop_below
        self.device = cache.embedder.device
        self.needs, self.higher_is_better = traits.needs, traits.higher_is_better
        dropped = "" if drop_below is None else f"|pairs under {drop_below:g} dropped"
        self.signature = f"ids|{cache.embedder.signature}|vs {TARGETS[target]}|{unit}{dropped}|v1"

    @classmethod
    def describe(cls, options: Mapping[str, object]) -> MetricTraits:
        """Return the traits: ``target`` says what is needed, ``unit`` the direction.

        Raises:
            ConfigError: an unknown target or unit.
        """
        target, unit = str(options.get("target") or cls.target), str(options.get("unit", cls.unit))
        for value, known, what in ((target, tuple(TARGETS), "target"), (unit, UNITS, "unit")):
            if value not in known:
                raise ConfigError(
                    f"ids: {what} '{value}' is not known.{did_you_mean(value, known)} Known: {', '.join(known)}"
                )
        return MetricTraits(unit == "cosine", frozenset({"gt" if target == "gt" else "references"}), cls.role)

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]; NaN for a case without references."""
        return np.array([self._value(batch, index) for index in range(len(batch))], dtype=np.float64)

    def left_out(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which values are below ``drop_below``."""
        return np.asarray(values < (-np.inf if self.drop_below is None else self.drop_below))

    def _value(self, batch: MetricBatch, index: int) -> float:
        output = self.cache.get(batch.output, index, batch.output_ids).astype(np.float64)
        if self.target == "gt":
            wanted = [self.cache.get(ground_truth(batch), index, batch.gt_ids)]
        else:
            images = batch.references[index] if index < len(batch.references) else ()
            ids = batch.reference_ids[index] if index < len(batch.reference_ids) else ()
            count = min(len(images), 1) if self.target == "first" else len(images)
            wanted = [self.cache.get(images, rank, ids) for rank in range(count)]
        if not wanted:
            return float("nan")
        cosines = np.clip([cosine(output, vector.astype(np.float64)) for vector in wanted], -1.0, 1.0)
        values = cosines if self.unit == "cosine" else np.degrees(np.arccos(cosines))
        best = values.max() if self.higher_is_better else values.min()
        return float(values.mean() if self.target == "mean" else best)


def cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the cosine of two vectors."""
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths > 0.0 else float("nan")


class IDS(IdentityMetric):
    """Identity similarity of an output with its ground truth or its references.

    Args:
        cache: where vectors come from.
        target: ``"gt"``; ``"first"``: the first reference; ``"best"``: the most similar reference; ``"mean"``: the
            mean over the references' similarities.
        unit: ``"cosine"`` (higher is better) or ``"degrees"``, the angle (lower is better).
        drop_below: values below it are left out of the mean, as the VQFR family does with pairs under 1 degree.
    """

    def __init__(
        self, cache: EmbeddingCache, target: str = "gt", unit: str = "cosine", drop_below: float | None = None
    ) -> None:
        self._configure(cache, target, unit, drop_below)


class EmbedderIDS(IdentityMetric):
    """IDS with an embedder of `ffhqref.faces`, by default the run's own.

    Args:
        target: see `IDS`; None: the one of the class.
        embedder: name in ``EMBEDDERS``.
        crop: name of the crop.
        unit: see `IDS`.
        options: of the embedder, for instance ``path``.
    """

    def __init__(
        self,
        target: str | None = None,
        embedder: str = "dlib",
        crop: str = "ffhq_template",
        unit: str = "cosine",
        **options: Any,
    ) -> None:
        target = target or self.target
        self.describe({"target": target, "unit": unit})
        self._configure(EmbeddingCache(CroppedEmbedder(embedder, options, crop)), target, unit)


class FirstReferenceIDS(EmbedderIDS):
    """`EmbedderIDS` against the first reference, as IConFace and RIP print it."""

    needs = frozenset({"references"})
    target = "first"


class BestReferenceIDS(FirstReferenceIDS):
    """`EmbedderIDS` against the most similar reference."""

    target = "best"


class MeanReferenceIDS(FirstReferenceIDS):
    """`EmbedderIDS` as the mean of the similarities with all references."""

    target = "mean"


class RefldmIDS(IdentityMetric):
    """ReF-LDM's IDS: cosine, R50 WebFace12M, centre crop (``scripts/eval.py``).

    ReF-LDM was trained with a loss of this very network: show a second embedder beside it.

    Args:
        path: see `RefldmEmbedder`.
        target: see `IDS`.
        runtime: where weights lie and the network runs.
        mean: see `RefldmEmbedder`.
        std: see `RefldmEmbedder`.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        target: str = "gt",
        runtime: MetricRuntime | None = None,
        mean: float | None = None,
        std: float | None = None,
    ) -> None:
        self.describe({"target": target})
        self._configure(EmbeddingCache(RefldmEmbedder(path, runtime, mean, std)), target, "cosine")


def share_caches(metrics: Sequence[Metric]) -> None:
    """Let metrics with equal embedders share one cache, so that each image is embedded once for all of them."""
    caches: dict[str, EmbeddingCache] = {}
    for metric in metrics:
        if isinstance(metric, IdentityMetric):
            metric.cache = caches.setdefault(metric.cache.embedder.signature, metric.cache)
