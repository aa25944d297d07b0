"""The cases of a benchmark as a torch data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from ffhqref.core.errors import ConfigError
from ffhqref.core.images import SIZE, read_rgb, to_tensor
from ffhqref.training.dataset import Example

if TYPE_CHECKING:
    from ffhqref.api.case import Case


class CaseExamples(Dataset[Example]):
    """Cases as examples, images in 0..1; see `ffhqref.api.benchmarks.Cases.torch`."""

    def __init__(self, cases: Sequence[Case], references: int | None = None) -> None:
        lacking = [case.case_id for case in cases if case.gt_path is None]
        if lacking:
            raise ConfigError(f"{len(lacking)} cases have no ground truth, first {lacking[0]}; read them one by one")
        self._cases, self._most = list(cases), references

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> Example:
        """Return the example of a case."""
        case = self._cases[index]
        paths = case.reference_paths[: self._most]
        lq, gt = to_tensor([case.lq, read_rgb(str(case.gt_path), SIZE)])
        given = to_tensor([read_rgb(path, SIZE) for path in paths]) if paths else torch.zeros((0, 3, SIZE, SIZE))
        return Example(lq, given, gt, case.case_id, tuple(path.stem for path in paths))
