"""What a worker process does, whichever engine started it: keep the stages it has set up, and use few threads."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffhqref.engine.base import Stage

_STAGES: OrderedDict[bytes, Stage[Any, Any]] = OrderedDict()
"""Of this worker process: the stages it has set up, latest last."""

_STAGES_KEPT = 2
"""A worker forgets older ones, so that at most this many networks are in its memory."""

KEPT = 1 << 30
"""Bytes that a process keeps of what it freed."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of options of glibc's mallopt, from its malloc.h."""


def stage_of(packed: bytes) -> Stage[Any, Any]:
    """Return the stage of a pickle, set up; one that this process met lately is not loaded again."""
    stage = _STAGES.get(packed)
    if stage is None:
        while len(_STAGES) >= _STAGES_KEPT:
            _STAGES.popitem(last=False)
        stage = pickle.loads(packed)  # noqa: S301 - our own bytes, from the process that hands out the work
        stage.setup()
        _STAGES[packed] = stage
    return stage


def prepare(threads: int) -> None:
    """Let this worker and those it starts compute with so many threads each, and keep the memory that it frees."""
    keep_freed_memory()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    import cv2

    cv2.setNumThreads(threads)


def keep_freed_memory() -> bool:
    """Let glibc keep the memory that is freed, up to `KEPT` bytes; return whether it does.

    A network asks for the same large blocks for every image. By default glibc gives each back to the system, which
    clears it again: a tenth of the processor time of a full-size CodeFormer. Elsewhere than on glibc nothing changes.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, KEPT) and mallopt(_M_TRIM_THRESHOLD, KEPT))


def usable_cores() -> int:
    """Return the number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
