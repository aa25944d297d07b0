"""References -> low-quality pictures of every benchmark, and its cases."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from ffhqref.cases.cases import Benchmark, draw_people, draw_references, make_blind_cases, make_cases, pick_targets
from ffhqref.cases.lq import (
    ITSELF,
    ImportStage,
    count_remark,
    given_references,
    import_records,
    import_rows,
    reference_rows,
    usable_paths,
)
from ffhqref.cli.main import launch
from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.hashing import sha256_file
from ffhqref.degradation.stage import DegradeRow, DegradeStage
from ffhqref.reference_sets.agesets import CROSS, LABEL, SAME, AgeSetConfig, age_references, summarise_age_sets
from ffhqref.reference_sets.review import read_exclusions
from ffhqref.store.tables import SPECS, read_metadata

from ._common import Context, embeddings_of, group_of, open_context, rows_of

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.cases.reference_folder import GivenReferences


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return degrade(context, check_benchmarks(context))


def check_benchmarks(context: Context) -> list[Benchmark]:
    """Return the benchmarks of the config; a wrong name or value ends here."""
    chosen = group_of(context.config, "benchmark")
    benchmarks = [Benchmark.of(name, options) for name, options in chosen.items()]
    if not benchmarks:
        raise ConfigError("no benchmark chosen: benchmark=[moderate,severe]")
    for benchmark in benchmarks:
        if benchmark.degradation:
            DegradeStage(context.workspace.root).preset(benchmark.degradation)
        if benchmark.gives_references:
            _given(benchmark, import_rows(benchmark.name, str(benchmark.lq_folder), None))
    AgeSetConfig.of(context.config["age_sets"])
    return benchmarks


def degrade(context: Context, benchmarks: list[Benchmark]) -> int:
    """Write ``degradations``, ``imports`` and ``cases``."""
    import pandas as pd

    workspace = context.workspace
    workspace.check_current("references")
    stage = DegradeStage(workspace.root, retry_failed=context.config["retry_failed"])
    images, identities, references = (workspace.read(name) for name in ("images", "identities", "references"))
    known = workspace.read("ages").dropna()
    ages: dict[str, float] = dict(zip(known["image_id"], known["age"], strict=True))
    listed = {
        benchmark.name: age_sets(context, benchmark, references, identities, ages) if benchmark.ages else references
        for benchmark in benchmarks
        if benchmark.split
    }
    for benchmark in benchmarks:
        if benchmark.reference_counts is not None and benchmark.name in listed:
            listed[benchmark.name] = draw_references(listed[benchmark.name], benchmark.reference_counts, context.seed)
    targets = {
        benchmark.name: _targets(context, benchmark, listed[benchmark.name], identities)
        for benchmark in benchmarks
        if benchmark.split
    }
    for name, found in targets.items():
        if not found:
            raise DatasetError(
                f"benchmark '{name}': its split has no target; lower dataset.min_references or see build"
            )

    made = _synthesise(context, stage, benchmarks, targets, images)
    brought = {b.name: _imported(context, b, targets.get(b.name)) for b in benchmarks if b.lq_folder}
    imports = pd.DataFrame([row for rows in brought.values() for row in rows], columns=list(SPECS["imports"].columns))
    lq = {
        benchmark.name: {name: path for name, (path,) in usable_paths(brought[benchmark.name], "lq").items()}
        if benchmark.lq_folder
        else dict(
            made.loc[made["error"].isna() & (made["level"] == benchmark.degradation), ["target_id", "lq_path"]].values
        )
        for benchmark in benchmarks
    }
    cases = []
    for benchmark in benchmarks:
        paths = lq[benchmark.name]
        if benchmark.split is None:
            given = usable_paths(brought[benchmark.name], "reference")
            cases.append(make_blind_cases(benchmark.name, paths, given, benchmark.references))
            continue
        cases.append(
            make_cases(
                benchmark.name,
                [target for target in targets[benchmark.name] if target in paths],
                images=images,
                identities=identities,
                references=listed[benchmark.name],
                ages=ages,
                lq_paths=paths,
                max_references=None if benchmark.reference_counts else benchmark.references,
            )
        )
    config = {
        name: {**options, "age_sets": context.config["age_sets"]} if options.get("ages") else options
        for name, options in context.config["benchmark"].items()
    }
    origin: dict[str, Any] = {"config": config, "seed": context.seed, "limit": context.limit}
    workspace.write("degradations", made, inputs=("references", "images"), **origin)
    workspace.write("imports", imports, **origin)
    for benchmark, frame in zip(benchmarks, cases, strict=True):
        if frame.empty:
            reasons = [*made.loc[made["level"] == benchmark.degradation, "error"].dropna(), "see the lines above"]
            raise DatasetError(f"benchmark '{benchmark.name}': no low-quality picture could be made: {reasons[0]}")
    workspace.write("cases", pd.concat(cases), inputs=("degradations", "imports", "references", "ages"), **origin)
    counts = ", ".join(f"{benchmark.name} {len(frame)}" for benchmark, frame in zip(benchmarks, cases, strict=True))
    context.reporter.say(f"cases: {counts}")
    return int(bool(made["error"].notna().any() or imports["error"].notna().any()))


def _targets(context: Context, benchmark: Benchmark, references: pd.DataFrame, identities: pd.DataFrame) -> list[str]:
    assert benchmark.split is not None
    if benchmark.people is None:
        return pick_targets(references, identities, benchmark.split, context.limit)
    people = benchmark.people if context.limit is None else min(benchmark.people, context.limit)
    return draw_people(references, identities, benchmark.split, people, context.seed)


def age_sets(
    context: Context, benchmark: Benchmark, references: pd.DataFrame, identities: pd.DataFrame, ages: dict[str, float]
) -> pd.DataFrame:
    """Return the references of a benchmark by age, in the form of the table ``references``."""
    workspace, config = context.workspace, AgeSetConfig.of(context.config["age_sets"])
    built = read_metadata(workspace.root, "references")["config"]
    verdicts = context.config["exclusions"]
    if built.get("exclusions") != (sha256_file(verdicts) if verdicts else None):
        raise ConfigError(
            f"benchmark '{benchmark.name}': the reference set was built with other exclusions; give the same "
            "exclusions=FILE as to build, or build again"
        )
    assert benchmark.split is not None
    made = age_references(
        embeddings_of(workspace),
        references=references,
        identities=identities,
        pairs=None if built.get("release") else workspace.read("pairs"),
        ages=ages,
        split=benchmark.split,
        max_distance=built["max_distance"],
        min_distance=built["min_distance"],
        exclusions=read_exclusions(verdicts, set(identities["image_id"])) if verdicts else None,
        config=config,
    )[SAME if benchmark.ages == "same" else CROSS]
    if made.empty:
        raise DatasetError(
            f"benchmark '{benchmark.name}': no target has references at most {config.same_max:g} and at least "
            f"{config.cross_min:g} years away; the ages of {len(ages)} of {len(identities)} pictures are known: give "
            "dataset.ages=FILE or ages.model=NAME and build again, or change age_sets"
        )
    for row in rows_of(summarise_age_sets(made.assign(benchmark=benchmark.name))):
        context.reporter.say(
            f"{row.benchmark}: {row.targets} targets with {row.references_per_target:.1f} references each, "
            f"{row.gap_min:.0f} to {row.gap_max:.0f} years away (median {row.gap_median:.0f}), {LABEL}"
        )
    return made


def _synthesise(
    context: Context,
    stage: DegradeStage,
    benchmarks: list[Benchmark],
    targets: dict[str, list[str]],
    images: pd.DataFrame,
) -> pd.DataFrame:
    import pandas as pd

    path: dict[str, str] = dict(zip(images["image_id"], images["path"], strict=True))
    sha256: dict[str, str] = dict(zip(images["image_id"], images["sha256"], strict=True))
    rows = {
        (benchmark.degradation, target): DegradeRow(
            target,
            path=str(context.workspace.image(path[target])),
            sha256=sha256[target],
            level=benchmark.degradation,
            seed=context.seed,
            out_path=f"lq/{benchmark.degradation}/{target}.png",
        )
        for benchmark in benchmarks
        if benchmark.degradation
        for target in targets[benchmark.name]
    }
    columns = list(SPECS["degradations"].columns)
    results = context.map(stage, list(rows.values()))
    made = pd.DataFrame(results, columns=columns)
    for row in rows_of(made[made["error"].notna()].head(5)):
        context.reporter.say(f"not degraded: {row.target_id} ({row.level}): {row.error}")
    return made


def _imported(context: Context, benchmark: Benchmark, targets: list[str] | None) -> list[dict[str, Any]]:
    """Bring the pictures of a benchmark's folders into the workspace; return their rows of table ``imports``."""
    assert benchmark.lq_folder is not None
    say, name = context.reporter.say, f"benchmark '{benchmark.name}'"
    rows = import_rows(benchmark.name, benchmark.lq_folder, targets)
    if benchmark.split is None or context.limit is None:
        remark = count_remark(benchmark.name, len(rows), benchmark.counts)
        if remark:
            say(remark)
    given = _given(benchmark, rows) if benchmark.gives_references else None
    if benchmark.split is None:
        rows = dict(list(rows.items())[: context.limit])
    stage = ImportStage(context.workspace.root, f"import-{benchmark.name}")
    results = dict(zip(rows, context.map(stage, list(rows.values())), strict=True))
    for case_id, result in results.items():
        if result["error"]:
            say(f"{name}: left out {case_id}: {result['error']}")
    lq = {case_id: (row, results[case_id]) for case_id, row in rows.items()}
    if given is None:
        return import_records(benchmark.name, lq)
    wanted = reference_rows(benchmark.name, given, rows)
    stage = ImportStage(context.workspace.root, f"import-{benchmark.name}-references")
    found = dict(zip(wanted, context.map(stage, list(wanted.values())), strict=True))
    records = import_records(benchmark.name, lq, given, found, benchmark.reference_source)
    for line in _told(given, [row for row in records if row["role"] == "reference"], len(rows), benchmark):
        say(f"{name}: {line}")
    return records


def _given(benchmark: Benchmark, names: Collection[str]) -> GivenReferences:
    return given_references(
        benchmark.name,
        names,
        str(benchmark.lq_folder),
        folder=benchmark.reference_folder,
        listing=benchmark.reference_list,
        layout=benchmark.reference_layout,
    )


def _told(given: GivenReferences, records: list[dict[str, Any]], cases: int, benchmark: Benchmark) -> Iterator[str]:
    """Yield what a user must know about references from outside."""
    usable = [row for row in records if row["path"]]
    with_some = len({row["case_id"] for row in usable})
    yield f"layout of the references: {given.layout}"
    yield (
        f"{len(usable)} references of {with_some} pictures, {cases - with_some} pictures have none; "
        f"source: {benchmark.reference_source}"
    )
    yield from given.remarks
    itself = [row for row in records if row["error"] == ITSELF]
    if itself:
        yield f"{len(itself)} references not used, being {ITSELF}, first {itself[0]['file']}"
    broken = [row for row in records if row["error"] not in (None, ITSELF)]
    if broken:
        yield f"{len(broken)} references not used, first {broken[0]['file']}: {broken[0]['error']}"


if __name__ == "__main__":
    sys.exit(launch("degrade"))
