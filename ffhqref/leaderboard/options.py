"""Options of a report: the section ``report`` of the config."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from ffhqref.core.options import Options
from ffhqref.leaderboard import FORMATS

FailurePolicy = Literal["worst", "excluded"]
FAILURE_POLICIES: tuple[FailurePolicy, ...] = get_args(FailurePolicy)


class IdentityGate(Options):
    """What a method must keep of the person before its quality counts.

    The form is that of the NTIRE 2025/2026 face-restoration challenge: a similarity threshold a case (AdaFace cosine
    0.30, 0.60 or 0.50 by set) that at most ten cases may miss. Here the allowance is a share, for benchmarks of any
    size.
    """

    metric: str
    threshold: int | float
    """Least value where higher is better, largest value elsewhere."""
    max_missed_share: int | float = Field(default=0.1, ge=0, le=1)
    """Largest share of cases beyond the threshold or failed."""


class ReportOptions(Options):
    """How a report is made, and how much its page carries."""

    failures: FailurePolicy = "worst"
    """What a failed case counts as: the worst value that any method has, or nothing."""
    n_bootstrap: int = Field(default=2000, ge=10)
    """Resamples of intervals and sign flips of tests."""
    gate: IdentityGate | None = None
    quality: tuple[str, ...] = ("niqe",)
    """Metrics that rank the methods behind the gate."""
    folder: str | None = None
    """Where the files are written; null: the folder report of the workspace."""
    author: str = ""
    """Who answers for the numbers, as the page and the tables tell it."""
    order: str = "rank"
    """Order of the rows: rank (mean rank over the metrics), name, or a metric."""
    names: dict[str, str] = Field(default_factory=dict)
    """Method to the name that files and page show; the tables keep the method's own."""
    formats: tuple[str, ...] = ("markdown", "latex", "csv", "html", "figures")
    """Files to write."""
    max_cases: int = Field(default=240, ge=0)
    """Cases with images inside the page."""
    max_megabytes: int | float = Field(default=24, ge=0)
    """Of images inside the page, as they stand in the file."""

    @field_validator("formats")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in FORMATS:
                FORMATS.get(name)  # raises
        return names
