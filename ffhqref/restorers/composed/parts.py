"""What composed restorers share: making their parts, running one, and what a whole is that consists of such parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, one_line
from ffhqref.core.seeding import seeded_generators
from ffhqref.restorers import make_restorer
from ffhqref.restorers.base import PartialResult, RestorationBatch, Restorer, RestorerInfo
from ffhqref.restorers.cache_key import restorer_identity
from ffhqref.restorers.check import WrongOutputError, check_values, checked_batch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Part:
    """A restorer inside another."""

    name: str
    """As it is registered, or the name of its class."""
    options: Mapping[str, Any]
    restorer: Restorer

    @property
    def info(self) -> RestorerInfo:
        """The restorer's own description."""
        return self.restorer.info

    @property
    def batch_size(self) -> int:
        """Cases it takes at once."""
        return int(getattr(self.restorer, "batch_size", 1))


class Composed:
    """Base of restorers that consist of parts; all that is told of the whole follows from them.

    Args:
        parts: in the order of their work.
        own: the whole's own options, JSON-like.
        name: as it is registered.
        summary: one line.
        batch_size: cases handed over at once; the largest of the parts' when None. Each part gets no more than it
            takes.
        facts: of `RestorerInfo`, where they do not follow from the parts.
    """

    version = "1"

    def __init__(
        self, parts: Sequence[Part], own: Mapping[str, Any], *, name: str, summary: str, batch_size: int | None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.parts = tuple(parts)
        self.batch_size = batch_size or max(part.batch_size for part in parts)
        self.info = dataclasses.replace(joint_info(name, summary, parts), **(facts or {}))
        self.key_options = {
            "parts": [restorer_identity(part.name, part.options, part.restorer) for part in parts], **own
        }  # fmt: skip
        self.eight_bit_rule = str(getattr(parts[-1].restorer, "eight_bit_rule", "round"))
        self.groups_references = any(getattr(part.restorer, "groups_references", False) for part in parts)
        self.in_process = all(getattr(part.restorer, "in_process", True) for part in parts)

    @property
    def device(self) -> str:
        """Where the first part works that is not on the CPU, else ``cpu``."""
        places = [str(getattr(part.restorer, "device", "cpu")) for part in self.parts]
        return next((place for place in places if place != "cpu"), "cpu")

    @property
    def one_at_a_time(self) -> bool:
        """Whether any part asks for it."""
        return any(
            getattr(part.restorer, "one_at_a_time", str(getattr(part.restorer, "device", "cpu")).startswith("cuda"))
            for part in self.parts
        )

    @property
    def weights_sha256(self) -> dict[str, str]:
        """SHA-256 of the parts' weight files by name; the part is told where two parts name one file differently."""
        found: dict[str, str] = {}
        for index, part in enumerate(self.parts, 1):
            for name, sha256 in (getattr(part.restorer, "weights_sha256", None) or {}).items():
                found[name if found.get(name, sha256) == sha256 else f"{name} (part {index})"] = sha256
        return found

    def restore(self, batch: RestorationBatch) -> torch.Tensor | PartialResult:
        """Return float32 [B, 3, H, W] in 0..1 RGB; see `base.Restorer`."""
        raise NotImplementedError


def make_part(spec: Any, where: str, device: str) -> Part:
    """Return the restorer that a part of a config names.

    Args:
        spec: a name, or its options with ``name`` or ``_target_``.
        where: in the config, for messages.
        device: the run's.

    Raises:
        ConfigError: it names none, or one that does not exist or start.
        WeightsError: its weights are missing.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec) if isinstance(spec, Mapping) else {}
    target = options.get("_target_")
    name = options.pop("name", None) or (str(target).rpartition(".")[2] if target else None)
    if not name:
        raise ConfigError(f"{where} names no restorer: {where}.name=NAME, with its options beside it")
    return Part(str(name), options, make_restorer(str(name), **{"device": device, **options}))


def run_part(part: Part, batch: RestorationBatch) -> tuple[torch.Tensor, dict[int, str]]:
    """Run a part over a batch, in pieces of the size it takes.

    As in a run of its own, the global generators are seeded for each piece, and a piece that fails is run again case
    by case.

    Args:
        part: which gets as many of the references as it takes.
        batch: left as it is.

    Returns:
        float32 [B, 3, H, W] in 0..1 on the CPU, and the index and reason of each case that failed.
    """
    import torch

    pictures, reasons = torch.zeros_like(batch.lq, device="cpu"), dict[int, str]()
    size = max(1, part.batch_size)
    for start in range(0, len(batch), size):
        indices = range(start, min(start + size, len(batch)))
        reasons |= _run(part, batch, indices, pictures)
    return pictures, reasons


def _run(part: Part, batch: RestorationBatch, indices: Sequence[int], pictures: torch.Tensor) -> dict[int, str]:
    """Fill in the pictures of these cases, and return the reasons of those that failed alone."""
    import torch

    from ffhqref.zoo.refldm.batching import out_of_memory, release_memory

    piece = subset(batch, indices, references=part.info.max_references)
    reasons: dict[int, str] = {}
    try:
        with seeded_generators(piece.seeds[0]), torch.no_grad():
            made = part.restorer.restore(piece)
        if isinstance(made, PartialResult):
            reasons = {indices[index]: reason for index, reason in made.reasons.items()}
            made = made.pictures
        made = checked_batch(made, tuple(piece.lq.shape))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may fail in any way
        memory = out_of_memory(error)
        why = f"out of memory: {one_line(error)}" if memory else one_line(error)
    else:
        for index, picture in zip(indices, made, strict=True):
            if index not in reasons:
                try:
                    check_values(picture)
                except WrongOutputError as error:
                    alone = len(indices) == 1
                    reasons |= {index: str(error)} if alone else _run(part, batch, [index], pictures)
                else:
                    pictures[index] = picture.clamp(0.0, 1.0)
        return reasons
    # outside the handler, where its traceback holds no tensors any more
    if memory:
        release_memory()
    if len(indices) == 1:
        return {indices[0]: why}
    return {key: reason for index in indices for key, reason in _run(part, batch, [index], pictures).items()}


def subset(
    batch: RestorationBatch, indices: Sequence[int], *, lq: torch.Tensor | None = None, references: int | None = None
) -> RestorationBatch:
    """Return some cases of a batch, with copies of their pictures.

    Args:
        batch: all cases.
        indices: of the wanted ones.
        lq: other inputs for all cases of ``batch``.
        references: keep at most this many of each case; None: all.
    """
    inputs = batch.lq if lq is None else lq
    return RestorationBatch(
        lq=inputs[list(indices)],
        references=[batch.references[index][:references].clone() for index in indices],
        seeds=[batch.seeds[index] for index in indices],
        case_ids=[batch.case_ids[index] for index in indices] if batch.case_ids else [],
        ages=None if batch.ages is None else [batch.ages[index] for index in indices],
    )


def result(pictures: torch.Tensor, reasons: Mapping[int, str]) -> torch.Tensor | PartialResult:
    """Return what `Restorer.restore` returns for these pictures and failures."""
    return PartialResult(pictures, reasons) if reasons else pictures


def joint_info(name: str, summary: str, parts: Sequence[Part]) -> RestorerInfo:
    """Return the description of a whole that consists of these parts.

    Raises:
        ConfigError: two parts take pictures of different sizes.
    """
    infos = [part.info for part in parts]
    sizes = sorted({info.input_size for info in infos if info.input_size is not None})
    if len(sizes) > 1:
        raise ConfigError(f"restorer '{name}': its parts take pictures of different sizes: {sizes}")
    most = [info.max_references for info in infos]
    return RestorerInfo(
        name=name,
        summary=summary,
        min_references=max(info.min_references for info in infos),
        max_references=None if None in most else max(count for count in most if count is not None),
        input_size=sizes[0] if sizes else None,
        deterministic=all(info.deterministic for info in infos),
        uses_seed=any(info.uses_seed for info in infos),
        passthrough=all(info.passthrough for info in infos),
        licence=_joined(info.licence for info in infos),
        commercial_use=all(info.commercial_use for info in infos),
        trained_on=_unique(name for info in infos for name in info.trained_on),
        paper=_joined(info.paper for info in infos if info.paper) or None,
        weights=_unique(name for info in infos for name in info.weights),
        proved_against=_joined(f"{part.name}: {part.info.proved_against}" for part in parts),
    )


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _joined(values: Iterable[str]) -> str:
    return "; ".join(_unique(values))
