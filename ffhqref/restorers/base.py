"""The restorer interface: base class, description, and the batch it sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, FfhqrefError, did_you_mean

if TYPE_CHECKING:
    import torch

    from ffhqref.restorers.match import CaseName, Matched


@dataclass(frozen=True)
class RestorerInfo:
    """Facts about a restorer for the runner, the leaderboard and the zoo page."""

    name: str
    summary: str = ""
    min_references: int = 0
    """Cases with fewer references become failure rows."""
    max_references: int | None = 0
    """At most this many, in the order of the references table; None: all of them."""
    input_size: int | None = 512
    """Size of the square input and output in pixels; None: any."""
    deterministic: bool = True
    """Same input, seed and device give the same output."""
    uses_seed: bool = False
    """The output depends on the case's seed."""
    passthrough: bool = False
    """Returns its input by design, as it is or resized, so that such an output is not a failure."""
    licence: str = "Apache-2.0"
    commercial_use: bool = True
    trained_on: tuple[str, ...] = ()
    """Data sets whose images the weights have seen; FFHQ there means a leak mark on FFHQ-Ref."""
    recognisers: tuple[str, ...] = ()
    """Face-recognition networks, as the weight registry names them, that it was trained with or is conditioned on: as
    judges of identity they are left out of its mean rank (``ids_jury``)."""
    paper: str | None = None
    weights: tuple[str, ...] = ()
    """Names in the weight registry (ffhqref.weights.files)."""
    verified_against: str = ""
    """What the implementation was tested against."""


def info_of(facts: Mapping[str, Any], where: str, **defaults: Any) -> RestorerInfo:
    """Return a description from plain values, as a config holds them.

    Args:
        facts: fields of `RestorerInfo`.
        where: they are from, for messages.
        defaults: of fields that are not given.

    Raises:
        ConfigError: an unknown field.
    """
    if not isinstance(facts, Mapping):
        raise ConfigError(f"{where}: info={facts!r}: expected named facts")
    known = [item.name for item in fields(RestorerInfo)]
    for key in facts:
        if key not in known:
            raise ConfigError(f"{where}: info has no '{key}'.{did_you_mean(str(key), known)} Known: {', '.join(known)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    return RestorerInfo(**{**defaults, **values})


@dataclass(frozen=True)
class RestorationBatch:
    """Cases of one call. There is no ground truth in here, on purpose."""

    lq: torch.Tensor
    """float32 [B, 3, H, W] in 0..1 RGB."""
    references: list[torch.Tensor]
    """B tensors float32 [N_i, 3, H, W] in 0..1 RGB, in the order of the references table."""
    seeds: list[int]
    """One seed a case, derived from the case, not from its position."""
    case_ids: list[str] = field(default_factory=list)
    ages: list[float | None] | None = None
    """Age of the target in years, where known."""
    files: list[tuple[str, str] | None] | None = None
    """Path and SHA-256 of each case's own file, where `Restorer.match` names one."""

    def __len__(self) -> int:
        return int(self.lq.shape[0])

    def subset(
        self, indices: Sequence[int], *, lq: torch.Tensor | None = None, max_references: int | None = None
    ) -> RestorationBatch:
        """Return some cases, with copies of their images.

        Args:
            indices: of the wanted cases.
            lq: other inputs for all cases of this batch.
            max_references: keep at most this many of each case; None: all.
        """
        return RestorationBatch(
            lq=(self.lq if lq is None else lq)[list(indices)],
            references=[self.references[index][:max_references].clone() for index in indices],
            seeds=[self.seeds[index] for index in indices],
            case_ids=[self.case_ids[index] for index in indices] if self.case_ids else [],
            ages=None if self.ages is None else [self.ages[index] for index in indices],
            files=None if self.files is None else [self.files[index] for index in indices],
        )


@dataclass(frozen=True)
class PartialResult:
    """Result of `Restorer.restore` where some cases failed for a known reason.

    They become failure rows with that reason and are not tried again. (When `restore` raises, each case is tried
    again alone.)
    """

    images: torch.Tensor
    """float32 [B, 3, H, W] in 0..1 RGB; undefined where a case failed."""
    reasons: Mapping[int, str]
    """Index in the batch to the reason, one line."""


def complete(result: torch.Tensor | PartialResult) -> torch.Tensor:
    """Return the images of a result in which no case failed.

    Raises:
        FfhqrefError: a case failed; with the first reason.
    """
    if isinstance(result, PartialResult):
        for reason in result.reasons.values():
            raise FfhqrefError(reason)
        return result.images
    return result


class Restorer:
    """Base class of a method under test. A subclass sets `info` and writes `restore`; the rest has defaults.

    Load weights in the constructor or in the first call. A class of another package need not derive from this one:
    `ffhqref.restorers.make_restorer` fills in the defaults.
    """

    info: RestorerInfo
    """The description. It must not change during a run."""
    version: str = "1"
    """Part of every content key: raise it when results change. Of plug-ins the source file counts too."""
    batch_size: int = 1
    """Cases of one call."""
    device: str = "cpu"
    """Where it works, stored in the results. A constructor that takes ``device`` is given the run's. Tensors of a batch
    are on the CPU; the result may be anywhere."""
    weights_sha256: Mapping[str, str] = MappingProxyType({})
    """SHA-256 of the weight files by role, in a fixed order. The hashes are part of every content key."""
    quantization: str = "round"
    """From 0..1 to 8 bit: ``round`` or ``truncate``."""
    cache_ignored_options: tuple[str, ...] = ()
    """Options that change no result (speed), or name files that `weights_sha256` covers. All others but ``device`` are
    part of every content key: one that names a file by its content, one that names a folder by its name."""
    cache_key_options: Mapping[str, Any] | None = None
    """Takes the place of the options in content keys; None: the options themselves."""
    in_process: bool = True
    """False: another program does the work, so that its memory is unknown and each of its calls starts it anew."""
    groups_references: bool = False
    """Put cases with the same references next to each other."""
    by_file: bool = False
    """Its outputs are files that exist already: `match` names them, and their reading is not timed."""

    @property
    def exclusive(self) -> bool:
        """Whether only one process may use it at a time; by default on a GPU, whose memory is not for all cores."""
        return self.device.startswith("cuda")

    def match(self, cases: Sequence[CaseName], method: str) -> Matched:
        """Return the files of some cases, where `by_file` is set.

        Args:
            cases: all of the run.
            method: name of this restorer in the run, for messages.
        """
        raise NotImplementedError

    def restore(self, batch: RestorationBatch) -> torch.Tensor | PartialResult:
        """Return float32 [B, 3, H, W] in 0..1 RGB, one image for each case, in the batch's order."""
        raise NotImplementedError
