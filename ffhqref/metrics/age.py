"""Age error: how many years older or younger the restored face looks than the ground truth, to one age model."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ffhqref.core.errors import WeightsError
from ffhqref.core.images import SIZE, to_uint8
from ffhqref.faces.ages import AgeModel, make_age_model
from ffhqref.metrics.base import MetricBatch, ground_truth

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

_REMEMBERED = 4096
"""Ages of ground truths that are kept: every method is compared with the same ones."""


class AgeError:
    """|age(output) - age(ground truth)| in years, both told by the same network.

    The model's own error cancels where it errs alike on both pictures; what the person's age is plays no part. Ages
    are taken as the network says them, also those outside a human life, so that no error is hidden.

    Args:
        model: name in `ffhqref.faces.ages.AGE_MODELS`; None: ``insightface``.
        path: the model's file or folder, where it has one.

    Raises:
        WeightsError: no file is named, or it is not there.
        DependencyError: the model's package is not installed.
    """

    higher_is_better: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"gt"})

    def __init__(self, model: str | None = None, path: str | Path | None = None) -> None:
        name = model or "insightface"
        if name == "insightface" and path is None:
            raise WeightsError("age_error: no age model named; set ages.path to a model pack folder or genderage.onnx")
        self._name, self._options = name, {} if path is None else {"path": path}
        self._model: AgeModel | None = make_age_model(name, **self._options)
        self._known: OrderedDict[str, float] = OrderedDict()
        self.signature = f"age_error|{self._model.signature}|years vs gt|v1"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None, "_known": OrderedDict()}

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B] in years."""
        truth = ground_truth(batch)
        pairs = zip(batch.output, truth, batch.gt_ids or [""] * len(batch), strict=True)
        return np.array([abs(self._age(output) - self._of_truth(gt, key)) for output, gt, key in pairs], np.float64)

    def _of_truth(self, picture: torch.Tensor, key: str) -> float:
        if key in self._known:
            return self._known[key]
        age = self._age(picture)
        if key:
            self._known[key] = age
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return age

    def _age(self, picture: torch.Tensor) -> float:
        if self._model is None:
            self._model = make_age_model(self._name, **self._options)
        image = to_uint8(picture[None])[0]
        if image.shape[:2] != (SIZE, SIZE):
            from PIL import Image

            image = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        return float(self._model(image[None])[0])
