"""A benchmark of folders of one's own: ground truth, and perhaps low-quality images and references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.cases.cases import make_blind_cases
from ffhqref.cases.lq import (
    ImportRecord,
    ImportResult,
    ImportRow,
    ImportStage,
    given_references,
    import_records,
    import_rows,
    reference_rows,
    usable_paths,
)
from ffhqref.cases.reference_folder import GivenReferences, by_number
from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.images import SIZE, save_png
from ffhqref.datasets.base import list_images
from ffhqref.datasets.stage import describe_small
from ffhqref.store.schemas import SPECS
from ffhqref.store.tables import read_metadata
from ffhqref.store.workspace import OWN

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.cases.benchmark import Benchmark
    from ffhqref.reference_sets.plan import Run
    from ffhqref.store.workspace import Workspace

TRUTH_ITSELF = "the ground truth itself"
"""Why a reference with the same pixels is not used."""

NO_LQ = "lq/{benchmark}.none.png"
"""A grey image that stands for low-quality images that are not there."""


Imported = dict[str, tuple[ImportRow, ImportResult]]
"""Case id (of references: path) to what was to import and what came of it."""


def import_folders(
    benchmark: Benchmark, root: Path, run: Run, say: Callable[[str], None], limit: int | None = None
) -> list[ImportRecord]:
    """Bring the images of a benchmark's folders into the workspace; return their rows of table ``imports``.

    Args:
        benchmark: with a ``gt_folder``.
        root: of the workspace.
        run: runs a stage.
        say: told one line at a time.
        limit: at most this many cases.

    Raises:
        DatasetError: a ground truth without low-quality image, or folders that do not fit.
    """
    name, what = benchmark.name, f"benchmark '{benchmark.name}'"
    folder = str(benchmark.gt_folder)
    nested = _is_nested(Path(folder).expanduser(), what)
    naming = _path_name if nested else _stem
    truths = import_rows(name, folder, None, role="gt", name=naming)
    for line in truths.remarks:
        say(line)
    if not nested and benchmark.reference_folder is None:
        say(f"{what}: each image counts as another person; where people have several, expected PERSON/IMAGE")
    ids = sorted(truths.rows, key=by_number)[:limit]
    gt = _run(run, root, f"import-{name}-gt", {case: truths.rows[case] for case in ids})
    lq: Imported = {}
    if benchmark.lq_folder is not None:
        brought = import_rows(name, benchmark.lq_folder, ids, name=naming)
        lq = _run(run, root, f"import-{name}", brought.rows)
    given, found = None, dict[str, ImportResult]()
    if benchmark.reference_folder is not None:
        given = _references(benchmark, ids, nested)
        rows = reference_rows(name, given, ids)
        found = {path: result for path, (_, result) in _run(run, root, f"import-{name}-references", rows).items()}
        for line in (f"layout of the references: {given.layout}", *given.remarks):
            say(f"{what}: {line}")
    for line in (*_told(gt, "ground truths"), *_told(lq, "low-quality images")):
        say(f"{what}: {line}")
    records = import_records(name, lq or gt, given, found, benchmark.reference_source)
    if not lq:
        records = [record for record in records if record.role != "lq"]
    digests = {case: result.sha256 for case, (_, result) in gt.items()}
    records = [_not_the_truth(record, digests[record.case_id]) for record in records]
    if given is not None:
        shown = [record for record in records if record.role == "reference" and record.path]
        some = len({record.case_id for record in shown})
        say(f"{what}: {len(shown)} references of {some} images, {len(ids) - some} images have none")
    bad = [record for record in records if record.role == "reference" and record.error]
    if bad:
        say(f"{what}: {len(bad)} references not used, first {bad[0].file}: {bad[0].error}")
    return records + [
        ImportRecord(name, case, "gt", 0, row.file, result.path, result.sha256, None, result.error)
        for case, (row, result) in gt.items()
    ]


def _told(images: Imported, what: str) -> Iterator[str]:
    """Yield what a user must know about imported images."""
    for case, (_, result) in images.items():
        if result.error:
            yield f"left out {case}: {result.error}"
    first: dict[str, str] = {}
    twice = [
        (case, first[result.sha256])
        for case, (_, result) in images.items()
        if result.sha256 is not None and first.setdefault(result.sha256, case) != case
    ]
    if twice:
        yield f"{len(twice)} of {len(images)} {what} are another one again, first {twice[0][0]} (as {twice[0][1]})"
    yield from describe_small({row.file: r.width for row, r in images.values() if r.width is not None}, what)


def folder_cases(benchmark: Benchmark, records: Sequence[ImportRecord], root: Path) -> pd.DataFrame:
    """Return the ``cases`` of imported folders.

    Args:
        benchmark: theirs.
        records: from `import_folders`.
        root: of the workspace.
    """
    truths, lq = ({case: path for case, (path,) in usable_paths(records, role).items()} for role in ("gt", "lq"))
    if benchmark.lq_folder is None:
        grey = NO_LQ.format(benchmark=benchmark.name)
        save_png(root / grey, np.full((SIZE, SIZE, 3), 128, np.uint8))
        lq = dict.fromkeys(truths, grey)
    good = sorted(truths.keys() & lq.keys())
    nested = any("/" in case for case in good)
    return make_blind_cases(
        benchmark.name,
        {case: lq[case] for case in good},
        usable_paths(records, "reference"),
        benchmark.references,
        {case: truths[case] for case in good},
        {case: case.partition("/")[0] for case in good} if nested else None,
    )


def empty_reference_set(workspace: Workspace, folders: Mapping[str, Any]) -> None:
    """Write the tables of a workspace that has no reference set, only cases of folders of one's own.

    Args:
        workspace: a new one, or one made so.
        folders: options of the benchmark.

    Raises:
        ConfigError: the workspace holds a reference set, or cases of other folders.
    """
    import pandas as pd

    if workspace.has("images") and read_metadata(workspace.root, "images").get("dataset_root") != OWN:
        raise ConfigError(f"root={workspace.root} holds a reference set; choose another root=FOLDER, or leave gt= out")
    if workspace.has("cases"):
        before = next(iter(read_metadata(workspace.root, "cases")["config"].values()))
        if before != dict(folders):
            raise ConfigError(f"root={workspace.root} holds cases of other folders; choose another root=FOLDER")
    facts: dict[str, Any] = {"dataset": {"name": "folder", "licence": "", "attribution": ""}, "dataset_root": OWN}
    for name in ("images", "embeddings", "ages", "identities", "references"):
        frame = pd.DataFrame(columns=list(SPECS[name].columns))
        workspace.write(name, frame, **(facts if name == "images" else {}))


def _is_nested(folder: Path, what: str) -> bool:
    """Return whether images lie in folders of people.

    Raises:
        DatasetError: these lie in folders themselves: which of them are the people's is not known.
    """
    files = list_images(folder, what, "give a folder of images", Path.as_posix).files
    deep = next((file for file in files if file.count("/") > 1), None)
    if deep is not None:
        raise DatasetError(
            f"{what}: {deep} in {folder} lies two folders deep; expected PERSON/IMAGE: give the folder that holds the "
            f"people's, such as {folder / deep.partition('/')[0]}"
        )
    return any("/" in file for file in files)


def _stem(relative: Path) -> str:
    return relative.stem


def _path_name(relative: Path) -> str:
    """Return the path without its ending: person/image."""
    return relative.with_suffix("").as_posix()


def _run(run: Run, root: Path, stage: str, rows: Mapping[str, ImportRow]) -> dict[str, tuple[ImportRow, ImportResult]]:
    results = run(ImportStage(root, stage), list(rows.values()))
    return dict(zip(rows, zip(rows.values(), results, strict=True), strict=True))


def _references(benchmark: Benchmark, ids: Sequence[str], nested: bool) -> GivenReferences:
    beside = str(benchmark.lq_folder or benchmark.gt_folder)
    if not nested:
        layout = benchmark.reference_layout
        return given_references(
            benchmark.name, ids, beside, folder=benchmark.reference_folder, listing=None, layout=layout
        )
    what, root = f"benchmark '{benchmark.name}'", Path(str(benchmark.reference_folder)).expanduser().resolve()
    files = sorted(list_images(root, what, "give the folder of the references", Path.as_posix).files, key=by_number)
    people = {case: case.partition("/")[0] for case in ids}
    of = {person: tuple(file for file in files if file.startswith(f"{person}/")) for person in set(people.values())}
    if not any(of.values()):
        raise DatasetError(f"{what}: no folder of a person in {root}; there '{files[0]}', the cases have '{ids[0]}'")
    strangers = [file for file in files if file.partition("/")[0] not in of]
    told = f"{len(strangers)} of {len(files)} reference images are of nobody here, first {''.join(strangers[:1])}"
    paths = {case: of[person] for case, person in people.items()}
    return GivenReferences("a folder for each person", root, paths, (told,) if strangers else ())


def _not_the_truth(record: ImportRecord, sha256: str | None) -> ImportRecord:
    if record.role != "reference" or record.path is None or record.sha256 != sha256:
        return record
    return replace(record, path=None, error=TRUTH_ITSELF)
