"""The tables of one or several workspaces as a report takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from ffhqref.core.hashing import content_key
from ffhqref.leaderboard.merge import Workspace as ScoredWorkspace
from ffhqref.leaderboard.merge import merge_leaderboards
from ffhqref.leaderboard.published import BenchmarkInfo
from ffhqref.metrics.scoring import GROUND_TRUTH
from ffhqref.reference_sets.agesets import LABEL
from ffhqref.restorers.base import RestorerInfo
from ffhqref.store.tables import read_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from ffhqref.store.workspace import Workspace

TABLES = ("images", "embeddings", "identities", "references", "degradations", "cases", "restorations", "scores")
"""What a report is made of."""
OPTIONAL = ("attributes", "imports")
"""What it shows too where it is there."""

CASE = ["benchmark", "case_id"]
"""Columns that name a case."""

MADE_OF = {"FFHQ-Ref test": "ffhq", "CelebA-Test-Ref": "celeba_hq"}
"""Published set to the data set whose pictures it consists of; other published sets are folders of their own."""


@dataclass(frozen=True)
class Source:
    """What a report shows. Paths in the frames are absolute, so that those of several workspaces cannot be mixed up."""

    scored: ScoredWorkspace
    facts: Mapping[str, dict[str, Any]]
    """Table name (with its workspace before it after `merge_sources`) to its provenance."""
    infos: Mapping[str, RestorerInfo]
    pairs: Mapping[str, tuple[str, str]]
    """Title to two benchmarks that differ in the age of the references only."""
    datasets: tuple[str, ...]
    credits: tuple[str, ...]
    references: pd.DataFrame | None
    degradations: pd.DataFrame | None
    attributes: pd.DataFrame | None


def read_facts(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Return the provenance of every table that a report needs.

    Raises:
        TableError: one of them is not there.
    """
    there = [name for name in OPTIONAL if workspace.has(name)]
    return {name: read_metadata(workspace.root, name) for name in (*TABLES, *there)}


def read_source(workspace: Workspace) -> Source:
    """Return the tables of one workspace: the cases that were scored, of which there may be more.

    Raises:
        TableError: a table is missing, of another version, or names a path outside its root.
    """
    facts = read_facts(workspace)
    dataset, config = facts["images"]["dataset"], facts["cases"]["config"]
    scores = workspace.read("scores")
    scored = scores[CASE].drop_duplicates()
    cases, restorations = (workspace.read(name).merge(scored, on=CASE) for name in ("cases", "restorations"))
    benchmarks = _benchmarks(workspace, cases, config, dataset)

    def absolute(place: Callable[[str], Path]) -> Callable[[str | None], str | None]:
        return lambda path: str(place(path)) if isinstance(path, str) else None

    image, file = absolute(workspace.image), absolute(workspace.file)
    cases["lq_path"] = cases["lq_path"].map(file)
    cases["gt_path"] = cases["gt_path"].map(image)
    cases["reference_paths"] = cases["reference_paths"].map(lambda paths: [image(path) for path in paths])
    restorations["output_path"] = restorations["output_path"].map(file)
    degradations = workspace.read("degradations")
    degradations["lq_path"] = degradations["lq_path"].map(file)
    return Source(
        scored=ScoredWorkspace(
            name=str(workspace.root),
            scores=scores,
            cases=cases,
            restorations=restorations,
            directions=facts["scores"]["directions"],
            signatures=facts["scores"]["signatures"],
            benchmarks=benchmarks,
            unavailable=facts["scores"].get("unavailable", {}),
            notes=facts["scores"].get("notes", {}),
        ),
        facts=facts,
        infos={name: _info(stored) for name, stored in facts["restorations"]["infos"].items()},
        pairs=_age_pairs(cases, config),
        datasets=(dataset["name"],),
        credits=(dataset["attribution"] or dataset["licence"],),
        references=workspace.read("references"),
        degradations=degradations,
        attributes=workspace.read("attributes") if "attributes" in facts else None,
    )


def merge_sources(sources: Sequence[Source]) -> Source:
    """Join several workspaces into one report.

    What belongs to the pictures (distances of references, strength of degradations, attributes) is kept only where
    all workspaces have the same reference set, because another set may use the same ids.

    Raises:
        TableError: they mean different things by one name, see `ffhqref.leaderboard.merge.merge_leaderboards`.
    """
    import pandas as pd

    scored = merge_leaderboards([source.scored for source in sources])
    if len(sources) == 1:
        return sources[0]
    one_set = all(
        len({source.facts[table]["content"] for source in sources}) == 1 for table in ("images", "references")
    )
    degradations = None
    if one_set:
        made = [source.degradations for source in sources if source.degradations is not None]
        degradations = pd.concat(made).drop_duplicates(["target_id", "level"], ignore_index=True)
    attributes = None
    if one_set and len({source.facts.get("attributes", {}).get("content") for source in sources}) == 1:
        attributes = sources[0].attributes
    infos: dict[str, RestorerInfo] = {}
    pairs: dict[str, tuple[str, str]] = {}
    for source in reversed(sources):  # the first counts, as it does for scores
        infos |= source.infos
        pairs |= source.pairs
    return replace(
        sources[0],
        scored=scored,
        facts={f"{source.scored.name}: {name}": facts for source in sources for name, facts in source.facts.items()},
        infos=infos,
        pairs=pairs,
        datasets=tuple(dict.fromkeys(name for source in sources for name in source.datasets)),
        credits=tuple(dict.fromkeys(credit for source in sources for credit in source.credits)),
        references=sources[0].references if one_set else None,
        degradations=degradations,
        attributes=attributes,
    )


def restrict(source: Source, *, methods: Sequence[str], benchmarks: Sequence[str], metrics: Sequence[str]) -> Source:
    """Return a part of what a report shows; the ground truth stays.

    Args:
        source: all of it.
        methods: those that stay.
        benchmarks: those that stay.
        metrics: those that stay, of single cases and of whole sets.
    """
    whole = source.scored

    def kept(names: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
        return {name: item for name, item in names.items() if name in wanted}

    scores, restorations = (
        frame[frame["method"].isin([*methods, GROUND_TRUTH]) & frame["benchmark"].isin(benchmarks)]
        for frame in (whole.scores, whole.restorations)
    )
    scored = replace(
        whole,
        scores=scores[scores["metric"].isin(metrics)].reset_index(drop=True),
        cases=whole.cases[whole.cases["benchmark"].isin(benchmarks)].reset_index(drop=True),
        restorations=restorations.reset_index(drop=True),
        directions=kept(whole.directions, metrics),
        signatures=kept(whole.signatures, metrics),
        benchmarks=kept(whole.benchmarks, benchmarks),
        unavailable=kept(whole.unavailable, metrics),
        notes={name: kept(notes, metrics) for name, notes in kept(whole.notes, benchmarks).items()},
    )
    pairs = {title: pair for title, pair in source.pairs.items() if set(pair) <= set(benchmarks)}
    return replace(source, scored=scored, infos=kept(source.infos, methods), pairs=pairs)


def set_name(options: Mapping[str, Any], dataset: str) -> str:
    """Return the name under which papers print a benchmark's set, or one of its own.

    A preset made for one data set can be run on any; over other pictures it is not the published set. Blind sets are
    whole folders of their own, whatever the workspace's data set is.

    Args:
        options: of the benchmark.
        dataset: name of the workspace's data set.

    >>> set_name({"published_set": "FFHQ-Ref test", "split": "test"}, "ffhq")
    'FFHQ-Ref test'
    >>> set_name({"published_set": "FFHQ-Ref test", "split": "test"}, "folder")
    'folder test'
    """
    published = options.get("published_set")
    if published and MADE_OF.get(published, dataset) == dataset:
        return str(published)
    return f"{dataset} {options.get('split') or ''}".strip()


def _info(stored: Mapping[str, Any]) -> RestorerInfo:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    return RestorerInfo(**fields)


def _benchmarks(
    workspace: Workspace, cases: pd.DataFrame, config: Mapping[str, Any], dataset: Mapping[str, Any]
) -> dict[str, BenchmarkInfo]:
    """Return what each benchmark is; its protocol hash is over its cases and their pictures' hashes.

    These are the hashes that the tables recorded, which restoring and scoring hold the files to; files without one
    (low-quality pictures from a folder) are hashed as they are now.
    """
    known = workspace.picture_hashes()

    def sha256(path: str) -> str:
        try:
            return known(path)
        except OSError:
            return "missing"

    found = {}
    for name, options in config.items():
        mine = cases[cases["benchmark"] == name].sort_values("case_id")
        if mine.empty:
            continue
        columns = (mine[column] for column in ("case_id", "lq_path", "gt_path", "reference_paths"))
        pictures = [
            [case_id, sha256(lq), sha256(gt) if isinstance(gt, str) else None, [sha256(path) for path in references]]
            for case_id, lq, gt, references in zip(*columns, strict=True)
        ]
        found[name] = BenchmarkInfo(
            name=name,
            dataset=set_name(options, dataset["name"]),
            degradation=options.get("published_degradation") or options.get("degradation") or "",
            max_references=options.get("references"),
            n_cases=len(mine),
            people_from="FFHQ" if dataset["name"] == "ffhq" and options.get("split") else "",
            protocol_hash=content_key(pictures),
            title=_title(options, mine["reference_paths"].map(len)),
        )
    return found


def _title(options: Mapping[str, Any], counts: pd.Series[int]) -> str:
    """Return what a reader must know of a benchmark's references beside their number."""
    if options.get("ages"):
        return LABEL
    if not (options.get("reference_folder") or options.get("reference_list")):
        return ""
    without = int((counts == 0).sum())
    return (
        f"{counts.min()} to {counts.max()} references a case, mean {counts.mean():.1f}"
        + (f", {without} cases without" if without else "")
        + f"; from outside, source: {options.get('reference_source', 'unknown')}"
    )


def _age_pairs(cases: pd.DataFrame, config: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return title to the two benchmarks of a same-age against cross-age comparison; they must share targets."""
    targets = cases.groupby("benchmark")["target_id"].agg(set).to_dict()
    sides = {
        side: {name: options for name, options in config.items() if options.get("ages") == side and name in targets}
        for side in ("same", "cross")
    }
    return {
        f"same-age against cross-age ({same} and {cross})": (same, cross)
        for (same, first), (cross, second) in product(sides["same"].items(), sides["cross"].items())
        if all(first.get(key) == second.get(key) for key in ("degradation", "lq_folder"))
        and targets[same] & targets[cross]
    }
