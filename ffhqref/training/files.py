"""Files that are whole at every moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

State = dict[str, Any]
"""What `torch.save` writes: tensors, numbers and nested states by name."""


def save_whole(path: Path, value: object) -> None:
    """Write with `torch.save` so that at every moment either the old or the whole new file is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    torch.save(value, temporary)
    temporary.replace(path)
