"""Experiment trackers (TensorBoard, Weights & Biases, MLflow and others), by Accelerate's classes."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, DependencyError, did_you_mean

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "comet_ml": ("comet_ml",),
    "aim": ("aim",),
    "clearml": ("clearml",),
    "dvclive": ("dvclive",),
    "swanlab": ("swanlab",),
    "trackio": ("trackio",),
}
"""Tracker to the packages of which it needs one."""

Track = Callable[[Mapping[str, float], "int | None"], None]
"""Called with numbers by name, and the step they belong to."""


class Trackers:
    """Send numbers to the trackers that a run names; none is started before there is a number.

    Args:
        names: of trackers.
        folder: for the files of those that write some.
        config: of the run, stored with it.

    Raises:
        ConfigError: no such tracker.
        DependencyError: its package is not installed.
    """

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> None:
        for name in names:
            if name not in PACKAGES:
                raise ConfigError(f"trackers: no '{name}'.{did_you_mean(name, PACKAGES)} Known: {', '.join(PACKAGES)}")
            for package in ("accelerate", PACKAGES[name][0]):
                wanted = PACKAGES[name] if package == PACKAGES[name][0] else (package,)
                if not any(importlib.util.find_spec(one) for one in wanted):
                    raise DependencyError(f"trackers=[{name}] needs the package {package}: pip install {package}")
        self._names, self._folder, self._config = tuple(dict.fromkeys(names)), folder, _flat(config)
        self._started: list[GeneralTracker] | None = None

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Send numbers; those that are not finite are left out, for not all trackers take them.

        Args:
            values: numbers by name.
            step: of a training.
        """
        found = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        for tracker in self._start() if found else ():
            tracker.log(found, step=step)

    def close(self) -> None:
        """End the trackers' runs."""
        for tracker in self._started or ():
            tracker.finish()
        self._started = None

    def _start(self) -> list[GeneralTracker]:
        if self._started is None:
            self._started = [self._made(name) for name in self._names]
        return self._started

    def _made(self, name: str) -> GeneralTracker:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # its classes ask which process this is
        kind = LOGGER_TYPE_TO_CLASS[name]
        self._folder.mkdir(parents=True, exist_ok=True)
        tracker = kind("ffhqref", self._folder) if kind.requires_logging_directory else kind("ffhqref")
        if hasattr(tracker, "start"):  # not all versions of Accelerate have it
            tracker.start()
        tracker.store_init_configuration(self._config)
        return tracker


def _flat(config: Mapping[str, Any], place: str = "") -> dict[str, str | float | bool]:
    """Return a config as the one level of plain values that all trackers take."""
    flat: dict[str, str | float | bool] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{place}{key}.")
        else:
            flat[f"{place}{key}"] = value if isinstance(value, str | bool | int | float) else str(value)
    return flat
