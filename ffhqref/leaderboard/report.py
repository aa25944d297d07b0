"""A report: all that follows from the tables of one or several workspaces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from ffhqref.core.errors import ConfigError
from ffhqref.leaderboard.aggregate import Analysis, analyse
from ffhqref.leaderboard.origin import origin
from ffhqref.leaderboard.pairs import pair_tables
from ffhqref.leaderboard.published import published_rows
from ffhqref.leaderboard.report_data import ReportData
from ffhqref.leaderboard.subgroups import bins, case_features, paired_benchmarks, subgroup_means
from ffhqref.leaderboard.summary import identity_gate
from ffhqref.leaderboard.view import Arrangement, tables
from ffhqref.metrics.base import GROUND_TRUTH

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd

    from ffhqref.leaderboard.pairs import PairTable
    from ffhqref.leaderboard.published import PublishedRow
    from ffhqref.leaderboard.view import BenchmarkTable

T = TypeVar("T")


@dataclass(frozen=True)
class Report(ReportData):
    """Everything a report shows: what it is made of as fields, what follows as properties, each computed once."""

    @cached_property
    def notes(self) -> dict[str, dict[str, str]]:
        """Benchmark to metric or method to what a reader must know of that column or row."""
        notes = {
            name: ({"benchmark": info.citation} if info.id else {}) | dict(info.notes)
            for name, info in self.benchmarks.items()
        }
        for block in self.blocks:
            mine = notes.setdefault(block.benchmark, {})
            mine |= {metric: "; ".join(filter(None, (mine.get(metric), told))) for metric, told in block.told().items()}
        return notes

    @cached_property
    def published_rows(self) -> dict[str, list[PublishedRow]]:
        """Benchmark to what papers print for its set and level, where they print anything."""
        found = {name: published_rows(info, self.signatures) for name, info in self.benchmarks.items()}
        return {name: rows for name, rows in found.items() if rows}

    @cached_property
    def analysis(self) -> Analysis:
        """See `analyse`."""
        return analyse(self)

    @property
    def leaderboard(self) -> pd.DataFrame:
        """The table ``leaderboard``."""
        return self.analysis.leaderboard

    @property
    def arrangement(self) -> Arrangement:
        """How the leaderboard is laid out."""
        order = self.options.order
        if order not in ("rank", "name", *self.metrics):
            known = ", ".join(("rank", "name", *sorted(self.metrics)))
            raise ConfigError(f"report.order={order}: expected one of {known}")
        people = {block.benchmark: len(set(block.identities.tolist())) for block in self.blocks}
        made = self.restorations.dropna(subset=["device"])
        devices = made.groupby("method", sort=True, observed=True)["device"].agg(
            lambda found: " and ".join(sorted(set(map(str, found))))
        )
        systems = {f.get("platform") for f in self.provenance.values() if f.get("table") == "restorations"}
        return Arrangement(
            self.baselines, people, order, {str(k): str(v) for k, v in devices.items()}, len(systems) <= 1
        )

    @cached_property
    def origin(self) -> list[tuple[str, str]]:
        """See `ffhqref.leaderboard.origin.origin`."""
        return origin(self)

    @cached_property
    def tables(self) -> list[BenchmarkTable]:
        """The leaderboard as a reader sees it."""
        return tables(self.leaderboard, self.arrangement)

    @cached_property
    def features(self) -> pd.DataFrame:
        """See `case_features`."""
        return case_features(self.cases, self.references, self.degradations, self.attributes)

    @property
    def max_distance(self) -> float | None:
        """Largest distance of a reference in the embedder's own scale; None: not known."""
        told = [facts for facts in self.provenance.values() if facts.get("table") == "references"]
        found = {facts["config"].get("max_distance") for facts in told}
        return found.pop() if len(found) == 1 else None

    @cached_property
    def subgroups(self) -> pd.DataFrame:
        """See `subgroup_means`."""
        return subgroup_means(
            self.blocks, bins(self.features, max_distance=self.max_distance), self.options.failures, seed=self.seed
        )

    @cached_property
    def gate(self) -> pd.DataFrame | None:
        """See `identity_gate`; None without a gate, and where its metric has no score."""
        gate = self.options.gate
        scored = self.scores.loc[self.scores["status"] == "ok", "metric"]
        if gate is None or gate.metric not in set(scored):
            return None
        return identity_gate(self, self.leaderboard, gate)

    @cached_property
    def age_comparisons(self) -> dict[str, pd.DataFrame]:
        """Title to what `paired_benchmarks` found; a pair of which one side was not scored is left out."""
        there = set(self.scores.loc[self.scores["status"] == "ok", "benchmark"])
        return {
            title: paired_benchmarks(self, first, second)
            for title, (first, second) in self.age_pairs.items()
            if {first, second} <= there
        }

    @property
    def comparisons(self) -> pd.DataFrame | None:
        """The table ``comparisons``; None where no two benchmarks are compared."""
        import pandas as pd

        found = [frame for frame in self.age_comparisons.values() if len(frame)]
        return pd.concat(found, ignore_index=True) if found else None

    @cached_property
    def pair_tables(self) -> list[PairTable]:
        """See `ffhqref.leaderboard.pairs.pair_tables`."""
        return pair_tables(self.age_comparisons)

    def renamed(self, names: Mapping[str, str]) -> Report:
        """Return the report with other names for some methods."""
        if not names:
            return self

        def frame(table: pd.DataFrame) -> pd.DataFrame:
            return table.assign(method=table["method"].map(lambda name: names.get(name, name)))

        def keys(items: Mapping[str, T]) -> dict[str, T]:
            return {names.get(name, name): item for name, item in items.items()}

        def notes(items: Mapping[str, str]) -> dict[str, str]:
            return {name if name in self.metrics else names.get(name, name): text for name, text in items.items()}

        return replace(
            self,
            scores=frame(self.scores),
            restorations=frame(self.restorations),
            methods=keys(self.methods),
            benchmarks={name: replace(info, notes=notes(info.notes)) for name, info in self.benchmarks.items()},
        )

    def restricted(self, *, methods: Collection[str], benchmarks: Collection[str], metrics: Collection[str]) -> Report:
        """Return a part of the report; the ground truth stays.

        Args:
            methods: those that stay.
            benchmarks: those that stay.
            metrics: those that stay, of single cases and of whole sets.
        """

        def kept(items: Mapping[str, T], wanted: Collection[str]) -> dict[str, T]:
            return {name: item for name, item in items.items() if name in wanted}

        scores, restorations = (
            frame[frame["method"].isin([*methods, GROUND_TRUTH]) & frame["benchmark"].isin(benchmarks)]
            for frame in (self.scores, self.restorations)
        )
        return replace(
            self,
            scores=scores[scores["metric"].isin(metrics)].reset_index(drop=True),
            cases=self.cases[self.cases["benchmark"].isin(benchmarks)].reset_index(drop=True),
            restorations=restorations.reset_index(drop=True),
            metrics=kept(self.metrics, metrics),
            benchmarks={
                name: replace(info, notes=kept(info.notes, [*metrics, *methods, GROUND_TRUTH]))
                for name, info in kept(self.benchmarks, benchmarks).items()
            },
            methods=kept(self.methods, methods),
            age_pairs={title: pair for title, pair in self.age_pairs.items() if set(pair) <= set(benchmarks)},
        )
