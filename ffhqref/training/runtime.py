"""Where a training runs: one device, or the processes of ``accelerate launch``; always through Accelerate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn

from ffhqref.core.errors import ConfigError
from ffhqref.training.processes import process_count

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from ffhqref.training.files import State
    from ffhqref.training.settings import Precision

Prepared = TypeVar("Prepared", nn.Module, torch.optim.Optimizer)

MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""Names of Accelerate."""


class TrainingRuntime:
    """Devices, processes and precision of a training.

    Accelerate keeps its state per process. Each runtime starts with a new state, so use one at a time.

    Args:
        device: where to work. Under ``accelerate launch`` each process has a GPU of its own.
        precision: of the networks' forward passes.

    Raises:
        ConfigError: ``float16`` without a GPU.
    """

    def __init__(self, device: str | torch.device = "cpu", precision: Precision = "float32") -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        wanted = torch.device(device)
        if precision == "float16" and wanted.type != "cuda":
            raise ConfigError(f"training: float16 needs a GPU, and the device is {wanted}; choose bfloat16 or float32")
        if wanted.index is not None:
            torch.cuda.set_device(wanted)
        # The process group of several processes stays.
        AcceleratorState._reset_state(reset_partial_state=process_count() == 1)
        self.accelerator: Any = Accelerator(mixed_precision=MIXED[precision], cpu=wanted.type == "cpu")
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.processes: int = self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def prepare(self, item: Prepared) -> Prepared:
        """Move a module or optimiser to the device and let it take part in the work of all processes."""
        return cast("Prepared", self.accelerator.prepare(item))

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which networks run in the run's precision."""
        return cast("AbstractContextManager[None]", self.accelerator.autocast())

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self.accelerator.backward(loss)

    def wait(self) -> None:
        """Wait for all processes."""
        self.accelerator.wait_for_everyone()

    def mean(self, value: Tensor) -> float:
        """Return the mean of a number over the processes."""
        return float(self.accelerator.reduce(value.detach().reshape(1), reduction="mean"))

    def state_dict(self) -> State:
        """Return what a resumed run needs: the scale of float16 losses."""
        scaler = self.accelerator.scaler
        return {} if scaler is None else {"scaler": scaler.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore a saved state."""
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
