"""Leaderboards of several workspaces as one, where their protocols agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ffhqref.core.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from ffhqref.leaderboard.published import BenchmarkInfo


@dataclass(frozen=True)
class Workspace:
    """The tables of one workspace that a merged report needs, and what they were made of."""

    name: str
    """Shown in messages: the folder, for instance."""
    scores: pd.DataFrame
    cases: pd.DataFrame
    restorations: pd.DataFrame
    directions: Mapping[str, bool]
    signatures: Mapping[str, str]
    benchmarks: Mapping[str, BenchmarkInfo] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Metric to why it could not run."""
    notes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Benchmark to metric to what a reader must know of that column."""


def merge_leaderboards(workspaces: Sequence[Workspace]) -> Workspace:
    """Join the scores of several workspaces, so that they can be ranked together by `analyse`.

    Ranks and intervals need the cases and not only the means: this joins scores, not leaderboards. A method that
    two workspaces ran on a benchmark is kept once if its scores are the same; a metric that could not run in one of
    them takes the other's. Paths stay as they are: make them
    absolute before (`ffhqref.leaderboard.sources.read_source`), or two workspaces' files of one name are mixed up.

    Args:
        workspaces: at least one.

    Raises:
        TableError: two workspaces mean different things by one name: a metric with another signature or direction, a
            benchmark with other cases or another protocol hash, or a method with other scores on the same cases.
    """
    import pandas as pd

    if not workspaces:
        raise TableError("nothing to merge: name at least one workspace")
    first = workspaces[0]
    directions, signatures = dict(first.directions), dict(first.signatures)
    benchmarks = dict(first.benchmarks)
    scores, cases, restorations = first.scores, first.cases, first.restorations
    owner = dict.fromkeys([*signatures, *directions], first.name)
    for other in workspaces[1:]:
        for metric, signature in other.signatures.items():
            if signatures.get(metric, signature) != signature:
                raise TableError(
                    f"metric '{metric}' is not the same in {owner[metric]} ({signatures[metric]}) and {other.name} "
                    f"({signature}); score one of them again with the other's setting"
                )
        for metric, higher in other.directions.items():
            if directions.get(metric, higher) != higher:
                raise TableError(f"metric '{metric}' has another direction in {owner[metric]} than in {other.name}")
        for name, info in other.benchmarks.items():
            mine = benchmarks.get(name, info)
            if (mine.protocol_hash, mine.dataset, mine.degradation, mine.max_references) != (
                info.protocol_hash, info.dataset, info.degradation, info.max_references,
            ):  # fmt: skip
                raise TableError(
                    f"benchmark '{name}' has another protocol in {other.name} ({_words(info)}) than in those before "
                    f"({_words(mine)}); degrade and restore one of them again, or rename it"
                )
        _same_cases(cases, other.cases, other.name)
        directions |= other.directions
        signatures |= other.signatures
        benchmarks |= other.benchmarks
        owner |= {name: other.name for name in other.directions if name not in owner}
        scores = _join(scores, other.scores, ["method", "benchmark", "case_id", "metric"], ["value"], other.name)
        cases = pd.concat([cases, other.cases]).drop_duplicates(["benchmark", "case_id"], ignore_index=True)
        restorations = _join(
            restorations, other.restorations, ["method", "benchmark", "case_id"], ["output_sha256"], other.name
        )
    name = " + ".join(workspace.name for workspace in workspaces)
    notes = {
        benchmark: {
            metric: _said([(w.name, w.notes.get(benchmark, {}).get(metric, "")) for w in workspaces])
            for metric in dict.fromkeys(metric for w in workspaces for metric in w.notes.get(benchmark, {}))
        }
        for benchmark in dict.fromkeys(benchmark for w in workspaces for benchmark in w.notes)
    }
    lost = dict.fromkeys(metric for workspace in workspaces for metric in workspace.unavailable)
    unavailable = {metric: _said([(w.name, w.unavailable.get(metric, "")) for w in workspaces]) for metric in lost}
    return Workspace(name, scores, cases, restorations, directions, signatures, benchmarks, unavailable, notes)


def _said(lines: Sequence[tuple[str, str]]) -> str:
    """Join what (workspace, line) say; workspaces are named unless all say the same."""
    if len({line for _, line in lines}) == 1:
        return lines[0][1]
    return "; ".join(f"{name}: {line}" for name, line in lines if line)


def _words(info: BenchmarkInfo) -> str:
    references = "all" if info.max_references is None else info.max_references
    return f"{info.dataset}, {info.degradation}, {references} references, {info.protocol_hash[:12] or 'no hash'}"


def _same_cases(mine: pd.DataFrame, theirs: pd.DataFrame, name: str) -> None:
    for benchmark in sorted(set(mine["benchmark"]) & set(theirs["benchmark"])):
        a, b = ({*frame.loc[frame["benchmark"] == benchmark, "case_id"]} for frame in (mine, theirs))
        if a != b:
            raise TableError(
                f"benchmark '{benchmark}' has other cases in {name}: {len(b - a)} only there, {len(a - b)} missing; "
                "merge only leaderboards over the same cases"
            )


def _join(mine: pd.DataFrame, theirs: pd.DataFrame, key: list[str], facts: list[str], name: str) -> pd.DataFrame:
    import pandas as pd

    def there(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.loc[frame["status"] != "unavailable", key + facts]

    both = there(mine).merge(there(theirs), on=key, suffixes=("", "_other"))
    for fact in facts:
        a, b = both[fact], both[f"{fact}_other"]
        differs = ~((a == b).fillna(False).astype(bool) | (a.isna() & b.isna()))
        if differs.any():
            row = both[differs].iloc[0]
            raise TableError(
                f"{name} holds another {fact} for method '{row['method']}', benchmark '{row['benchmark']}', case "
                f"'{row['case_id']}'; rename one method or restore it again"
            )
    found = pd.concat([mine, theirs])
    found = found.sort_values("status", key=lambda status: status == "unavailable", kind="stable")
    return found.drop_duplicates(key, ignore_index=True)
