"""What a restorer must keep to: checks of each output, and a dry run on synthetic cases before a long run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import FfhqrefError, one_line
from ffhqref.restorers.base import PartialResult, RestorationBatch, Restorer, RestorerInfo
from ffhqref.restorers.duck_typed import as_restorer

if TYPE_CHECKING:
    import torch

OVERSHOOT = 0.05
"""How far a value may lie outside 0..1 before the output counts as of another range; up to there it is clamped."""

BATCH_TOLERANCE = 1 / 510
"""Largest difference between a case alone and in a batch: half a grey level."""


class WrongOutputError(FfhqrefError):
    """An output that breaks the restorer's contract, told in one line."""


def checked_batch(output: Any, shape: tuple[int, ...]) -> torch.Tensor:
    """Return an output as it is when type, shape and number type are right.

    Args:
        output: what `restore` returned.
        shape: shape of the LQ batch, [B, 3, H, W].

    Raises:
        WrongOutputError: it is no tensor, of another shape, or not float32.
    """
    import torch

    if not isinstance(output, torch.Tensor):
        raise WrongOutputError(f"returned {type(output).__name__}, expected a float32 tensor {list(shape)}")
    if tuple(output.shape) != tuple(shape):
        raise WrongOutputError(f"wrong shape {list(output.shape)}, expected {list(shape)}")
    if output.dtype != torch.float32:
        raise WrongOutputError(f"wrong number type {output.dtype}, expected torch.float32")
    return output.detach().cpu()


def check_values(picture: torch.Tensor) -> None:
    """Check one restored image [3, H, W].

    Raises:
        WrongOutputError: NaN, infinity, or values of another range than 0..1.
    """
    finite = picture.isfinite()
    if not bool(finite.all()):
        raise WrongOutputError(f"{int((~finite).sum())} of {finite.numel()} values are NaN or infinite")
    low, high = float(picture.min()), float(picture.max())
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise WrongOutputError(f"values from {low:.3g} to {high:.3g}, expected 0..1 (clamp, or convert the range)")


def check_restorer(restorer: Any, size: int | None = None) -> list[str]:
    """Run a restorer on synthetic cases and return what is wrong with it; an empty list when nothing is.

    Checked: it runs with as many references as it says, from the fewest to the most; type, shape, number type and
    range of the output, on textured, constant and black-and-white images; the same result for the same seed where
    it says so, other results for other seeds where it says so; a batch equal to its cases one by one; inputs left as
    they were; a description that does not change.

    Args:
        restorer: a `Restorer`, or a plug-in with its members.
        size: side of the synthetic images; the restorer's own, or 64 where it takes any.
    """
    import torch

    restorer = as_restorer(restorer, "checked")
    if restorer.by_file:  # it has outputs for the cases of a workspace alone
        return []
    info = restorer.info
    side = size or info.input_size or 64
    try:
        batch = _synthetic(info, side)
        kept = (batch.lq.clone(), [references.clone() for references in batch.references])
        first = _run(restorer, batch)
    except Exception as error:  # noqa: BLE001 - a plug-in may fail in any way
        return [_told("a batch of synthetic cases", error)]
    problems = []
    if not torch.equal(batch.lq, kept[0]) or any(map(_differ, batch.references, kept[1])):
        problems.append("changes its input in place")
    try:
        problems += _repeated(restorer, info, side, first)
    except Exception as error:  # noqa: BLE001
        problems.append(_told("a second run", error))
    problems += _one_by_one(restorer, info, side, first)
    if info.min_references:
        fewer = _synthetic(info, side, references=info.min_references)
        try:
            _run(restorer, fewer)
        except Exception as error:  # noqa: BLE001
            problems.append(_told(f"the fewest references it takes ({info.min_references})", error))
    if restorer.info != info:
        problems.append("its description (info) changes during a run")
    return problems


def _one_by_one(restorer: Restorer, info: RestorerInfo, side: int, first: torch.Tensor) -> list[str]:
    import torch

    problems, alone = [], []
    for index in range(len(first)):
        case = _case(_synthetic(info, side), index)
        try:
            alone.append(_run(restorer, case)[0])
        except Exception as error:  # noqa: BLE001
            problems.append(_told(f"a batch of one ({case.case_ids[0]})", error))
    if info.deterministic and len(alone) == len(first):
        difference = float((torch.stack(alone) - first).abs().max())
        if difference > BATCH_TOLERANCE:
            problems.append(f"a case in a batch differs from the same case alone by {difference:.3g}")
    return problems


def _repeated(restorer: Restorer, info: RestorerInfo, side: int, first: torch.Tensor) -> list[str]:
    problems = []
    if info.deterministic and _differ(_run(restorer, _synthetic(info, side)), first):
        problems.append("the same seeds give another result, though info.deterministic is True")
    if info.deterministic:
        changed = _differ(_run(restorer, _synthetic(info, side, seed=77)), first)
        if changed and not info.uses_seed:
            problems.append("other seeds give another result, though info.uses_seed is False")
        if info.uses_seed and not changed:
            problems.append("other seeds give the same result, though info.uses_seed is True")
    return problems


def _run(restorer: Restorer, batch: RestorationBatch) -> torch.Tensor:
    import torch

    shape = tuple(batch.lq.shape)
    with torch.no_grad():
        made = restorer.restore(batch)
    if isinstance(made, PartialResult):
        for index, reason in made.reasons.items():
            raise WrongOutputError(f"the case '{batch.case_ids[index]}' failed: {reason}")
        made = made.images
    output = checked_batch(made, shape)
    for picture in output:
        check_values(picture)
    return output


def _synthetic(info: RestorerInfo, side: int, seed: int = 1, references: int | None = None) -> RestorationBatch:
    """Return four cases: two textured images, mid-grey, black and white; references from the most to the fewest."""
    import torch

    rng = np.random.default_rng(0)

    def textured() -> np.ndarray:
        coarse = rng.random((3, 8, 8), dtype=np.float32)
        large = np.kron(coarse, np.ones((1, -(-side // 8), -(-side // 8)), np.float32))[:, :side, :side]
        made: np.ndarray = np.clip(large + rng.normal(0, 0.03, large.shape).astype(np.float32), 0, 1)
        return made

    halves = np.zeros((3, side, side), np.float32)
    halves[..., side // 2 :] = 1
    pictures = [textured(), textured(), np.full((3, side, side), 128 / 255, np.float32), halves]
    most = max(info.min_references, 3 if info.max_references is None else min(info.max_references, 3))
    counts = [references if references is not None else max(info.min_references, most - i) for i in range(4)]
    strips = [np.stack([textured() for _ in range(n)]) if n else np.zeros((0, 3, side, side)) for n in counts]
    return RestorationBatch(
        lq=torch.from_numpy(np.stack(pictures)),
        references=[torch.from_numpy(strip.astype(np.float32)) for strip in strips],
        seeds=[seed + index for index in range(4)],
        case_ids=["textured", "textured 2", "constant grey", "black and white"],
        ages=[30.0, None, 50.0, None],
    )


def _case(batch: RestorationBatch, index: int) -> RestorationBatch:
    part = slice(index, index + 1)
    return RestorationBatch(
        lq=batch.lq[part].clone(),
        references=batch.references[part],
        seeds=batch.seeds[part],
        case_ids=batch.case_ids[part],
        ages=None if batch.ages is None else batch.ages[part],
    )


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    return not torch.equal(one, other)


def _told(when: str, error: Exception) -> str:
    return f"{when}: {'' if isinstance(error, WrongOutputError) else 'raises '}{one_line(error)}"
