"""Errors a user can cause or mend.

Each carries one line that says what is wrong, where, what was expected and what to do. Pipelines print that
line and exit with a non-zero status; a traceback is for defects of ours only.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

LONGEST = 1900
"""Characters of an explanation."""


class FfhqrefError(Exception):
    """Base of every error that has a one-line explanation for the user."""

    def __str__(self) -> str:
        """Return the explanation: one line, cut where a damaged file brought a name of many kilobytes into it."""
        text = " ".join(super().__str__().splitlines())
        return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


class ConfigError(FfhqrefError):
    """A wrong name or value in the configuration or in a call."""


class DatasetError(FfhqrefError):
    """A data set that is absent, empty, incomplete or contradicts itself."""


class ImageError(FfhqrefError):
    """One image that cannot be used."""


class TableError(FfhqrefError):
    """A table that is missing, damaged, or of another schema version."""


class WeightsError(FfhqrefError):
    """A weight file that is missing, damaged, of another hash, or holds other tensors than expected."""


class DependencyError(FfhqrefError):
    """An optional package that is needed for what was asked and is not installed."""


class EngineError(FfhqrefError):
    """The machinery that spreads the work broke down."""


class SweepError(FfhqrefError):
    """A job of a sweep, run by another process or machine, had failed rows."""


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""Error numbers of a disk that takes no more: no failure of a case, but the end of the run."""


def cannot_write(error: BaseException) -> bool:
    """Return whether the disk is full or may not be written, which no case is to blame for."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` with the nearest known name, or an empty string when none is near.

    >>> did_you_mean("bicubik", ["lq", "bicubic"])
    " Did you mean 'bicubic'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


def one_line(error: BaseException) -> str:
    r"""Return an error as one line for a result: ours explain themselves, others are named.

    >>> one_line(ValueError("no\nway")), one_line(ImageError("not an image: x.png"))
    ('ValueError: no', 'not an image: x.png')
    """
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, FfhqrefError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
