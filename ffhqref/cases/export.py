"""Export the cases of a workspace as a data set that the hub's loader reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref import __version__
from ffhqref.cases.packed import METADATA, ORIGIN, ORIGIN_OPTIONS, Layout, PackedCase, Picture, write_cases
from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.core.files import new_folder, write_atomic
from ffhqref.core.hashing import sha256_bytes, sha256_file
from ffhqref.core.images import read_bytes
from ffhqref.reference_sets.croissant import CONTEXT
from ffhqref.store.tables import read_metadata

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.store.workspace import Workspace

_PATTERNS: dict[Layout, str] = {
    "webdataset": "{name}/{split}-*.tar",
    "parquet": "{name}/{split}-*.parquet",
    "imagefolder": "{name}/{split}/**",
}
_MIME = {".tar": "application/x-tar", ".parquet": "application/x-parquet", ".jsonl": "application/jsonlines"}
_TYPES = {
    "case_id": "sc:Text", "target_id": "sc:Text", "identity_id": "sc:Integer", "age": "sc:Float", "age_gap": "sc:Float",
    "parameters": "sc:Text",
}  # fmt: skip


def export_cases(workspace: Workspace, cases: pd.DataFrame, to: Path, layout: Layout) -> dict[str, int]:
    """Write LQ images, ground truths, references and parameters of some cases, byte by byte as they are.

    Beside a folder for each benchmark, the export holds ``README.md``, which tells the hub's loader what is where, and
    ``croissant.json``.

    Args:
        workspace: theirs.
        cases: rows of its table.
        to: a new folder.
        layout: of the images.

    Returns:
        The number of cases of each benchmark.

    Raises:
        ConfigError: the folder is there, or there is no case.
        ImageError: an image cannot be read.
    """
    to = to.expanduser()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"to={to}: is there already; choose a new folder")
    if cases.empty:
        raise ConfigError(f"no case to export in {workspace.root}; run ffhqref degrade first")
    config = read_metadata(workspace.root, "cases")["config"]
    splits: dict[str, str] = {}
    with new_folder(to.absolute()) as made:
        for name, mine in cases.groupby("benchmark", sort=True):
            splits[str(name)] = split = str((config.get(name) or {}).get("split") or "test")
            most = int(mine["reference_paths"].map(len).max())
            write_cases(made / str(name), layout, split, packed_cases(workspace, mine), most)
            told = json.dumps(_origin(workspace, str(name), config.get(name) or {}), indent=1, ensure_ascii=False)
            write_atomic(made / str(name) / ORIGIN, f"{told}\n".encode())
        dataset = read_metadata(workspace.root, "images")["dataset"]
        described = _croissant(made, dataset, splits, layout)
        write_atomic(made / "README.md", _card(dataset, splits, layout).encode())
        write_atomic(made / "croissant.json", f"{json.dumps(described, indent=1, ensure_ascii=False)}\n".encode())
    return {name: int((cases["benchmark"] == name).sum()) for name in splits}


def _origin(workspace: Workspace, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the images of a benchmark are of, as `ORIGIN` tells it."""
    before = read_metadata(workspace.root, "cases").get("origins", {}).get(name)
    if before is not None:  # it was an export itself
        return dict(before)
    level = options.get("degradation")
    if isinstance(level, str) and level.endswith((".yaml", ".yml")):
        level = Path(level).stem
    kept = {key: options.get(key) for key in ORIGIN_OPTIONS}
    return {
        "dataset": read_metadata(workspace.root, "images")["dataset"]["name"],
        "released": bool(read_metadata(workspace.root, "identities").get("config", {}).get("release")),
        "options": {**kept, "degradation": level if isinstance(level, str | None) else str(level.get("name") or name)},
    }


def packed_cases(workspace: Workspace, cases: pd.DataFrame) -> Iterator[PackedCase]:
    """Yield cases with their images.

    Args:
        workspace: theirs.
        cases: rows of its table, of one benchmark.
    """
    made = workspace.read("degradations").dropna(subset=["lq_path"])
    rows = made.drop(columns=["lq_sha256", "target_id", "error"]).astype(object).to_dict("records")
    drawn = {row.pop("lq_path"): json.dumps({key: _plain(value) for key, value in row.items()}) for row in rows}
    plain = cases.sort_values("case_id").astype(object)
    sha256 = workspace.picture_hashes()

    def picture(file: Path, path: str) -> Picture:
        data = read_bytes(file)
        if sha256_bytes(data) != sha256(path):
            raise ImageError(f"changed since its hash was recorded, run the pipeline that recorded it again: {file}")
        return Picture(file.suffix.lower(), data)

    for row in plain.where(plain.notna(), None).to_dict("records"):
        yield PackedCase(
            case_id=row["case_id"],
            target_id=row["target_id"],
            identity_id=None if row["identity_id"] is None else int(row["identity_id"]),
            age=row["age"],
            age_gap=row["age_gap"],
            parameters=drawn.get(row["lq_path"]),
            lq=picture(workspace.file(row["lq_path"]), row["lq_path"]),
            gt=picture(workspace.image(row["gt_path"]), row["gt_path"]) if row["gt_path"] else None,
            references=tuple(picture(workspace.image(path), path) for path in row["reference_paths"]),
        )


def _plain(value: Any) -> Any:
    """Return a value of a table as JSON knows it."""
    if isinstance(value, list | np.ndarray):
        return [float(item) for item in value]
    return None if value is None or value != value else value


def _card(dataset: Mapping[str, Any], splits: Mapping[str, str], layout: Layout) -> str:
    """Return the card of the data set, whose head tells the hub's loader which files are which benchmark's."""
    lines = ["---", "license: other", "configs:"]
    for name, split in splits.items():
        pattern = _PATTERNS[layout].format(name=name, split=split)
        lines += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f'    path: "{pattern}"']
    lines += ["---", "", f"# Face restoration benchmarks on {dataset['name']}", ""]
    lines += [
        f"Written by ffhqref {__version__}: low-quality images, ground truths, references by rank, parameters.",
        "",
    ]
    lines += [
        f"Images: {dataset.get('attribution') or dataset['name']}. Licence: {dataset.get('licence') or 'unknown'}."
    ]
    if layout == "webdataset":
        lines += ["", "A reference of one pixel is none: `references` in the JSON is their number."]
    return "\n".join(lines) + "\n"


def _croissant(folder: Path, dataset: Mapping[str, Any], splits: Mapping[str, str], layout: Layout) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in _MIME)
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": path.relative_to(folder).as_posix(),
            "name": path.relative_to(folder).as_posix(),
            "contentUrl": path.relative_to(folder).as_posix(),
            "encodingFormat": _MIME[path.suffix],
            "sha256": sha256_file(path),
        }
        for path in files
    ]
    names = [str(item["@id"]) for item in objects]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"ffhqref-{dataset['name']}-cases",
        "description": f"Benchmarks of face restoration over '{dataset['name']}': {', '.join(splits)}.",
        "license": dataset.get("licence") or "unknown",
        "citeAs": dataset.get("attribution") or dataset["name"],
        "version": __version__,
        "distribution": objects,
        "recordSet": [] if layout == "webdataset" else [_record_set(name) for name in names],
    }


def _record_set(file: str) -> dict[str, Any]:
    name = PurePosixPath(file).with_suffix("").as_posix().removesuffix(f"/{METADATA.partition('.')[0]}")
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{column}",
            "name": column,
            "dataType": kind,
            "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
        }
        for column, kind in _TYPES.items()
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}
