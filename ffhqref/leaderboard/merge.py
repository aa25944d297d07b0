"""Joins the reports of several workspaces where their protocols agree."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from ffhqref.core.errors import TableError
from ffhqref.core.parsing import parsing
from ffhqref.leaderboard.case_values import identity_codes
from ffhqref.metrics.jury import MEAN_RANK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from ffhqref.leaderboard.published import BenchmarkInfo
    from ffhqref.leaderboard.report import Report
    from ffhqref.leaderboard.report_data import MetricFacts

T = TypeVar("T")


@parsing("what is merged", TableError, "its tables are not as this release writes them: make it again")
def merge_reports(reports: Sequence[Report]) -> Report:
    """Join the reports of several workspaces, so that their methods are ranked together.

    Ranks and intervals need the cases and not only the means: this joins scores, not leaderboards. A method that
    two workspaces ran on a benchmark is kept once if its scores are the same; a metric that could not run in one of
    them takes the other's. What belongs to the images (distances of references, strength of degradations, attributes)
    is kept only where all workspaces have the same reference set, because another set may use the same ids.

    Args:
        reports: at least one, with absolute paths (`ffhqref.leaderboard.reading.read_report`).

    Raises:
        TableError: two workspaces mean different things by one name: a metric with another signature or direction, a
            benchmark with other cases or another protocol hash, or a method with other scores on the same cases.
    """
    if not reports:
        raise TableError("nothing to merge: name at least one workspace")
    if len(reports) == 1:
        return reports[0]
    reports = [_without_ranks(report) for report in reports]
    reports = [report.renamed(names) for report, names in zip(reports, new_names(reports), strict=True)]
    metrics = _metrics(reports)
    benchmarks = _benchmarks(reports)
    first = reports[0]
    scores, cases, restorations = first.scores, first.cases, first.restorations
    for other in reports[1:]:
        _check_cases(cases, other.cases, other.name)
        scores = _join(scores, other.scores, ["method", "benchmark", "case_id", "metric"], ["value"], other.name)
        cases = _stacked([cases, other.cases], ["benchmark", "case_id"])
        restorations = _join(
            restorations, other.restorations, ["method", "benchmark", "case_id"], ["output_sha256"], other.name
        )
    one_set = all(
        len({report.provenance[table]["content"] for report in reports if table in report.provenance}) == 1
        for table in ("images", "references")
    )
    made = [report.degradations for report in reports if report.degradations is not None]
    listed = [report.references for report in reports if report.references is not None]
    told = [report.attributes for report in reports if report.attributes is not None]
    same_attributes = len({report.provenance.get("attributes", {}).get("content") for report in reports}) == 1
    return replace(
        first,
        name=" + ".join(report.name for report in reports),
        scores=scores,
        cases=cases,
        restorations=restorations,
        metrics=metrics,
        benchmarks=benchmarks,
        methods=_united(report.methods for report in reports),
        age_pairs=_united(report.age_pairs for report in reports),
        sha256=_united(report.sha256 for report in reports),
        # each workspace has its own paths
        references=_stacked(listed, ["target_id", "path"]) if one_set and listed else None,
        degradations=_stacked(made, ["target_id", "level", "lq_path"]) if one_set and made else None,
        attributes=_stacked(told, ["path", "attribute"]) if one_set and same_attributes and told else None,
        provenance={f"{report.name}: {name}": facts for report in reports for name, facts in report.provenance.items()},
    )


def _without_ranks(report: Report) -> Report:
    """Return a report without the jury's mean rank, which holds among one workspace's own methods."""
    if MEAN_RANK not in report.metrics:
        return report
    others = [name for name in report.metrics if name != MEAN_RANK]
    methods = {*report.methods, *report.restorations["method"].unique()}
    return report.restricted(methods=methods, benchmarks=report.benchmarks, metrics=others)


def new_names(reports: Sequence[Report]) -> list[dict[str, str]]:
    """Return for each report the new names of its methods: one name in two settings is two methods.

    Settings that made the same output of every case that both workspaces restored are one.
    """
    found: list[dict[str, str]] = [{} for _ in reports]
    for name in dict.fromkeys(name for report in reports for name in report.methods):
        those = [(index, report) for index, report in enumerate(reports) if name in report.methods]
        if all(_one_method(name, those[0][1], other) for _, other in those[1:]):
            continue
        codes: dict[str, set[str]] = {}
        for _, report in those:
            codes.setdefault(report.methods[name].setting, set()).add(report.methods[name].code)
        for index, report in those:
            method = report.methods[name]
            kind = "" if method.kind in ("", name) else f"{method.kind}: "
            code = f", code {method.code[:8] or 'not recorded'}" if len(codes[method.setting]) > 1 else ""
            found[index][name] = f"{name} ({kind}{method.setting or 'default'}{code})"
    return found


def _one_method(name: str, a: Report, b: Report) -> bool:
    mine, theirs = a.methods[name], b.methods[name]
    same_code = mine.code == theirs.code or not (mine.code and theirs.code)
    if same_code and (mine.kind, mine.setting) == (theirs.kind, theirs.setting):
        return True
    keys = ["benchmark", "case_id", "output_sha256"]
    outputs = [report.restorations.loc[report.restorations["method"] == name, keys] for report in (a, b)]
    both = outputs[0].merge(outputs[1], on=keys[:2], suffixes=("", "_other"))
    return bool(len(both)) and bool((both["output_sha256"] == both["output_sha256_other"]).all())


def _by_content(signature: str) -> str:
    """Return a signature without the names of its files, whose hashes say what they are."""
    return re.sub(r"[^|=:@\s]+@(?=[0-9a-f]{12})", "@", signature)


def _united(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """Join mappings; the first counts, as it does for scores."""
    found: dict[str, T] = {}
    for part in reversed(list(parts)):
        found |= part
    return found


def _stacked(frames: Sequence[pd.DataFrame], key: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(frames).drop_duplicates(key, ignore_index=True)


def _metrics(reports: Sequence[Report]) -> dict[str, MetricFacts]:
    found: dict[str, tuple[MetricFacts, str]] = {}
    reasons: dict[str, list[tuple[str, str]]] = {}
    for report in reports:
        for name, theirs in report.metrics.items():
            if theirs.unavailable:
                reasons.setdefault(name, []).append((report.name, theirs.unavailable))
            if name not in found:
                found[name] = theirs, report.name
                continue
            mine, owner = found[name]
            if theirs.signature and mine.signature and _by_content(theirs.signature) != _by_content(mine.signature):
                raise TableError(
                    f"metric '{name}' is not the same in {owner} ({mine.signature}) and {report.name} "
                    f"({theirs.signature}); score one of them again with the other's setting"
                )
            if theirs.higher_is_better != mine.higher_is_better:
                raise TableError(f"metric '{name}' has another direction in {owner} than in {report.name}")
            if theirs.signature and not mine.signature:
                found[name] = theirs, report.name
    everywhere = len(reports)
    return {
        name: replace(facts, unavailable=_said(reasons.get(name, []), everywhere)) for name, (facts, _) in found.items()
    }


def _benchmarks(reports: Sequence[Report]) -> dict[str, BenchmarkInfo]:
    found: dict[str, BenchmarkInfo] = {}
    stands_for: dict[str, str] = {}
    for report in reports:
        for name, theirs in report.benchmarks.items():
            if theirs.id and stands_for.setdefault(theirs.id, theirs.definition) != theirs.definition:
                raise TableError(
                    f"{theirs.id} stands for something else in {report.name} (definition {theirs.definition[:12]}) "
                    f"than in those before ({stands_for[theirs.id][:12]}); raise the version or drop the id of one "
                    f"(benchmark.{name}.id) and degrade again"
                )
            mine = found.setdefault(name, theirs)
            if (mine.protocol_hash, mine.dataset, mine.degradation, mine.max_references) != (
                theirs.protocol_hash, theirs.dataset, theirs.degradation, theirs.max_references,
            ):  # fmt: skip
                raise TableError(
                    f"benchmark '{name}' has another protocol in {report.name} ({_words(theirs)}) than in those before "
                    f"({_words(mine)}); degrade and restore one of them again, or rename it"
                )
    return {name: replace(info, notes=_notes(reports, name)) for name, info in found.items()}


def _notes(reports: Sequence[Report], benchmark: str) -> dict[str, str]:
    told = [(report.name, report.benchmarks[benchmark].notes) for report in reports if benchmark in report.benchmarks]
    metrics = dict.fromkeys(metric for _, notes in told for metric in notes)
    return {
        metric: _said([(name, notes[metric]) for name, notes in told if metric in notes], len(reports))
        for metric in metrics
    }


def _said(lines: Sequence[tuple[str, str]], workspaces: int) -> str:
    """Join what (workspace, line) say; workspaces are named unless all of them say the same."""
    if len(lines) == workspaces and len({line for _, line in lines}) == 1:
        return lines[0][1]
    return "; ".join(f"{name}: {line}" for name, line in lines)


def _words(info: BenchmarkInfo) -> str:
    references = "all" if info.max_references is None else info.max_references
    return f"{info.dataset}, {info.degradation}, {references} references, {info.protocol_hash[:12] or 'no hash'}"


def _check_cases(mine: pd.DataFrame, theirs: pd.DataFrame, name: str) -> None:
    for benchmark in sorted(set(mine["benchmark"]) & set(theirs["benchmark"])):
        a, b = ({*frame.loc[frame["benchmark"] == benchmark, "case_id"]} for frame in (mine, theirs))
        if a != b:
            raise TableError(
                f"benchmark '{benchmark}' has other cases in {name}: {len(b - a)} only there, {len(a - b)} missing; "
                "merge only leaderboards over the same cases"
            )
        people = [_people(frame[frame["benchmark"] == benchmark]) for frame in (mine, theirs)]
        apart = [case for case, group in people[0].items() if people[1][case] != group]
        if apart:
            raise TableError(
                f"benchmark '{benchmark}' has other people in {name}: {len(apart)} cases belong together with others "
                f"there (first: '{apart[0]}'); build both workspaces with the same identities"
            )


def _people(cases: pd.DataFrame) -> dict[str, frozenset[str]]:
    """Return for each case the cases of the same person."""
    codes = identity_codes(cases)
    groups: dict[int, set[str]] = {}
    for case, code in zip(cases["case_id"], codes, strict=True):
        groups.setdefault(int(code), set()).add(case)
    return {case: frozenset(group) for group in groups.values() for case in group}


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
