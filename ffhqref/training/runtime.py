"""Where a training runs: one device by itself, or the processes of an `accelerate.Accelerator`."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ffhqref.core.errors import ConfigError

if TYPE_CHECKING:
    from ffhqref.training.settings import Precision

M = TypeVar("M")


class Runtime:
    """The few things that differ between one device and several.

    Args:
        device: where to work, without an accelerator.
        precision: ``float32``, or ``bfloat16`` for autocast; an accelerator brings its own. ``float16`` needs an
            accelerator, which scales the loss: see `for_run`.
        accelerator: an ``accelerate.Accelerator``, which spreads the work over its processes.

    Raises:
        ConfigError: ``float16`` without an accelerator.
    """

    def __init__(
        self, device: str | torch.device = "cpu", precision: str = "float32", accelerator: Any | None = None
    ) -> None:
        if precision == "float16" and accelerator is None:
            raise ConfigError("training: float16 needs its loss scaled; make the runtime with Runtime.for_run")
        self._accelerator = accelerator
        self._precision = precision
        self.device = torch.device(device) if accelerator is None else accelerator.device
        self.rank: int = 0 if accelerator is None else accelerator.process_index
        self.processes: int = 1 if accelerator is None else accelerator.num_processes

    @classmethod
    def for_run(cls, device: str, precision: Precision) -> Runtime:
        """Return what a run needs: an accelerator under ``accelerate launch`` or for float16, else the device.

        Args:
            device: where to work when there is one process.
            precision: of the networks' forward passes.
        """
        if precision != "float16" and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(device, precision)
        from accelerate import Accelerator

        names = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
        return cls(accelerator=Accelerator(mixed_precision=names[precision], cpu=device == "cpu"))

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

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def mean(self, value: Tensor) -> float:
        """Return the mean of a number over the processes."""
        value = value.detach()
        if self._accelerator is not None:
            value = self._accelerator.reduce(value.reshape(1), reduction="mean")
        return float(value)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: the scale of float16 losses, where they are scaled."""
        scaler = getattr(self._accelerator, "scaler", None)
        return {} if scaler is None else {"scaler": scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        scaler = getattr(self._accelerator, "scaler", None)
        if scaler is not None and "scaler" in state:
            scaler.load_state_dict(state["scaler"])
