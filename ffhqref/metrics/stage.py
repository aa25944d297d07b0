"""The stage that scores: one metric on one output, each image decoded once for all metrics of a batch."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, overload

from ffhqref.core.errors import FfhqrefError, ImageError
from ffhqref.core.hashing import content_key
from ffhqref.core.images import SIZE, read_rgb, to_tensor
from ffhqref.engine import Stage
from ffhqref.engine.base import GPU_SHARE
from ffhqref.metrics.base import Metric, MetricBatch
from ffhqref.metrics.identity import share_caches

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class MetricRow:
    """One metric on one output."""

    metric: str
    output_path: str
    output_sha256: str
    gt_path: str | None
    gt_sha256: str | None
    reference_paths: tuple[str, ...]
    reference_sha256: tuple[str, ...]

    @property
    def case(self) -> tuple[str | tuple[str, ...] | None, ...]:
        """Return the contents of the images; equal for all metrics of an output."""
        return self.output_sha256, self.gt_sha256, self.reference_sha256


@dataclass(frozen=True)
class MetricResult:
    """The value of a `MetricRow`, or why there is none."""

    value: float | None
    status: str
    """See `ffhqref.metrics.scoring.score`."""
    error: str | None = None
    retry: bool | None = None
    """True: failed for reasons outside the images, to be tried again."""
    judged: bool | None = None
    """True: failed, and it was looked into whether the output is to blame."""


class _UnreadableError(ImageError):
    """A file changed or cannot be read. It may come back, so it is tried again; other errors lie in the image."""


class _References(Sequence["torch.Tensor"]):
    """References of one case, decoded on access: one whose vector is cached is never read."""

    def __init__(self, stage: ScoreStage, paths: Sequence[str], hashes: Sequence[str]) -> None:
        self._stage, self._paths, self._hashes = stage, paths, hashes

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[torch.Tensor]: ...
    def __getitem__(self, index: int | slice) -> torch.Tensor | Sequence[torch.Tensor]:
        if isinstance(index, slice):
            return _References(self._stage, self._paths[index], self._hashes[index])
        return to_tensor([self._stage.image(self._paths[index], self._hashes[index])])[0]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[index] for index in range(len(self)))


class ScoreStage(Stage[MetricRow, MetricResult]):
    """Compute values, see `ffhqref.metrics.scoring.score`.

    Args:
        metrics: by name.
        size: images of another size are resized to this square (PIL bicubic), as ReF-LDM's ``scripts/eval.py``
            does; None: sizes are kept, and must agree.
        cases_per_batch: outputs of one `process` call, with all their metrics.
    """

    name = "score"
    version = "1"

    def __init__(self, metrics: Mapping[str, Metric], size: int | None = SIZE, cases_per_batch: int = 8) -> None:
        self.metrics, self.size = dict(metrics), size
        self.batch_size = max(1, cases_per_batch * len(self.metrics))
        devices = {metric.device for metric in self.metrics.values() if metric.device.startswith("cuda")}
        self.gpus, self.any_gpu = GPU_SHARE if devices else 0.0, devices == {"cuda"}
        share_caches(list(self.metrics.values()))
        self._images: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_images": OrderedDict()}

    def key(self, row: MetricRow) -> str:
        """Return the content key."""
        metric = self.metrics[row.metric]
        gt = row.gt_sha256 if "gt" in metric.needs else None
        references = list(row.reference_sha256) if "references" in metric.needs else None
        return content_key(self.name, self.version, self.size, metric.signature, row.output_sha256, gt, references)

    def failure(self, row: MetricRow, reason: str) -> MetricResult:  # noqa: ARG002
        """Return the result of a row that ended its worker."""
        return MetricResult(None, "failed", reason, retry=True)

    def intact(self, row: MetricRow, result: MetricResult) -> bool:  # noqa: ARG002
        """Return whether the result stands; what failed for reasons outside the images is tried again."""
        return not result.retry and (result.status != "failed" or bool(result.judged))

    def process(self, rows: Sequence[MetricRow]) -> list[MetricResult]:
        """Compute one value a row; images of later cases are decoded while earlier ones are computed."""
        cases: dict[object, list[int]] = {}
        for position, row in enumerate(rows):
            cases.setdefault(row.case, []).append(position)
        results: dict[int, MetricResult] = {}
        firsts = [rows[positions[0]] for positions in cases.values()]
        with ThreadPoolExecutor(2) as pool:
            outputs = [pool.submit(self._read, row.output_path, row.output_sha256) for row in firsts]
            truths: dict[str, Future[NDArray[np.uint8]]] = {}
            for row in firsts:
                wanted = row.gt_sha256
                if row.gt_path and wanted and wanted not in truths and wanted not in self._images:
                    truths[wanted] = pool.submit(self._read, row.gt_path, wanted)
            for first, positions, output in zip(firsts, cases.values(), outputs, strict=True):
                metrics = [rows[position].metric for position in positions]
                values = self._case(first, metrics, output, truths.get(first.gt_sha256 or ""))
                results.update(zip(positions, values, strict=True))
        return [results[position] for position in range(len(rows))]

    def _case(
        self,
        row: MetricRow,
        metrics: Sequence[str],
        output: Future[NDArray[np.uint8]],
        gt: Future[NDArray[np.uint8]] | None,
    ) -> list[MetricResult]:
        try:
            truth = None
            if row.gt_path and row.gt_sha256:
                truth = self.image(row.gt_path, row.gt_sha256, None if gt is None else gt.result())
            batch = MetricBatch(
                output=to_tensor([output.result()]),
                gt=None if truth is None else to_tensor([truth]),
                references=[_References(self, row.reference_paths, row.reference_sha256)],
                output_ids=[row.output_sha256],
                gt_ids=[] if row.gt_sha256 is None else [row.gt_sha256],
                reference_ids=[row.reference_sha256],
            )
        except _UnreadableError as error:
            return [MetricResult(None, "failed", str(error), retry=True) for _ in metrics]
        return [_value(self.metrics[name], batch) for name in metrics]

    def _read(self, path: str, sha256: str) -> NDArray[np.uint8]:
        # the journal keeps values under this hash for ever, so the bytes must have it
        try:
            return read_rgb(path, self.size, sha256=sha256)
        except ImageError as error:
            raise _UnreadableError(str(error)) from None

    def image(self, path: str, sha256: str, read: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return a ground truth or reference, cached because many outputs share it.

        Args:
            path: the file.
            sha256: its hash, checked.
            read: what was read from it already.

        Raises:
            ImageError: the file cannot be read, or has another hash.
        """
        known = self._images.get(sha256)
        if known is None:
            known = self._read(path, sha256) if read is None else read
            self._images[sha256] = known
            if len(self._images) > _IMAGES_CACHED:
                self._images.popitem(last=False)
        return known


BLAMELESS = "undefined for the ground truth or a reference, whatever the output"
"""Why a value is left out that no method is to blame for."""

_IMAGES_CACHED = 96
"""Decoded images a worker caches, 0.75 MiB each at 512x512."""


def _value(metric: Metric, batch: MetricBatch) -> MetricResult:
    """Return the value of a metric; one that has none even for a perfect output is left out, for all methods alike."""
    found = _measured(metric, batch)
    if found.status != "failed" or found.retry:
        return found
    perfect = _perfect(metric, batch)
    other = None if perfect is None else _measured(metric, perfect)
    if other is None or other.status != "failed" or other.retry:
        return replace(found, judged=True)
    return MetricResult(None, "left_out", f"{BLAMELESS}: {other.error}")


def _perfect(metric: Metric, batch: MetricBatch) -> MetricBatch | None:
    """Return the case with what the metric compares with as its output; None where it compares with nothing."""
    if "gt" in metric.needs and batch.gt is not None:
        return replace(batch, output=batch.gt, output_ids=batch.gt_ids)
    if "references" in metric.needs and len(batch.references[0]):
        try:
            return replace(batch, output=batch.references[0][0][None], output_ids=batch.reference_ids[0][:1])
        except _UnreadableError:
            return None
    return None


def _measured(metric: Metric, batch: MetricBatch) -> MetricResult:
    try:
        values = metric(batch)[:1]
        value, left_out = float(values[0]), bool(metric.left_out(values)[0])
    except _UnreadableError as error:  # of a reference
        return MetricResult(None, "failed", str(error), retry=True)
    except FfhqrefError as error:
        return MetricResult(None, "failed", str(error))
    except Exception as error:  # noqa: BLE001 - a metric out of memory or with a defect must not end the run
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return MetricResult(None, "failed", reason, retry=True)
    if left_out:
        return MetricResult(None, "left_out")
    if math.isnan(value):
        return MetricResult(None, "failed", "the metric is undefined for this image")
    return MetricResult(value, "ok")
