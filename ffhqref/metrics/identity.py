"""IDS, identity similarity, in each published form: network, crop, target and unit are named, never implied.

Four different numbers are called IDS in the field (protocols.md 8.1, restorers.md 7): the cosine of ArcFace R50
vectors on ReF-LDM's centre crop; the angle of a grey ResNet-18 (VQFR family); aligned antelopev2; and unnamed ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.images import to_uint8
from ffhqref.faces.embedders import OnnxEmbedder, onnxruntime_has_cuda
from ffhqref.metrics.base import MetricBatch, Runtime, ground_truth
from ffhqref.weights import files as weights

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

TARGETS = ("gt", "first", "best", "mean")
UNITS = ("cosine", "degrees")


class Vectoriser(Protocol):
    """What turns one aligned face into a vector: a network together with a crop. It must pickle."""

    @property
    def signature(self) -> str:
        """Return network, weights hash, preprocessing and crop."""
        ...

    def __call__(self, picture: torch.Tensor) -> NDArray[np.float32]:
        """Return float32 [dim] from float32 [3, 512, 512] in 0..1 RGB."""
        ...


class EmbedderVectoriser:
    """An embedder of `ffhqref.faces` on a named crop.

    Args:
        embedder: name in ``EMBEDDERS``.
        options: of the embedder, for instance ``path``.
        crop: see ``ffhqref.faces.crops.crop_faces``.
    """

    def __init__(self, embedder: str, options: dict[str, Any], crop: str) -> None:
        from ffhqref.faces import make_embedder

        self._name, self._options, self.crop = embedder, dict(options), crop
        self._embedder: Any = make_embedder(embedder, **self._options)
        self.signature = f"{self._embedder.signature}|crop={crop}"
        self.device = str(getattr(self._embedder, "device", "cpu"))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_embedder": None}  # networks do not pickle; a worker loads its own

    def __call__(self, picture: torch.Tensor) -> NDArray[np.float32]:
        """Return float32 [dim] from float32 [3, 512, 512] in 0..1."""
        from ffhqref.faces import embed, make_embedder

        if self._embedder is None:
            self._embedder = make_embedder(self._name, **self._options)
        return np.asarray(embed(to_uint8(picture[None]), self._embedder, self.crop)[0])


class RefldmVectoriser:
    """ReF-LDM's ``scripts/eval.py`` step by step: R50 WebFace12M on the unrounded centre crop.

    Rows and columns 6.25 % to 93.75 %, area interpolation to 112x112, values in -1..1, no alignment, no flip.

    Args:
        path: the ONNX file; None: found through ``ffhqref.weights.files`` (``webface-r50``).
        runtime: where weights lie and the network runs: on CUDA where onnxruntime has it, else on the CPU.
    """

    def __init__(self, path: str | Path | None = None, runtime: Runtime | None = None) -> None:
        runtime = runtime or Runtime()
        file = weights.require("webface-r50", path=path, folder=runtime.weights_dir, download=runtime.download)
        self._path = file.path
        self._embedder: Any = None
        self.device = runtime.device if runtime.device.startswith("cuda") and onnxruntime_has_cuda() else "cpu"
        self.signature = f"onnx:{file.signature}|x=(0.5,0.5)|crop=6.25-93.75% area 112 unrounded"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_embedder": None}

    def __call__(self, picture: torch.Tensor) -> NDArray[np.float32]:
        """Return float32 [dim] from float32 [3, H, W] in 0..1."""
        import torch

        if self._embedder is None:
            self._embedder = OnnxEmbedder(self._path, device=self.device, fall_back=True)
        height, width = picture.shape[-2:]
        rows = slice(int(height * 0.0625), int(height * 0.9375))
        columns = slice(int(width * 0.0625), int(width * 0.9375))
        size = (self._embedder.face_size,) * 2
        face = torch.nn.functional.interpolate(picture[None, :, rows, columns], size, mode="area")
        levels = (face * 255.0).permute(0, 2, 3, 1).cpu().numpy()
        return np.asarray(self._embedder(np.ascontiguousarray(levels, dtype=np.float32))[0])


class VectorBank:
    """Vectors of pictures, remembered by content hash, so that a ground truth or reference is embedded once.

    Args:
        vectoriser: the network and crop.
        capacity: vectors kept; the least recently used goes first.
    """

    def __init__(self, vectoriser: Vectoriser, capacity: int = 4096) -> None:
        self.vectoriser = vectoriser
        self._capacity = capacity
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def get(
        self, pictures: Sequence[torch.Tensor] | torch.Tensor, index: int, ids: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return the vector of ``pictures[index]``; the picture is not touched when its hash is remembered."""
        key = ids[index] if index < len(ids) else ""
        if key and key in self._vectors:
            self._vectors.move_to_end(key)
            return self._vectors[key]
        vector = self.vectoriser(pictures[index])
        if key:
            self._vectors[key] = vector
            if len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)
        return vector


class IDS:
    """Identity similarity of an output with its ground truth or its references.

    Args:
        bank: where vectors come from.
        target: ``"gt"``; ``"first"``: the first reference; ``"best"``: the most similar reference; ``"mean"``: the
            mean over the references' similarities.
        unit: ``"cosine"`` (higher is better) or ``"degrees"``, the angle (lower is better).
        drop_below: values below it have no value (NaN): the VQFR family leaves pairs under 1 degree out of its mean.
    """

    def __init__(
        self, bank: VectorBank, target: str = "gt", unit: str = "cosine", drop_below: float | None = None
    ) -> None:
        for value, known, what in ((target, TARGETS, "target"), (unit, UNITS, "unit")):
            if value not in known:
                raise ConfigError(
                    f"ids: {what} '{value}' is not known.{did_you_mean(value, known)} Known: {', '.join(known)}"
                )
        self.bank, self.target, self.unit, self.drop_below = bank, target, unit, drop_below
        self.device = str(getattr(bank.vectoriser, "device", "cpu"))
        self.needs = frozenset({"gt" if target == "gt" else "references"})
        self.higher_is_better = unit == "cosine"
        dropped = "" if drop_below is None else f"|pairs under {drop_below:g} dropped"
        self.signature = f"ids|{bank.vectoriser.signature}|vs {_TARGET_TEXT[target]}|{unit}{dropped}|v1"

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]; NaN for a case without references, or dropped."""
        return np.array([self._value(batch, index) for index in range(len(batch))], dtype=np.float64)

    def _value(self, batch: MetricBatch, index: int) -> float:
        output = self.bank.get(batch.output, index, batch.output_ids).astype(np.float64)
        if self.target == "gt":
            wanted = [self.bank.get(ground_truth(batch), index, batch.gt_ids)]
        else:
            pictures = batch.references[index] if index < len(batch.references) else ()
            ids = batch.reference_ids[index] if index < len(batch.reference_ids) else ()
            count = min(len(pictures), 1) if self.target == "first" else len(pictures)
            wanted = [self.bank.get(pictures, rank, ids) for rank in range(count)]
        if not wanted:
            return float("nan")
        cosines = np.clip([cosine(output, vector.astype(np.float64)) for vector in wanted], -1.0, 1.0)
        values = cosines if self.unit == "cosine" else np.degrees(np.arccos(cosines))
        best = values.max() if self.higher_is_better else values.min()
        value = float(values.mean() if self.target == "mean" else best)
        return float("nan") if self.drop_below is not None and value < self.drop_below else value


_TARGET_TEXT = {
    "gt": "gt",
    "first": "first reference",
    "best": "best reference",
    "mean": "references, mean of similarities",
}


def cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the cosine of two vectors."""
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths > 0.0 else float("nan")


def ids(
    target: str = "gt",
    embedder: str = "dlib",
    crop: str = "ffhq_template",
    unit: str = "cosine",
    **options: Any,
) -> IDS:
    """Return IDS with an embedder of `ffhqref.faces`, by default the run's own.

    Args:
        target: see `IDS`.
        embedder: name in ``EMBEDDERS``.
        crop: name of the crop.
        unit: see `IDS`.
        options: of the embedder, for instance ``path``.
    """
    return IDS(VectorBank(EmbedderVectoriser(embedder, options, crop)), target, unit)


def ids_ref(embedder: str = "dlib", **options: Any) -> IDS:
    """Return `ids` against the first reference, as IConFace and RIP print it (protocols.md 3.3)."""
    return ids("first", embedder, **options)


def ids_ref_best(embedder: str = "dlib", **options: Any) -> IDS:
    """Return `ids` against the most similar reference."""
    return ids("best", embedder, **options)


def ids_ref_mean(embedder: str = "dlib", **options: Any) -> IDS:
    """Return `ids` as the mean of the similarities with all references."""
    return ids("mean", embedder, **options)


def ids_refldm(path: str | Path | None = None, target: str = "gt", runtime: Runtime | None = None) -> IDS:
    """Return ReF-LDM's IDS: cosine, R50 WebFace12M, centre crop (``scripts/eval.py``; protocols.md 3.1).

    ReF-LDM was trained with a loss of this very network (restorers.md 4.8): show a second embedder beside it.
    """
    return IDS(VectorBank(RefldmVectoriser(path, runtime)), target)


def ids_grey_r18(path: str | Path | None = None, drop_identical: bool = False, runtime: Runtime | None = None) -> IDS:
    """Return the VQFR family's "Deg": angle of grey ResNet-18 vectors against the ground truth (protocols.md 3.2).

    Args:
        path: ``resnet18_110.pth``; None: found through ``ffhqref.weights.files``.
        drop_identical: leave pairs under 1 degree without a value, as the published script leaves them out of its
            mean. Off by default: a mean over fewer cases flatters.
        runtime: where weights lie and the network runs.
    """
    from ffhqref.metrics.grey_arcface import GreyVectoriser

    return IDS(VectorBank(GreyVectoriser(path, runtime)), "gt", "degrees", drop_below=1.0 if drop_identical else None)


def share_banks(metrics: Sequence[Any]) -> None:
    """Let metrics that embed alike share one bank, so that each picture is embedded once for all of them."""
    banks: dict[str, VectorBank] = {}
    for metric in metrics:
        if isinstance(metric, IDS):
            metric.bank = banks.setdefault(metric.bank.vectoriser.signature, metric.bank)
