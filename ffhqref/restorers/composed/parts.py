"""What composed restorers share: making their parts, running one, and what a whole is that consists of such parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.restorers import make_restorer
from ffhqref.restorers.base import PartialResult, RestorationBatch, Restorer, RestorerInfo
from ffhqref.restorers.cache_key import restorer_identity
from ffhqref.restorers.run_cases import run_cases

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


class Composed(Restorer):
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
        self.batch_size = batch_size or max(part.restorer.batch_size for part in parts)
        self.info = dataclasses.replace(joint_info(name, summary, parts), **(facts or {}))
        self.cache_key_options = {
            "parts": [restorer_identity(part.name, part.options, part.restorer) for part in parts], **own
        }  # fmt: skip
        self.quantization = parts[-1].restorer.quantization
        self.groups_references = any(part.restorer.groups_references for part in parts)
        self.in_process = all(part.restorer.in_process for part in parts)
        self.device = next((part.restorer.device for part in parts if part.restorer.device != "cpu"), "cpu")
        self.weights_sha256 = _joint_weights(parts)

    @property
    def exclusive(self) -> bool:
        """Whether any part asks for it."""
        return any(part.restorer.exclusive for part in self.parts)


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
    """Run a part over a batch, in pieces of its batch size, as in a run of its own.

    Args:
        part: which gets as many of the references as it takes.
        batch: left as it is.

    Returns:
        float32 [B, 3, H, W] in 0..1 on the CPU, and the index and reason of each case that failed.
    """
    import torch

    images, reasons = torch.zeros_like(batch.lq, device="cpu"), dict[int, str]()
    size = max(1, part.restorer.batch_size)
    for start in range(0, len(batch), size):
        indices = range(start, min(start + size, len(batch)))
        piece = batch.subset(indices, max_references=part.info.max_references)
        for index, outcome in zip(indices, run_cases(part.restorer.restore, piece), strict=True):
            if outcome.image is not None:
                images[index] = outcome.image.clamp(0.0, 1.0)
            else:
                reasons[index] = str(outcome.error)
    return images, reasons


def _joint_weights(parts: Sequence[Part]) -> dict[str, str]:
    """Return the parts' weight hashes by name, with the part's number where two parts name different files alike."""
    found: dict[str, str] = {}
    for index, part in enumerate(parts, 1):
        for name, sha256 in (part.restorer.weights_sha256 or {}).items():
            found[name if found.get(name, sha256) == sha256 else f"{name} (part {index})"] = sha256
    return found


def result(pictures: torch.Tensor, reasons: Mapping[int, str]) -> torch.Tensor | PartialResult:
    """Return what `Restorer.restore` returns for these images and failures."""
    return PartialResult(pictures, reasons) if reasons else pictures


def joint_info(name: str, summary: str, parts: Sequence[Part]) -> RestorerInfo:
    """Return the description of a whole that consists of these parts.

    Raises:
        ConfigError: two parts take images of different sizes.
    """
    infos = [part.info for part in parts]
    sizes = sorted({info.input_size for info in infos if info.input_size is not None})
    if len(sizes) > 1:
        raise ConfigError(f"restorer '{name}': its parts take images of different sizes: {sizes}")
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
        recognisers=_unique(name for info in infos for name in info.recognisers),
        paper=_joined(info.paper for info in infos if info.paper) or None,
        weights=_unique(name for info in infos for name in info.weights),
        verified_against=_joined(f"{part.name}: {part.info.verified_against}" for part in parts),
    )


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _joined(values: Iterable[str]) -> str:
    return "; ".join(_unique(values))
