"""Restorers as functions of images, and functions as restorers."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ffhqref.api.images import as_floats, as_given, is_single
from ffhqref.core.errors import ConfigError, FfhqrefError
from ffhqref.restorers import make_restorer
from ffhqref.restorers.base import RestorationBatch, Restorer, RestorerInfo, info_of
from ffhqref.restorers.run_cases import run_cases

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ffhqref.api.images import Pictures

FUNCTION = "function"
"""What the tables call the kind of a method that is a function of the caller's."""


class RestorerFunction:
    """A restorer; make one with `restorer`."""

    def __init__(self, made: Restorer) -> None:
        self.restorer = made

    @property
    def info(self) -> RestorerInfo:
        """Its description: references it takes, licence, training data, paper."""
        return self.restorer.info

    def __call__(
        self,
        lq: Pictures,
        references: Sequence[Any] | torch.Tensor | NDArray[Any] | None = None,
        *,
        seed: int | Sequence[int] = 0,
        age: float | Sequence[float | None] | None = None,
    ) -> torch.Tensor | NDArray[np.uint8]:
        """Return the restored image, or images, in the form of ``lq``: float32 tensors, or uint8 arrays.

        Args:
            lq: image or images, see `ffhqref.api.images`; most restorers want 512x512.
            references: of one image: its references, best first; of several: such a sequence for each.
            seed: of one image, or one for each.
            age: of the person in years, or one for each.

        Raises:
            FfhqrefError: too few references, another size, or the restorer failed on an image; one line.
        """
        single, info = is_single(lq), self.info
        images = as_floats(lq, "lq")
        given: Any = [[]] * len(images) if references is None else [references] if single else references
        sets = [list(one) for one in given]
        if len(sets) != len(images):
            raise ConfigError(f"{len(images)} images, but references of {len(sets)}; expected a sequence for each")
        fewest = min(map(len, sets), default=0)
        if fewest < info.min_references:
            raise ConfigError(f"{info.name}: {fewest} references, expected at least {info.min_references}")
        if info.input_size not in (None, images.shape[-1]) or images.shape[-1] != images.shape[-2]:
            size = info.input_size or images.shape[-1]
            raise ConfigError(
                f"{info.name}: images of {images.shape[-1]}x{images.shape[-2]} pixels, expected {size}x{size}"
            )
        seeds, ages = _each(seed, len(images), "seed"), _each(age, len(images), "age")
        outcomes = []
        for index, image in enumerate(images):
            batch = RestorationBatch(
                lq=image[None],
                references=[as_floats(sets[index][: info.max_references], "references", images.shape[-1])],
                seeds=[int(seeds[index])],
                case_ids=[str(index)],
                ages=None if age is None else [ages[index]],
            )
            outcomes += run_cases(self.restorer.restore, batch)
        made: torch.Tensor | NDArray[np.uint8] = as_given(_images(outcomes), lq, self.restorer.quantization)
        return made


def restorer(name: str, *, device: str = "cpu", **options: Any) -> RestorerFunction:
    """Return a restorer as a function of images.

    Args:
        name: see `ffhqref.list_restorers`.
        device: of networks: ``cpu``, ``cuda``.
        options: of its constructor.

    Raises:
        FfhqrefError: unknown name or option, or missing weights; one line.

    >>> import numpy as np
    >>> bicubic = restorer("bicubic", factor=2)
    >>> bicubic(np.full((16, 16, 3), 7, np.uint8))[0, 0].tolist()
    [7, 7, 7]
    """
    return RestorerFunction(make_restorer(name, device=device, **options))


def _images(outcomes: Sequence[Any]) -> torch.Tensor:
    import torch

    for outcome in outcomes:
        if outcome.image is None:
            raise FfhqrefError(str(outcome.error))
    return torch.stack([outcome.image for outcome in outcomes])


def _each(value: Any, count: int, what: str) -> list[Any]:
    """Return a value for each image: the one given for all, or those given.

    Raises:
        ConfigError: another number of them.
    """
    if not hasattr(value, "__len__"):
        return [value] * count
    if len(value) != count:
        raise ConfigError(f"{what}: {len(value)} for {count} images; expected one for each, or one for all")
    return list(value)


class FunctionRestorer(Restorer):
    """A function of the caller's as a restorer; it works in the process that made it.

    Args:
        function: see `ffhqref.evaluate`.
        batch_size: cases of one call; None: one, without batch dimension.
        version: changes when results do; None: nothing is known of the function, so that each run is new.
        info: what is known of the method, fields of `RestorerInfo`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        batch_size: int | None = None,
        version: str | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigError(f"expected a function, a module, a pipeline or a folder, got {type(function).__name__}")
        self._function, self._batched = function, batch_size is not None
        self._call = _pipeline_call if _is_pipeline(function) else self._plain_call
        self.info = info_of(
            info or {}, "info", name=FUNCTION, max_references=None, input_size=None, deterministic=False,
            licence="that of the method", verified_against="a function of the caller's",
        )  # fmt: skip
        self.version = version or uuid.uuid4().hex
        self.batch_size = batch_size or 1
        self.device = _device(function)
        self._takes = _Takes.of(function)

    exclusive = True

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1."""
        return as_floats(self._call(self._function, batch), "the function's output")

    def _plain_call(self, function: Callable[..., Any], batch: RestorationBatch) -> Any:
        ages = batch.ages or [None] * len(batch)
        offered: dict[str, Any] = {
            "seed": batch.seeds, "seeds": batch.seeds, "age": ages, "ages": ages, "case_id": batch.case_ids,
            "references": [one.to(self.device) for one in batch.references],
        }  # fmt: skip
        lq: Any = batch.lq.to(self.device)
        if not self._batched:
            lq, offered = lq[0], {name: values[0] for name, values in offered.items()}
        named = {name: offered[name] for name in self._takes.named}
        made = function(lq, offered["references"], **named) if self._takes.second else function(lq, **named)
        return made if self._batched else [_only(made)]


def _only(made: Any) -> Any:
    """Return the image of a result that may be a batch of one."""
    if isinstance(made, (list, tuple)):
        if len(made) != 1:
            raise FfhqrefError(f"the function's output: {len(made)} images for one LQ image; expected one")
        made = made[0]
    return made[0] if hasattr(made, "shape") and len(made.shape) == 4 and len(made) == 1 else made


OFFERED = ("references", "seed", "seeds", "age", "ages", "case_id")
"""What a function is given beside the LQ image, where it has a parameter of the name."""


@dataclass(frozen=True)
class _Takes:
    """What a function takes beside the LQ image."""

    second: bool
    """The references come second, whatever the parameter is called."""
    named: tuple[str, ...]

    @classmethod
    def of(cls, function: Any) -> _Takes:
        """Read the signature of a function; of a module, that of its ``forward``."""
        try:
            found = inspect.signature(function.forward if _is_module(function) else function).parameters.values()
        except (TypeError, ValueError):  # written in C
            return cls(second=True, named=())
        by_place = [one for one in found if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        named = tuple(one.name for one in found if one.name in OFFERED and one not in by_place[:1])
        second = len(by_place) > 1 and by_place[1].name not in OFFERED and _is_for_references(by_place[1])
        return cls(second or any(one.kind is one.VAR_POSITIONAL for one in found), named)


def _is_for_references(parameter: inspect.Parameter) -> bool:
    """Return whether a second parameter takes references: it must be given, or is called so (``refs=None``)."""
    return parameter.default is inspect.Parameter.empty or parameter.name.lower().startswith("ref")


def _is_module(function: Any) -> bool:
    return hasattr(function, "forward") and hasattr(function, "state_dict")


def _device(function: Any) -> str:
    if _is_pipeline(function):
        return str(function.device)
    if not _is_module(function):
        return "cpu"
    first = next(iter(function.parameters()), None)
    return "cpu" if first is None else str(first.device)


def _is_pipeline(function: Any) -> bool:
    """Return whether it is a pipeline of diffusers that takes an image."""
    return hasattr(function, "components") and "image" in inspect.signature(type(function).__call__).parameters


def _pipeline_call(function: Any, batch: RestorationBatch) -> Any:
    """Call a pipeline of diffusers case by case, with a generator of the case's seed."""
    import torch
    from PIL import Image

    from ffhqref.core.images import to_uint8

    takes = inspect.signature(type(function).__call__).parameters
    made = []
    for image, seed in zip(to_uint8(batch.lq), batch.seeds, strict=True):
        more: dict[str, Any] = {"prompt": ""} if "prompt" in takes else {}
        if "generator" in takes:
            more["generator"] = torch.Generator().manual_seed(seed)
        made.append(function(image=Image.fromarray(image), **more).images[0])
    return made
