"""What a restorer is: the protocol, its description, and the batch it sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ffhqref.core.errors import FfhqrefError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RestorerInfo:
    """Facts about a restorer that the runner, the leaderboard and the zoo page use."""

    name: str
    summary: str = ""
    min_references: int = 0
    """Cases with fewer references become failure rows."""
    max_references: int | None = 0
    """At most this many, in the order of the references table; None: all of them."""
    input_size: int | None = 512
    """Side of the square input and output in pixels; None: any size."""
    deterministic: bool = True
    """Same input, seed and device give the same output."""
    uses_seed: bool = False
    """The output depends on the case's seed."""
    passthrough: bool = False
    """Returns its input by design, so that an output equal to the input is not a failure."""
    licence: str = "Apache-2.0"
    commercial_use: bool = True
    trained_on: tuple[str, ...] = ()
    """Data sets whose pictures the weights have seen; FFHQ there means a leak mark on FFHQ-Ref."""
    paper: str | None = None
    weights: tuple[str, ...] = ()
    """Names in the weight registry (ffhqref.weights.files)."""
    proved_against: str = ""
    """What the implementation's exactness was tested against."""


@dataclass(frozen=True)
class RestorationBatch:
    """Cases of one call. There is no ground truth in here, on purpose."""

    lq: torch.Tensor
    """float32 [B, 3, H, W] in 0..1 RGB."""
    references: list[torch.Tensor]
    """B tensors float32 [N_i, 3, H, W] in 0..1 RGB, in the order of the references table."""
    seeds: list[int]
    """One seed a case, keyed by case and not by order."""
    case_ids: list[str] = field(default_factory=list)
    ages: list[float | None] | None = None
    """Age of the target in years, where known."""

    def __len__(self) -> int:
        return int(self.lq.shape[0])


@dataclass(frozen=True)
class PartialResult:
    """What `Restorer.restore` may return in place of a tensor when it knows which cases of the batch failed, and why.

    Those become failure rows with the reason, and are not tried again. (A restorer that raises is called again for
    each case alone.)
    """

    pictures: torch.Tensor
    """float32 [B, 3, H, W] in 0..1 RGB; whatever it likes where a case failed."""
    reasons: Mapping[int, str]
    """Index in the batch to the reason, one line."""


def complete(result: torch.Tensor | PartialResult) -> torch.Tensor:
    """Return the pictures of a result in which no case failed, for callers that want all or nothing.

    Raises:
        FfhqrefError: a case failed; with the first reason.
    """
    if isinstance(result, PartialResult):
        for reason in result.reasons.values():
            raise FfhqrefError(reason)
        return result.pictures
    return result


@runtime_checkable
class Restorer(Protocol):
    """A method under test. Heavy work (loading weights) belongs in the constructor or the first call.

    The runner also looks at these attributes where a restorer has them:

    - ``device``: where it works, told in the results (else ``"cpu"``). A constructor that takes ``device`` is given
      the run's; the tensors of a batch come on the CPU, and the result may lie anywhere.
    - ``batch_size``: cases of one call (else 1).
    - ``version``: changes when results change (else ``"1"``); part of every content key, like the options and, for
      restorers of other packages, the source file of the class.
    - ``weights_sha256``: hashes of the weight files by name, in an order that stays; the hashes are part of every
      content key.
    - ``eight_bit_rule``: ``"round"`` (else) or ``"truncate"``, for the PNG.
    - ``neutral_options``: names of options that change no result, such as those of speed, and of files that
      ``weights_sha256`` tells. The others but ``device`` are part of every content key; one that names a file counts
      by the file's content, one that names a folder by its name.
    - ``key_options``: what takes the place of the options in content keys, where they do not tell it.
    - ``one_at_a_time``: whether only one process may use it (else: when ``device`` is a GPU).
    - ``in_process``: False: a program of its own does the work, and its memory cannot be told.
    - ``groups_references``: True: cases that have the same references are put next to one another.
    """

    @property
    def info(self) -> RestorerInfo:
        """Return the description; it must not change during a run."""
        ...

    def restore(self, batch: RestorationBatch) -> torch.Tensor | PartialResult:
        """Return float32 [B, 3, H, W] in 0..1 RGB, one picture for each case, in the batch's order."""
        ...
