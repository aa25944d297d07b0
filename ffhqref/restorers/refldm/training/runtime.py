"""Where a training runs: one device by itself, or the processes of an `accelerate.Accelerator`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

M = TypeVar("M")


class Runtime:
    """The few things that differ between one device and several.

    Args:
        device: where to work, without an accelerator.
        precision: ``float32``, or ``bfloat16`` for autocast; an accelerator brings its own.
        accelerator: an ``accelerate.Accelerator``, which spreads the work over its processes.
    """

    def __init__(
        self, device: str | torch.device = "cpu", precision: str = "float32", accelerator: Any | None = None
    ) -> None:
        self._accelerator = accelerator
        self._precision = precision
        self.device = torch.device(device) if accelerator is None else accelerator.device
        self.rank: int = 0 if accelerator is None else accelerator.process_index
        self.processes: int = 1 if accelerator is None else accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Return whether this process writes files."""
        return self.rank == 0

    def prepare(self, item: M) -> M:
        """Return a module or optimiser that takes part in the spreading of work."""
        if self._accelerator is not None:
            return cast("M", self._accelerator.prepare(item))
        return cast("M", item.to(self.device)) if isinstance(item, nn.Module) else item

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks run in low precision, if they do."""
        if self._accelerator is not None:
            return cast("AbstractContextManager[Any]", self._accelerator.autocast())
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._precision == "bfloat16")

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        if self._accelerator is not None:
            self._accelerator.backward(loss)
        else:
            loss.backward()

    def mean(self, value: Tensor) -> float:
        """Return the mean of a number over the processes."""
        value = value.detach()
        if self._accelerator is not None:
            value = self._accelerator.reduce(value.reshape(1), reduction="mean")
        return float(value)
