"""Metrics as functions of images, with the values and the signature of the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.api.images import as_image, as_images, as_square, is_single
from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_bytes
from ffhqref.core.images import SIZE, to_tensor
from ffhqref.metrics import MetricBatch, MetricRuntime, make_metric
from ffhqref.metrics.scoring import size_note

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ffhqref.api.images import Pictures
    from ffhqref.api.torchmetric import CaseMean
    from ffhqref.metrics import Metric


class MetricFunction:
    """A metric of single images; make one with `metric`.

    Args:
        made: the metric.
        size: see `metric`.
    """

    def __init__(self, made: Metric, size: int | None = SIZE) -> None:
        self.metric, self.size = made, size

    @property
    def signature(self) -> str:
        """Everything the value depends on, as the leaderboard has it."""
        return self.metric.signature + size_note(self.size)

    @property
    def higher_is_better(self) -> bool:
        """Direction."""
        return self.metric.higher_is_better

    @property
    def needs(self) -> frozenset[str]:
        """What is needed beside the output: ``gt``, ``references``."""
        return self.metric.needs

    def __call__(
        self,
        output: Pictures,
        *,
        gt: Pictures | None = None,
        lq: Pictures | None = None,  # noqa: ARG002 - no metric needs it so far
        references: Sequence[Any] | torch.Tensor | NDArray[Any] | None = None,
    ) -> float | NDArray[np.float64]:
        """Return the value of one output, or float64 [B] of several.

        NaN where the metric is undefined, or its definition leaves the value out. Images are rounded to 8 bit, as
        outputs are when they are saved, and brought to `size`: the value is that of table ``scores``, bit for bit.

        Args:
            output: image or images, see `ffhqref.api.images`.
            gt: the ground truth of each.
            lq: the low-quality input of each; accepted, and used by no metric so far.
            references: of one output: its references, best first; of several: such a sequence for each.

        Raises:
            FfhqrefError: something that the metric needs is missing, or an image cannot be used; one line.
        """
        single = is_single(output)
        outputs = self._images(output, "output")
        truths = None if gt is None else self._images(gt, "gt")
        given = None if references is None else [references] if single else list(references)
        for name, found in (("gt", truths), ("references", given)):
            if name in self.needs and found is None:
                raise ConfigError(f"this metric needs {name}=…: {self.signature}")
            if found is not None and len(found) != len(outputs):
                raise ConfigError(f"{len(outputs)} outputs, but {name} of {len(found)}; expected one for each")
        values = [
            self._value(
                image,
                None if truths is None else truths[index],
                given[index] if given is not None and "references" in self.needs else (),
            )
            for index, image in enumerate(outputs)
        ]
        return values[0] if single else np.array(values, dtype=np.float64)

    def as_torchmetric(self) -> CaseMean:
        """Return a ``torchmetrics.Metric`` of the mean over cases (`ffhqref.api.torchmetric.CaseMean`).

        Raises:
            DependencyError: torchmetrics is not installed.
        """
        from ffhqref.api.torchmetric import make_case_mean

        return make_case_mean(self)

    def _images(self, given: Pictures, what: str) -> list[NDArray[np.uint8]]:
        images = as_images(given, what)
        return images if self.size is None else [as_square(image, self.size, what) for image in images]

    def _value(self, output: NDArray[np.uint8], gt: NDArray[np.uint8] | None, references: Any) -> float:
        shown = [as_image(one, "references") for one in references]
        shown = shown if self.size is None else [as_square(image, self.size, "references") for image in shown]
        batch = MetricBatch(
            output=to_tensor([output]),
            gt=None if gt is None else to_tensor([gt]),
            references=[[to_tensor([image])[0] for image in shown]],
            output_ids=[_hash(output)],
            gt_ids=[] if gt is None else [_hash(gt)],
            reference_ids=[[_hash(image) for image in shown]],
        )
        values = self.metric(batch)[:1]
        return float("nan") if bool(self.metric.left_out(values)[0]) else float(values[0])


def metric(
    name: str,
    *,
    size: int | None = SIZE,
    device: str = "cpu",
    weights_dir: str | Path | None = None,
    download: bool = False,
    embedder: str | Mapping[str, Any] | None = None,
    **options: Any,
) -> MetricFunction:
    """Return a metric as a function of images.

    Args:
        name: see `ffhqref.list_metrics`; ``pyiqa:NAME`` for any of pyiqa's metrics of single images.
        size: square images of another size are resized to this (bicubic), as for the leaderboard, and others refused;
            None: sizes are kept, and the signature says so.
        device: of a network: ``cpu``, ``cuda``.
        weights_dir: folder of weight files, looked into first.
        download: fetch a missing weight file.
        embedder: of identity metrics, where not the default one: a name, or ``name``, ``crop`` and options.
        options: of the metric (docs/config.md, `ffhqref run --cfg job`).

    Raises:
        FfhqrefError: unknown name or option, or missing weights; one line.

    >>> import numpy as np
    >>> psnr = metric("psnr", size=None)
    >>> psnr(np.zeros((8, 8, 3), np.uint8), gt=np.full((8, 8, 3), 255, np.uint8)) < 0.1
    True
    """
    runtime = MetricRuntime(device, None if weights_dir is None else Path(weights_dir), download)
    return MetricFunction(make_metric(name, runtime=runtime, embedder=embedder, **options), size)


def _hash(image: NDArray[np.uint8]) -> str:
    return sha256_bytes(repr(image.shape).encode() + image.tobytes())
