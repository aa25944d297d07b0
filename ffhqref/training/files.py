"""Files that are whole at every moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ffhqref.core.files import atomic

State = dict[str, Any]
"""What `torch.save` writes: tensors, numbers and nested states by name."""


def save_whole(path: Path, value: object) -> None:
    """Write with `torch.save` so that at every moment either the old or the whole new file is there."""
    with atomic(path, lasting=True) as stream:
        torch.save(value, stream)
