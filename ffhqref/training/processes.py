"""The processes of ``accelerate launch`` or ``torchrun``, known from the environment before torch is loaded."""

from __future__ import annotations

import os


def process_count() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Return whether this process logs and writes files."""
    return os.environ.get("RANK", "0") == "0"
