"""Age error: by how many years the apparent age of the output differs from the ground truth's."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import WeightsError
from ffhqref.core.images import SIZE, to_uint8
from ffhqref.faces.ages import AgeModel, make_age_model
from ffhqref.faces.base import check_unchanged
from ffhqref.metrics.base import Metric, MetricBatch, ground_truth

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

_CACHED = 4096
"""Cached ages of ground truths: every method is compared with the same ones."""


class AgeError(Metric):
    """|age(output) - age(ground truth)| in years, both estimated by one network.

    The model's error cancels where it is the same on both images; the person's true age plays no part. Estimates are
    not clipped to a human life, so that no error is hidden.

    Args:
        model: name in `ffhqref.faces.ages.AGE_MODELS`; None: ``insightface``.
        path: the model's file or folder, where it has one.

    Raises:
        WeightsError: no file is named, or it does not exist.
        DependencyError: the model's package is not installed.
    """

    higher_is_better = False
    role = "age"

    def __init__(self, model: str | None = None, path: str | Path | None = None) -> None:
        name = model or "insightface"
        if name == "insightface" and path is None:
            raise WeightsError("age_error: no age model named; set ages.path to a model pack folder or genderage.onnx")
        self._name, self._options = name, {} if path is None else {"path": path}
        self._model: AgeModel | None = make_age_model(name, **self._options)
        self._known: OrderedDict[str, float] = OrderedDict()
        self.signature = _signature(self._model)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_model": None, "_known": OrderedDict()}

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B] in years."""
        truth = ground_truth(batch)
        pairs = zip(batch.output, truth, batch.gt_ids or [""] * len(batch), strict=True)
        return np.array([abs(self._age(output) - self._of_truth(gt, key)) for output, gt, key in pairs], np.float64)

    def _of_truth(self, image: torch.Tensor, key: str) -> float:
        if key in self._known:
            return self._known[key]
        age = self._age(image)
        if key:
            self._known[key] = age
            if len(self._known) > _CACHED:
                self._known.popitem(last=False)
        return age

    def _age(self, image: torch.Tensor) -> float:
        if self._model is None:
            made = make_age_model(self._name, **self._options)
            check_unchanged(_signature(made), self.signature)
            self._model = made
        levels = to_uint8(image[None])[0]
        if levels.shape[:2] != (SIZE, SIZE):
            from PIL import Image

            levels = np.asarray(Image.fromarray(levels).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        return float(self._model(levels[None])[0])


def _signature(model: AgeModel) -> str:
    return f"age_error|{model.signature}|years vs gt|v1"
