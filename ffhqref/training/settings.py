"""Settings of every training: how long, how fast, how often it is saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.options import check_options, options_of

S = TypeVar("S")

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class RunSettings:
    """Settings of every training.

    Attributes:
        steps: optimiser steps.
        batch_size: images a step and process goes through at once.
        accumulate: batches whose gradients are added up before a step.
        learning_rate: highest rate.
        warmup: steps over which the rate rises from zero, linearly.
        cosine: whether it then falls to zero along a cosine.
        precision: of the networks; sums and losses are float32.
        seed: keys every draw, with the step.
        save_every: steps between states that a resumed run starts from.
        sample_every: steps between sample grids; 0: none.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    learning_rate: float = 5e-5
    warmup: int = 10_000
    cosine: bool = False
    precision: Precision = "float32"
    seed: int = 2024
    save_every: int = 1000
    sample_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training: {name} must be at least 1, not {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"training: precision must be one of {', '.join(PRECISIONS)}, not '{self.precision}'")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if not self.cosine:
            return self.learning_rate
        part = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, part)))


def read_settings(kind: Callable[..., S], given: Mapping[str, Any], where: str, **fixed: Any) -> S:
    """Return the settings of a training from one flat mapping, its own entries and those of `RunSettings`.

    Args:
        kind: a dataclass whose field ``run`` has the `RunSettings`.
        given: plain values by name.
        where: dotted key of the mapping, for messages.
        fixed: fields that the mapping cannot set.

    Raises:
        ConfigError: an unknown entry, or a value of another kind.
    """
    of_run = set(options_of(RunSettings).model_fields)
    own = set(options_of(kind).model_fields) - {"run", *fixed}
    for name in given:
        if name not in own | of_run:
            raise ConfigError(
                f"unknown key '{where}.{name}'.{did_you_mean(name, own | of_run)} Its options: "
                f"{', '.join(sorted(own | of_run))}"
            )
    run = {name: value for name, value in given.items() if name in of_run}
    rest = {name: value for name, value in given.items() if name in own}
    check_options(RunSettings, where, run)
    check_options(kind, where, {"run": None, **rest, **fixed})
    return kind(RunSettings(**run), **rest, **fixed)
