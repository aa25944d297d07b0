"""What a report is made of: the tables of one or several workspaces, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ffhqref.leaderboard.case_values import CaseValues, case_values
from ffhqref.leaderboard.options import ReportOptions
from ffhqref.leaderboard.published import match_published

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from ffhqref.leaderboard.methods import MethodFacts
    from ffhqref.leaderboard.published import BenchmarkInfo
    from ffhqref.restorers.base import RestorerInfo

BASELINES = ("lq", "reference")
"""Restorers that give back what they were given: the scale on which methods are read, and no methods."""


@dataclass(frozen=True)
class MetricFacts:
    """What a report knows of a metric beside its values."""

    higher_is_better: bool
    signature: str = ""
    unavailable: str = ""
    """Why it could not run; empty: it ran."""


@dataclass(frozen=True)
class ReportData:
    """What a report is made of; `ffhqref.leaderboard.report.Report` has what follows from it.

    Paths in the frames are absolute, so that those of several workspaces cannot be mixed up.
    """

    name: str
    """The workspace, for messages."""
    scores: pd.DataFrame
    cases: pd.DataFrame
    restorations: pd.DataFrame
    metrics: Mapping[str, MetricFacts]
    benchmarks: Mapping[str, BenchmarkInfo] = field(default_factory=dict)
    methods: Mapping[str, MethodFacts] = field(default_factory=dict)
    age_pairs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Title to two benchmarks that differ in the age of the references only."""
    references: pd.DataFrame | None = None
    degradations: pd.DataFrame | None = None
    attributes: pd.DataFrame | None = None
    provenance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Table (with its workspace before it after a merge) to its metadata."""
    options: ReportOptions = field(default_factory=ReportOptions)
    seed: int = 0
    """Of all resampling."""
    command: str = ""
    """That made it; empty: not known."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Image to its recorded hash: a page shows no other file, whatever path a table names."""

    @property
    def directions(self) -> dict[str, bool]:
        """Metric to whether higher is better."""
        return {name: metric.higher_is_better for name, metric in self.metrics.items()}

    @property
    def signatures(self) -> dict[str, str]:
        """Metric that ran to its signature."""
        return {name: metric.signature for name, metric in self.metrics.items() if metric.signature}

    @property
    def title(self) -> str:
        """Title of the page."""
        return f"Face restoration on {' and '.join(self._of_datasets('name')) or self.name}"

    @property
    def credit(self) -> str:
        """Whose images are shown and under what licence."""
        return "; ".join(self._of_datasets("attribution", "licence"))

    def _of_datasets(self, *keys: str) -> list[str]:
        """Return the first known fact of each data set, each once."""
        told = [facts["dataset"] for facts in self.provenance.values() if facts.get("table") == "images"]
        return list(dict.fromkeys(next((dataset[key] for key in keys if dataset[key]), "") for dataset in told))

    @cached_property
    def blocks(self) -> tuple[CaseValues, ...]:
        """The scores of each benchmark as arrays."""
        pairs = self.age_pairs.values()
        return case_values(self.scores, self.cases, self.restorations, self.directions, pairs)

    @cached_property
    def published(self) -> pd.DataFrame:
        """See `match_published`."""
        methods = {method: self.methods.get(method) for method in sorted(self.scores["method"].unique())}
        return match_published(self.benchmarks, methods, self.signatures)

    @property
    def infos(self) -> dict[str, RestorerInfo]:
        """Method to its description."""
        return {name: method.info for name, method in self.methods.items()}

    @property
    def baselines(self) -> tuple[str, ...]:
        """Methods that are shown in a block of their own and not ranked."""
        kinds = {name: (method.kind or method.info.name) for name, method in self.methods.items()}
        return tuple(name for name in sorted(self.scores["method"].unique()) if kinds.get(name, name) in BASELINES)
