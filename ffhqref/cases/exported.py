"""A benchmark out of what `ffhqref export` wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.cases.cases import typed_cases
from ffhqref.cases.lq import ImportRecord, ImportRow, ImportStage, import_records, usable_paths
from ffhqref.cases.packed import METADATA, ORIGIN, ORIGIN_OPTIONS, layout_of, read_cases, write_cases
from ffhqref.cases.reference_folder import GivenReferences
from ffhqref.core.errors import DatasetError
from ffhqref.core.files import new_folder, read_regular
from ffhqref.core.hashing import content_key
from ffhqref.core.parsing import parsing, read_json
from ffhqref.datasets.stage import size_and_time
from ffhqref.store.schemas import SPECS
from ffhqref.store.workspace import OWN, inside

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.reference_sets.plan import Run


@dataclass(frozen=True, eq=False)
class ExportedCases:
    """What came of an export."""

    records: list[ImportRecord]
    """Rows of the table ``imports``."""
    cases: pd.DataFrame
    degradations: pd.DataFrame
    """Rows of that table, where the export tells what was drawn."""
    origin: dict[str, Any] | None
    """What the images are of (`ORIGIN`); None where the export does not tell."""


def import_export(
    name: str, folder: Path, root: Path, run: Run, say: Callable[[str], None], limit: int | None = None
) -> ExportedCases:
    """Bring the cases of an export into the workspace, with people, ages, references by rank and parameters.

    Args:
        name: of the benchmark.
        folder: of one benchmark in the export.
        root: of the workspace.
        run: runs a stage.
        say: told one line at a time.
        limit: at most this many cases.

    Raises:
        DatasetError: it is no export, or damaged.
    """
    place, listed = _unpacked(name, folder.expanduser().absolute(), root)
    listed = listed[:limit]

    def rows(role: str, files: dict[str, str]) -> dict[str, ImportRow]:
        return {
            key: ImportRow(
                str(inside(place, file)), **size_and_time(place / file), file=file, out_path=f"{role}/{name}/{key}.png"
            )
            for key, file in files.items()
        }

    def brought(stage: str, wanted: dict[str, ImportRow]) -> dict[str, Any]:
        results = run(ImportStage(root, stage), list(wanted.values()))
        return dict(zip(wanted, zip(wanted.values(), results, strict=True), strict=True))

    lq = brought(f"import-{name}", rows("lq", {row["case_id"]: row["lq_file_name"] for row in listed}))
    truths = {row["case_id"]: row["gt_file_name"] for row in listed if row.get("gt_file_name")}
    gt = brought(f"import-{name}-gt", rows("gt", truths))
    paths = {row["case_id"]: tuple(row["references_file_names"]) for row in listed}
    references = rows("references", {path: path for mine in paths.values() for path in mine})
    found = {path: result for path, (_, result) in brought(f"import-{name}-references", references).items()}
    records = import_records(name, lq, GivenReferences("as exported", place, paths), found, "unknown")
    for case, (row, result) in gt.items():
        records.append(ImportRecord(name, case, "gt", 0, row.file, result.path, result.sha256, None, result.error))
    bad = [record for record in records if record.error]
    if bad:
        say(f"benchmark '{name}': {len(bad)} images not used, first {bad[0].file}: {bad[0].error}")
    origin = _origin(folder.expanduser())
    if origin is None:
        say(f"benchmark '{name}': no {ORIGIN} in {folder}, so whose people these are is not known: no leak marks")
    return ExportedCases(records, _cases(name, listed, records), _degradations(listed, records), origin)


def _origin(folder: Path) -> dict[str, Any] | None:
    file = folder / ORIGIN
    if not file.is_file():
        return None
    told = read_json(file, DatasetError, "export it again")
    with parsing(file, DatasetError, "export it again"):
        options = {str(key): value for key, value in told["options"].items() if key in ORIGIN_OPTIONS}
        if not all(value is None or isinstance(value, (str, int)) for value in options.values()):
            raise ValueError("options that are no texts or numbers")
        return {"dataset": str(told["dataset"]), "released": bool(told["released"]), "options": options}


def _unpacked(name: str, folder: Path, root: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Return the folder of the images, and the rows of its metadata; other layouts are unpacked into the workspace."""
    if layout_of(folder) != "imagefolder":
        files = sorted(path for path in folder.iterdir() if path.is_file())
        key = content_key([[path.name, *size_and_time(path).values()] for path in files])
        target = root / "unpacked" / f"{name}-{key[:16]}"
        if not target.is_dir():
            with new_folder(target) as made:
                write_cases(made, "imagefolder", "test", read_cases(folder), 0)
        folder = target
    listed, *more = sorted(folder.glob(f"*/{METADATA}"))
    if more:
        raise DatasetError(f"{folder}: cases in {listed.parent.name} and in {more[0].parent.name}; expected one split")
    with parsing(listed, DatasetError, "export it again"):
        # one end of line alone: an id may hold others
        rows = [json.loads(line) for line in read_regular(listed).decode().split("\n") if line]
        for row in rows:
            _check_row(row)
    return listed.parent, rows


def _check_row(row: dict[str, Any]) -> None:
    """Refuse a row of other kinds, and an id that would be a file elsewhere.

    Raises:
        ValueError: it is no row of an export.
    """
    name = Path(row["case_id"])
    texts = [row["case_id"], row["target_id"], row["lq_file_name"], *row["references_file_names"]]
    texts += [text for text in (row.get("gt_file_name"), row["parameters"]) if text is not None]
    numbers = [row[key] for key in ("identity_id", "age", "age_gap") if row[key] is not None]
    if not all(isinstance(text, str) for text in texts) or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"case {row['case_id']!r} has values of other kinds")
    if row["parameters"] is not None and not isinstance(json.loads(row["parameters"]), dict):
        raise ValueError(f"case '{row['case_id']}' has parameters that are none")
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"case '{row['case_id']}' leaves its folder")


def _cases(name: str, listed: Sequence[dict[str, Any]], records: Sequence[ImportRecord]) -> pd.DataFrame:
    import pandas as pd

    lq, gt, references = (usable_paths(records, role) for role in ("lq", "gt", "reference"))
    rows = [
        {
            **{key: row[key] for key in ("case_id", "target_id", "identity_id", "age", "age_gap")},
            "benchmark": name,
            "lq_path": lq[row["case_id"]][0],
            "gt_path": OWN + gt[row["case_id"]][0] if row["case_id"] in gt else None,
            "reference_paths": [OWN + path for path in references.get(row["case_id"], ())],
        }
        for row in listed
        if row["case_id"] in lq and (row["case_id"] in gt) == bool(row.get("gt_file_name"))
    ]
    return typed_cases(pd.DataFrame(rows, columns=list(SPECS["cases"].columns)))


def _degradations(listed: Sequence[dict[str, Any]], records: Sequence[ImportRecord]) -> pd.DataFrame:
    import pandas as pd

    made = {record.case_id: record for record in records if record.role == "lq" and record.path}
    rows = [
        {
            **json.loads(row["parameters"]),
            "target_id": row["target_id"],
            "lq_path": made[row["case_id"]].path,
            "lq_sha256": made[row["case_id"]].sha256,
            "error": None,
        }
        for row in listed
        if row["parameters"] and row["case_id"] in made
    ]
    return pd.DataFrame(rows, columns=list(SPECS["degradations"].columns))
