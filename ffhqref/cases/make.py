"""From a reference set to the low-quality images and the cases of benchmarks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.cases.cases import draw_people, draw_references, make_blind_cases, make_cases, pick_targets
from ffhqref.cases.compare import CompareRow, CompareStage
from ffhqref.cases.definitions import Definition, check_definition, define, image_hashes, possible_id, public_id
from ffhqref.cases.exported import ExportedCases, import_export
from ffhqref.cases.folders import folder_cases, import_folders
from ffhqref.cases.lq import (
    ITSELF,
    ImportRecord,
    ImportResult,
    ImportStage,
    count_remark,
    given_references,
    import_records,
    import_rows,
    reference_rows,
    usable_paths,
)
from ffhqref.core.errors import ConfigError, DatasetError, TableError
from ffhqref.core.hashing import sha256_file
from ffhqref.datasets.stage import describe_small
from ffhqref.degradation.model import check_names
from ffhqref.degradation.stage import DegradeRow, DegradeStage
from ffhqref.reference_sets.agesets import CROSS, LABEL, SAME, age_references, summarise_age_sets
from ffhqref.reference_sets.options import FARTHEST
from ffhqref.reference_sets.references import Exclusions
from ffhqref.reference_sets.review import read_exclusions
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store.schemas import SPECS
from ffhqref.store.tables import read_metadata
from ffhqref.store.workspace import OWN

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

    from ffhqref.cases.benchmark import Benchmark
    from ffhqref.cases.reference_folder import GivenReferences
    from ffhqref.reference_sets.options import AgeSetConfig
    from ffhqref.reference_sets.plan import Run
    from ffhqref.store.workspace import Workspace

_SHOWN = 5
"""Failures that are told one by one."""


@dataclass(frozen=True, eq=False)
class CaseTables:
    """What `make_case_tables` makes; the frames have the columns of the tables of their names."""

    degradations: pd.DataFrame
    imports: pd.DataFrame
    cases: Mapping[str, pd.DataFrame]
    """By benchmark."""
    origins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By benchmark that came from an export: `ffhqref.cases.exported.ExportedCases.origin`."""

    @property
    def failed(self) -> bool:
        """Whether some image could not be made or imported."""
        return bool(self.degradations["error"].notna().any() or self.imports["error"].notna().any())

    def check(self) -> None:
        """Refuse a benchmark without any case.

        Raises:
            DatasetError: with the first reason.
        """
        for name, frame in self.cases.items():
            if frame.empty:
                reasons = [*self.degradations["error"].dropna(), *self.imports["error"].dropna()]
                raise DatasetError(f"benchmark '{name}': no low-quality image could be made: {reasons[0]}")


@dataclass(frozen=True)
class CaseMaker:
    """Makes the cases of benchmarks over the reference set of a workspace.

    Args:
        workspace: with the tables of a reference set.
        run: runs a stage.
        say: told one line at a time.
        seed: of every draw.
        age_sets: what same-age and cross-age mean.
        limit: at most this many targets of each benchmark.
        exclusions: the verdicts that the reference set was built with.
        retry_failed: degrade images again that failed in an earlier run.
        writes: False: no image is written, and none is compared; hashes are those that the images would have.
    """

    workspace: Workspace
    run: Run
    say: Callable[[str], None]
    seed: int
    age_sets: AgeSetConfig
    limit: int | None = None
    exclusions: Path | None = None
    retry_failed: bool = False
    writes: bool = True

    def make(self, benchmarks: Sequence[Benchmark]) -> CaseTables:
        """Return the tables of some benchmarks.

        Raises:
            DatasetError: a benchmark without any target or case, or a folder that does not fit.
            ConfigError: other exclusions than the reference set was built with.
        """
        import pandas as pd

        images, identities, references = (self.workspace.read(name) for name in ("images", "identities", "references"))
        known = self.workspace.read("ages").dropna()
        ages: dict[str, float] = dict(zip(known["image_id"], known["age"], strict=True))
        listed = {
            benchmark.name: self._references(benchmark, references, identities, ages)
            for benchmark in benchmarks
            if benchmark.split
        }
        targets = {
            benchmark.name: self._targets(benchmark, listed[benchmark.name], identities)
            for benchmark in benchmarks
            if benchmark.split
        }
        made = self._degraded(benchmarks, targets, images)
        brought = {
            b.name: import_folders(b, self.workspace.root, self.run, self.say, self.limit)
            if b.gt_folder
            else self._imported(b, targets.get(b.name))
            for b in benchmarks
            if b.gt_folder or b.lq_folder
        }
        packed = {b.name: self._exported(b) for b in benchmarks if b.exported}
        brought |= {name: found.records for name, found in packed.items()}
        cases: dict[str, pd.DataFrame] = {}
        for benchmark in benchmarks:
            name = benchmark.name
            if benchmark.exported:
                cases[name] = packed[name].cases
                continue
            if benchmark.gt_folder:
                cases[name] = folder_cases(benchmark, brought[name], self.workspace.root)
                self._compare(name, cases[name], images, brought[name])
                continue
            if benchmark.lq_folder:
                lq = {case_id: path for case_id, (path,) in usable_paths(brought[name], "lq").items()}
            else:
                good = made[made["error"].isna() & (made["level"] == benchmark.level)]
                lq = dict(zip(good["target_id"], good["lq_path"], strict=True))
            if benchmark.split is None:
                given = usable_paths(brought[name], "reference")
                cases[name] = make_blind_cases(name, lq, given, benchmark.references)
            else:
                cases[name] = make_cases(
                    name,
                    [target for target in targets[name] if target in lq],
                    images=images,
                    identities=identities,
                    references=listed[name],
                    ages=ages,
                    lq_paths=lq,
                    max_references=None if benchmark.reference_counts else benchmark.references,
                )
            if benchmark.lq_folder:
                self._compare(name, cases[name], images, brought[name])
            lost = len(targets[name]) - len(cases[name]) if benchmark.split else 0
            if lost:
                self.say(f"benchmark '{name}': {lost} of {len(targets[name])} targets have no case, see above")
        rows = [row for records in brought.values() for row in records]
        if packed:
            parts = [made, *(found.degradations for found in packed.values())]
            made = pd.concat([part for part in parts if len(part)] or parts[:1])
            made = made.drop_duplicates(["target_id", "level"], ignore_index=True)
        origins = {name: found.origin for name, found in packed.items() if found.origin}
        return CaseTables(made, pd.DataFrame(rows, columns=list(SPECS["imports"].columns)), cases, origins)

    def _exported(self, benchmark: Benchmark) -> ExportedCases:
        folder = Path(str(benchmark.exported))
        return import_export(benchmark.name, folder, self.workspace.root, self.run, self.say, self.limit)

    def _compare(self, name: str, cases: pd.DataFrame, images: pd.DataFrame, records: Sequence[ImportRecord]) -> None:
        """Tell of low-quality images that are their own ground truth, and of references that show the very image."""
        if not self.writes:
            return
        sha256 = {row.path: row.sha256 or "" for row in records if row.path}
        known = dict(zip(images["path"], images["sha256"], strict=True))
        rows = []
        columns = (cases[column].tolist() for column in ("case_id", "lq_path", "gt_path", "reference_paths"))
        for case_id, lq, gt, references in zip(*columns, strict=True):
            if isinstance(gt, str):
                pairs = [(self.workspace.image(gt), known.get(gt) or sha256[gt.removeprefix(OWN)])]
            else:
                own = [path.removeprefix(OWN) for path in references]
                pairs = [(self.workspace.file(path), sha256[path]) for path in own]
            first = str(self.workspace.file(lq))
            if lq in sha256:  # there may be none
                rows += [CompareRow(case_id, first, sha256[lq], str(path), digest) for path, digest in pairs]
        found = list(zip(rows, self.run(CompareStage(), rows), strict=True))
        blind = cases["gt_path"].isna().all()
        bad = [row for row, result in found if (result.alike if blind else result.equal)]
        if bad:
            what = "references show the low-quality image itself" if blind else "low-quality images are their target"
            self.say(f"benchmark '{name}': {len(bad)} {what}, pixel by pixel or nearly so, first {bad[0].case_id}")

    def _references(
        self, benchmark: Benchmark, references: pd.DataFrame, identities: pd.DataFrame, ages: Mapping[str, float]
    ) -> pd.DataFrame:
        listed = self._by_age(benchmark, references, identities, ages) if benchmark.ages else references
        if benchmark.reference_counts is not None:
            listed = draw_references(listed, benchmark.reference_counts, self.seed)
        return listed

    def _targets(self, benchmark: Benchmark, references: pd.DataFrame, identities: pd.DataFrame) -> list[str]:
        assert benchmark.split is not None
        if benchmark.people is None:
            found = pick_targets(references, identities, benchmark.split, self.limit)
        else:
            people = benchmark.people if self.limit is None else min(benchmark.people, self.limit)
            found = draw_people(references, identities, benchmark.split, people, self.seed)
        if not found:
            raise DatasetError(
                f"benchmark '{benchmark.name}': its split has no target; lower dataset.min_references or see build"
            )
        return found

    def _by_age(
        self, benchmark: Benchmark, references: pd.DataFrame, identities: pd.DataFrame, ages: Mapping[str, float]
    ) -> pd.DataFrame:
        """Return the references of a benchmark by age, in the form of the table ``references``."""
        facts = read_metadata(self.workspace.root, "references")
        built = facts["config"]
        if built.get("exclusions") != (sha256_file(self.exclusions) if self.exclusions else None):
            raise ConfigError(
                f"benchmark '{benchmark.name}': the reference set was built with other exclusions; give the same "
                "exclusions=FILE as to build, or build again"
            )
        assert benchmark.split is not None
        exclusions = read_exclusions(self.exclusions, set(identities["image_id"])) if self.exclusions else Exclusions()
        side = SAME if benchmark.ages == "same" else CROSS
        made = age_references(
            Embeddings.of_table(self.workspace.read("embeddings")),
            references=references,
            identities=identities,
            pairs=None if built.get("release") else self.workspace.read("pairs"),
            ages=ages,
            split=benchmark.split,
            max_distance=FARTHEST if built.get("identity") == "truth" else built["max_distance"],
            min_distance=built["min_distance"],
            exclusions=exclusions.with_pairs(facts.get("copies", [])),
            config=self.age_sets,
            needed=side,
        )[side]
        for row in summarise_age_sets(made.assign(benchmark=benchmark.name)).itertuples(index=False):
            self.say(
                f"{row.benchmark}: {row.targets} targets with {row.references_per_target:.1f} references each, "
                f"{row.gap_min:.0f} to {row.gap_max:.0f} years away (median {row.gap_median:.0f}), {LABEL}"
            )
        return made

    def _degraded(
        self, benchmarks: Sequence[Benchmark], targets: Mapping[str, Sequence[str]], images: pd.DataFrame
    ) -> pd.DataFrame:
        """Make the low-quality images that do not come from a folder."""
        import pandas as pd

        levels = {benchmark.name: rules for benchmark in benchmarks if (rules := benchmark.makes) is not None}
        path: dict[str, str] = dict(zip(images["image_id"], images["path"], strict=True))
        sha256: dict[str, str] = dict(zip(images["image_id"], images["sha256"], strict=True))
        rows = {
            (level, target): DegradeRow(
                target,
                path=str(self.workspace.image(path[target])),
                sha256=sha256[target],
                level=level,
                seed=self.seed,
                out_path=f"lq/{level}/{target}.png",
            )
            for name, level in ((name, rules.name) for name, rules in levels.items())
            for target in targets[name]
        }
        stage = DegradeStage(
            self.workspace.root, {rules.name: rules for rules in levels.values()}, retry_failed=self.retry_failed
        )
        results = self.run(stage, list(rows.values()))
        made = pd.DataFrame(results, columns=list(SPECS["degradations"].columns))
        failed = [result for result in results if result.error is not None]
        for result in failed[:_SHOWN]:
            self.say(f"not degraded: {result.target_id} ({result.level}): {result.error}")
        if len(failed) > _SHOWN:
            self.say(f"not degraded: {len(failed) - _SHOWN} more, see the column error of degradations.parquet")
        return made

    def _tell_small(self, benchmark: Benchmark, results: Mapping[str, ImportResult], what: str) -> None:
        widths = {file: result.width for file, result in results.items() if result.width is not None}
        for line in describe_small(widths, what):
            self.say(f"benchmark '{benchmark.name}': {line}")

    def _imported(self, benchmark: Benchmark, targets: Sequence[str] | None) -> list[ImportRecord]:
        """Bring the images of a benchmark's folders into the workspace; return their rows of table ``imports``."""
        assert benchmark.lq_folder is not None
        name, root = f"benchmark '{benchmark.name}'", self.workspace.root
        names: Mapping[str, str] = {}
        if benchmark.split is not None:
            names = read_metadata(root, "references").get("lq_names", {})
        folder = import_rows(benchmark.name, benchmark.lq_folder, targets, names)
        rows = folder.rows
        for line in folder.remarks:
            self.say(line)
        if benchmark.split is None or self.limit is None:
            remark = count_remark(benchmark.name, len(rows), benchmark.counts)
            if remark:
                self.say(remark)
        given = references_given(benchmark, rows) if benchmark.gives_references else None
        if benchmark.split is None:
            rows = dict(list(rows.items())[: self.limit])
        results = self.run(ImportStage(root, f"import-{benchmark.name}"), list(rows.values()))
        lq = dict(zip(rows, zip(rows.values(), results, strict=True), strict=True))
        for case_id, (_, result) in lq.items():
            if result.error:
                self.say(f"{name}: left out {case_id}: {result.error}")
        self._tell_small(benchmark, {row.file: result for row, result in lq.values()}, "low-quality images")
        if given is None:
            return import_records(benchmark.name, lq)
        wanted = reference_rows(benchmark.name, given, rows)
        stage = ImportStage(root, f"import-{benchmark.name}-references")
        found = dict(zip(wanted, self.run(stage, list(wanted.values())), strict=True))
        self._tell_small(benchmark, found, "references")
        records = import_records(benchmark.name, lq, given, found, benchmark.reference_source)
        for line in _told(given, [row for row in records if row.role == "reference"], len(rows), benchmark):
            self.say(f"{name}: {line}")
        return records


def ids_at_stake(workspace: Workspace, benchmarks: Sequence[Benchmark], origin: Mapping[str, Any]) -> bool:
    """Return whether an id that stands for something could stand for something else now.

    Args:
        workspace: of the cases.
        benchmarks: to be made.
        origin: config, seed and limit of the run.
    """
    recorded = read_metadata(workspace.root, "cases") if workspace.has("cases") else {}
    known = recorded.get("definitions", {})
    ids = {benchmark.name: possible_id(benchmark) for benchmark in benchmarks}
    if not any(ids[b.name] is not None and (ids[b.name] in known or b.definition is not None) for b in benchmarks):
        return False
    if any(b.lq_folder or b.gt_folder or b.exported for b in benchmarks):  # whose images may be others
        return True
    with contextlib.suppress(TableError):
        workspace.check_current("cases")
        return any(recorded.get(key) != value for key, value in origin.items())
    return True


def named_benchmarks(
    workspace: Workspace, benchmarks: Sequence[Benchmark], made: CaseTables, *, whole: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the ids of benchmarks, and what these and those of earlier runs stand for: metadata of ``cases``.

    Args:
        workspace: theirs.
        benchmarks: that were made.
        made: their tables, not written yet.
        whole: no limit was set.
        say: told one line at a time.

    Raises:
        ConfigError: an id stood for something else.
    """
    recorded = read_metadata(workspace.root, "cases") if workspace.has("cases") else {}
    known: dict[str, Definition] = dict(recorded.get("definitions", {}))
    dataset = read_metadata(workspace.root, "images")["dataset"]["name"]
    released = bool(read_metadata(workspace.root, "identities").get("config", {}).get("release"))
    sha256: dict[str, str] = {}
    ids: dict[str, str] = {}
    for benchmark in benchmarks:
        cases = made.cases[benchmark.name]
        complete = whole and not made.failed
        name = public_id(benchmark, dataset, released=released, cases=len(cases), whole=complete)
        if name is None or cases.empty:
            continue
        sha256 = sha256 or image_hashes(workspace.read("images"), made.degradations, made.imports)
        definition = define(benchmark, cases, sha256)
        check_definition(name, definition, known, benchmark.definition)
        known[name] = definition
        ids[benchmark.name] = name
        say(f"benchmark '{benchmark.name}': {name}, definition {definition['definition'][:12]}")
    return {"definitions": known, "ids": ids} if known else {}


def check_benchmarks(chosen: Mapping[str, Mapping[str, Any]]) -> list[Benchmark]:
    """Return benchmarks from their options; a wrong name, value or folder ends here.

    Args:
        chosen: options by name.

    Raises:
        ConfigError: none is chosen, or an option is wrong.
        DatasetError: a folder of references does not fit.
    """
    from ffhqref.cases.benchmark import Benchmark

    benchmarks = [Benchmark.of(name, options) for name, options in chosen.items()]
    if not benchmarks:
        raise ConfigError("no benchmark chosen: benchmark=[moderate,severe]")
    check_names({benchmark.name: made for benchmark in benchmarks if (made := benchmark.makes) is not None})
    for benchmark in benchmarks:
        if benchmark.gives_references and not benchmark.gt_folder:
            references_given(benchmark, import_rows(benchmark.name, str(benchmark.lq_folder), None).rows)
    return benchmarks


def references_given(benchmark: Benchmark, names: Collection[str]) -> GivenReferences:
    """Match the references of a benchmark's folder or list to its low-quality images; see `given_references`."""
    return given_references(
        benchmark.name,
        names,
        str(benchmark.lq_folder),
        folder=benchmark.reference_folder,
        listing=benchmark.reference_list,
        layout=benchmark.reference_layout,
    )


def _told(given: GivenReferences, records: Sequence[ImportRecord], cases: int, benchmark: Benchmark) -> Iterator[str]:
    """Yield what a user must know about references from outside."""
    usable = [row for row in records if row.path]
    with_some = len({row.case_id for row in usable})
    yield f"layout of the references: {given.layout}"
    yield (
        f"{len(usable)} references of {with_some} images, {cases - with_some} images have none; "
        f"source: {benchmark.reference_source}"
    )
    yield from given.remarks
    itself = [row for row in records if row.error == ITSELF]
    if itself:
        yield f"{len(itself)} references not used, being {ITSELF}, first {itself[0].file}"
    broken = [row for row in records if row.error not in (None, ITSELF)]
    if broken:
        yield f"{len(broken)} references not used, first {broken[0].file}: {broken[0].error}"
