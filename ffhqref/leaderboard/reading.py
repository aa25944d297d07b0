"""Reads the tables of a workspace as a report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import product
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, TableError
from ffhqref.core.hashing import content_key
from ffhqref.core.parsing import parsing
from ffhqref.leaderboard.case_values import CASE
from ffhqref.leaderboard.methods import read_methods
from ffhqref.leaderboard.options import ReportOptions
from ffhqref.leaderboard.published import BenchmarkInfo
from ffhqref.leaderboard.report import Report
from ffhqref.leaderboard.report_data import MetricFacts
from ffhqref.reference_sets.agesets import LABEL
from ffhqref.store.tables import read_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from ffhqref.store.workspace import Workspace

TABLES = ("images", "embeddings", "identities", "references", "degradations", "cases", "restorations", "scores")
"""What a report is made of."""
OPTIONAL = ("attributes", "imports", "sources")
"""What it shows too where it is there."""

FOREIGN = "its tables are not as this release writes them: use the release that made it, or make it again"

MISSING = "missing"
"""In place of the hash of a file that is not there."""

MADE_OF = {"FFHQ-Ref test": "ffhq", "CelebA-Test-Ref": "celeba_hq"}
"""Published set to the data set whose images it consists of; other published sets are folders of their own."""


PEOPLE = {"ffhq": "FFHQ", "celeba_hq": "CelebA-HQ", "celebref_hq": "CelebRef-HQ", "folder": "", "sample": ""}
"""Data set to what papers call it; one of another package has its own name."""


def read_facts(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Return the metadata of every table that a report needs.

    Raises:
        TableError: one of them is not there.
    """
    there = [name for name in OPTIONAL if workspace.has(name)]
    return {name: read_metadata(workspace.root, name) for name in (*TABLES, *there)}


Scored = dict[str, list[str]]
"""Config group (restorer, benchmark, metric) to the names that were scored."""


def scored_parts(workspaces: Sequence[Workspace], limit: int | None = None) -> Scored:
    """Return what was scored in some workspaces.

    Args:
        workspaces: with current scores.
        limit: at most this many targets; the distances between whole sets belong to all that was scored.

    Raises:
        TableError: a table is missing or stale.
        ConfigError: more targets were scored than the limit allows.
    """
    there: Scored = {"restorer": [], "benchmark": [], "metric": []}
    for workspace in workspaces:
        with parsing(f"workspace {workspace.root}", TableError, FOREIGN):
            for group, names in _scored(workspace, limit).items():
                there[group] += [name for name in names if name not in there[group]]
    return there


def _scored(workspace: Workspace, limit: int | None) -> Scored:
    workspace.check_current("scores")
    facts = read_facts(workspace)
    cases = workspace.read("cases").merge(workspace.read("scores")[CASE].drop_duplicates(), on=CASE)
    most = int(cases.groupby("benchmark")["target_id"].nunique().max())
    if limit is not None and most > limit:
        raise ConfigError(
            f"limit={limit}: {most} targets were scored in {workspace.root}; run `ffhqref score` with "
            f"limit={limit} first"
        )
    return {
        "restorer": list(facts["restorations"]["infos"]),
        "benchmark": [name for name in facts["cases"]["config"] if name in set(cases["benchmark"])],
        "metric": list(facts["scores"]["directions"]),
    }


def read_report(workspace: Workspace, options: ReportOptions | None = None, seed: int = 0) -> Report:
    """Return the report of one workspace: the cases that were scored, of which there may be more.

    Args:
        workspace: with scores.
        options: of the report.
        seed: of all resampling.

    Raises:
        TableError: a table is missing, of another version, or names a path outside its root.
    """
    with parsing(f"workspace {workspace.root}", TableError, FOREIGN):
        return _report(workspace, options or ReportOptions(), seed)


def _report(workspace: Workspace, options: ReportOptions, seed: int) -> Report:
    facts = read_facts(workspace)
    config = facts["cases"]["config"]
    scores = workspace.read("scores")
    scored = scores[CASE].drop_duplicates()
    cases, restorations = (workspace.read(name).merge(scored, on=CASE) for name in ("cases", "restorations"))
    sha256 = _recorded_hashes(workspace)
    benchmarks = _benchmarks(sha256, cases, facts)

    def absolute(place: Callable[[str], Path]) -> Callable[[str | None], str | None]:
        return lambda path: str(place(path)) if isinstance(path, str) else None

    image, file = absolute(workspace.image), absolute(workspace.file)
    hashes = dict(zip(restorations["output_path"].map(file), restorations["output_sha256"], strict=True))
    for place, paths in (
        (file, cases["lq_path"]),
        (image, cases["gt_path"].dropna()),
        (image, cases["reference_paths"].explode().dropna()),
    ):
        hashes |= {place(path): sha256(path) for path in paths.unique()}
    cases["lq_path"] = cases["lq_path"].map(file)
    cases["gt_path"] = cases["gt_path"].map(image)
    cases["reference_paths"] = cases["reference_paths"].map(lambda paths: [image(path) for path in paths])
    restorations["output_path"] = restorations["output_path"].map(file)
    images = workspace.read("images")
    places = dict(zip(images["image_id"], images["path"].map(image), strict=True))
    references = workspace.read("references")
    references["path"] = references["reference_id"].map(places)
    degradations = workspace.read("degradations")
    degradations["lq_path"] = degradations["lq_path"].map(file)
    return Report(
        name=str(workspace.root),
        scores=scores,
        cases=cases,
        restorations=restorations,
        metrics=_metrics(facts["scores"]),
        benchmarks=benchmarks,
        methods=read_methods(facts["restorations"]),
        age_pairs=_age_pairs(cases, config),
        references=references,
        degradations=degradations,
        attributes=_attributes(workspace, facts, places),
        provenance=facts,
        options=options,
        seed=seed,
        sha256={path: str(sha256) for path, sha256 in hashes.items() if path},
    )


def _attributes(workspace: Workspace, facts: Collection[str], places: Mapping[str, str]) -> pd.DataFrame | None:
    """Return the table ``attributes`` with ``source_face`` (pixels) and ``source_grey`` (1 or 0) of ``sources``.

    Args:
        workspace: theirs.
        facts: of its tables.
        places: image id to where the image lies, which the column ``path`` tells.
    """
    import pandas as pd

    told = [workspace.read("attributes")] if "attributes" in facts else []
    if "sources" in facts:
        sources = workspace.read("sources")
        for name, values in (("source_face", sources["face"]), ("source_grey", sources["grey"].astype(int))):
            told.append(pd.DataFrame({"image_id": sources["image_id"], "attribute": name, "value": values.astype(str)}))
    found = pd.concat(told, ignore_index=True) if told else None
    return None if found is None else found.assign(path=found["image_id"].map(places))


def _metrics(facts: Mapping[str, Any]) -> dict[str, MetricFacts]:
    signatures, reasons = facts["signatures"], facts.get("unavailable", {})
    return {
        name: MetricFacts(higher, signatures.get(name, ""), reasons.get(name, ""))
        for name, higher in facts["directions"].items()
    }


def people_of(options: Mapping[str, Any], dataset: str) -> str:
    """Return the data set whose people a benchmark tests, as `RestorerInfo.trained_on` calls it; empty: own images.

    Args:
        options: of the benchmark.
        dataset: name of the workspace's data set.

    >>> people_of({"split": "test"}, "celebref_hq"), people_of({"published_set": "LFW-Test"}, "ffhq")
    ('CelebRef-HQ', 'LFW')
    """
    published = str(options.get("published_set") or "")
    if options.get("split") or MADE_OF.get(published) == dataset:
        return PEOPLE.get(dataset, dataset)
    return published.partition("-")[0]


def set_name(options: Mapping[str, Any], dataset: str, *, released: bool = True) -> str:
    """Return the name under which papers print a benchmark's set, or one of its own.

    A preset made for one data set can be run on any; over other images it is not the published set. Blind sets are
    whole folders of their own, whatever the workspace's data set is.

    Args:
        options: of the benchmark.
        dataset: name of the workspace's data set.
        released: its split into people is the published one. An own split of FFHQ is not FFHQ-Ref's.

    >>> set_name({"published_set": "FFHQ-Ref test", "split": "test"}, "ffhq")
    'FFHQ-Ref test'
    >>> set_name({"published_set": "FFHQ-Ref test", "split": "test"}, "folder")
    'folder test'
    >>> set_name({"published_set": "FFHQ-Ref test", "split": "test"}, "ffhq", released=False)
    'ffhq test'
    """
    published = options.get("published_set")
    if published == "FFHQ-Ref test" and not released:
        published = None
    if published and MADE_OF.get(published, dataset) == dataset:
        return str(published)
    return f"{dataset} {options.get('split') or ''}".strip()


def _recorded_hashes(workspace: Workspace) -> Callable[[str], str]:
    """Return a function from a path of the tables to the hash of the image, `MISSING` where there is no file."""
    known = workspace.picture_hashes()

    def sha256(path: str) -> str:
        try:
            return known(path)
        except OSError:
            return MISSING

    return sha256


def _benchmarks(
    sha256: Callable[[str], str], cases: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, BenchmarkInfo]:
    """Return what each benchmark is; its protocol hash is over its cases and the hashes of their images.

    These are the hashes that the tables recorded, which restoring and scoring hold the files to; files without one
    (LQ images from a folder) are hashed as they are now.
    """
    released = bool(facts.get("identities", {}).get("config", {}).get("release"))
    dataset, config, notes = facts["images"]["dataset"], facts["cases"]["config"], facts["scores"].get("notes", {})
    known, ids = facts["cases"].get("definitions", {}), facts["cases"].get("ids", {})
    origins = facts["cases"].get("origins", {})
    found = {}
    for name, options in config.items():
        mine = cases[cases["benchmark"] == name].sort_values("case_id")
        if mine.empty:
            continue
        columns = (mine[column] for column in ("case_id", "lq_path", "gt_path", "reference_paths"))
        images = [
            [case_id, sha256(lq), sha256(gt) if isinstance(gt, str) else None, [sha256(path) for path in references]]
            for case_id, lq, gt, references in zip(*columns, strict=True)
        ]
        origin = origins.get(name)
        made_on, of_release = (origin["dataset"], origin["released"]) if origin else (dataset["name"], released)
        options = {**options, **origin["options"]} if origin else options
        found[name] = BenchmarkInfo(
            name=name,
            dataset=set_name(options, made_on, released=of_release),
            degradation=options.get("published_degradation") or _level(name, options.get("degradation")),
            max_references=options.get("references"),
            n_cases=len(mine),
            people_from=people_of(options, made_on),
            protocol_hash=content_key(images),
            title=_title(options, mine["reference_paths"].map(len)),
            notes=notes.get(name, {}),
            id=ids.get(name, ""),
            definition=known[ids[name]]["definition"] if name in ids else "",
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
        if _but_for_age(first) == _but_for_age(second) and targets[same] & targets[cross]
    }


def _but_for_age(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two benchmarks must share for their difference to be one of the references' age."""
    apart = ("ages", "name", "id", "definition", "counts")
    return {key: value for key, value in options.items() if key not in apart and value is not None}


def _level(benchmark: str, degradation: str | Mapping[str, Any] | None) -> str:
    """Return the name of a benchmark's degradation; one written as options has the benchmark's, unless it tells one.

    >>> _level("mine", "severe"), _level("mine", "/home/kim/mild.yaml"), _level("mine", {"sigma": [1, 2]})
    ('severe', 'mild', 'mine')
    """
    if isinstance(degradation, Mapping):
        return str(degradation.get("name") or benchmark)
    return PurePath(degradation).stem if degradation and degradation.endswith((".yaml", ".yml")) else degradation or ""
