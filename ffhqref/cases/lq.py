"""Pictures from outside: LQ folders of ReF-LDM's release, LFW-Test, WebPhoto-Test and their kin; references of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ffhqref.cases.reference_folder import GivenReferences, match_folder
from ffhqref.cases.reference_list import match_list
from ffhqref.core.errors import DatasetError, ImageError
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.images import SIZE, read_rgb, save_png
from ffhqref.datasets.base import given_path, list_images
from ffhqref.datasets.stage import reason_without, size_and_time
from ffhqref.engine.base import Row, Stage
from ffhqref.engine.files import file_intact, file_stamp

ITSELF = "the low-quality picture itself"
"""Why a reference with the same pixels is not used."""


class ImportStage(Stage[Row, dict[str, Any]]):
    """Bring pictures into the workspace as 512x512 PNG: pixels as they are, others resized bicubically.

    A row has ``path`` (absolute), ``size`` and ``changed_ns`` of the source, and ``out_path`` (relative to the
    workspace). A result has ``path`` (that one) and ``sha256``, null with an ``error`` where the picture cannot be
    read.

    Args:
        root: the workspace.
        name: of the stage and its journal; the pictures of each folder have one of their own.
    """

    version = "2"
    batch_size = 16

    def __init__(self, root: Path, name: str = "import") -> None:
        self.root = root
        self.name = name

    def key(self, row: Row) -> str:
        """Return the content key."""
        return content_key("import", self.version, [row[key] for key in ("path", "size", "changed_ns", "out_path")])

    def setup(self) -> None:
        """Load nothing."""

    def intact(self, row: Row, result: Row) -> bool:
        """Return whether the imported file is there and unchanged."""
        return result["error"] is not None or file_intact(self.root / row["out_path"], result, result["sha256"])

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Copy the pictures."""
        return [self._one(row) for row in rows]

    def _one(self, row: Row) -> dict[str, Any]:
        try:
            data = save_png(self.root / row["out_path"], read_rgb(row["path"], SIZE))
        except ImageError as error:
            reason = reason_without(Path(row["path"]), error)
            return {"path": None, "sha256": None, "error": reason, "file_size": None, "file_mtime_ns": None}
        stamp = file_stamp(self.root / row["out_path"])
        return {"path": row["out_path"], "sha256": sha256_bytes(data), "error": None, **stamp}


def import_rows(benchmark: str, folder: str | Path, wanted: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Return the rows that `ImportStage` takes, by case id.

    Args:
        benchmark: its name, which becomes the folder in the workspace.
        folder: where the pictures lie.
        wanted: case ids, each of which must be there; None: every picture of the folder.

    Raises:
        DatasetError: an empty folder, two pictures of one stem, or a wanted one that is missing.
    """
    root = given_path(folder, f"benchmark.{benchmark}.lq_folder").resolve()
    files = list_images(root, f"benchmark '{benchmark}'", f"set benchmark.{benchmark}.lq_folder").files
    names = list(files) if wanted is None else list(wanted)
    missing = [name for name in names if name not in files]
    if missing:
        raise DatasetError(
            f"benchmark '{benchmark}': {len(missing)} of {len(names)} targets have no picture in {root}, first "
            f"'{missing[0]}'; is it the LQ folder of this reference set?"
        )
    rows = {}
    for name in names:
        rows[name] = _row(root, files[name], f"lq/{benchmark}/{name}.png")
    return rows


def _row(root: Path, file: str, out_path: str) -> dict[str, Any]:
    source = root / file
    return {"path": str(source), **size_and_time(source), "file": file, "out_path": out_path}


def given_references(
    benchmark: str,
    names: Collection[str],
    lq_folder: str | Path,
    *,
    folder: str | Path | None,
    listing: str | Path | None,
    layout: str | None = None,
) -> GivenReferences:
    """Match references from outside to low-quality pictures; see `match_folder` and `match_list`.

    Args:
        benchmark: its name.
        names: stems of the low-quality pictures.
        lq_folder: where those lie.
        folder: of references; None: that of ``listing``.
        listing: a CSV that says which is whose; None: the folder's layout says it.
        layout: of the folder, where it is not to be found out.

    Raises:
        DatasetError: the two sides do not fit, or one folder lies in the other.
    """
    key = f"benchmark.{benchmark}"
    lq_root = given_path(lq_folder, f"{key}.lq_folder").resolve()
    file = None if listing is None else given_path(listing, f"{key}.reference_list").resolve()
    if file is not None and folder is None:
        root = file.parent
    else:
        root = given_path(folder, f"{key}.reference_folder").resolve()
    # beside a list, a folder may hold both; without one, low-quality pictures would count as references
    if root.is_relative_to(lq_root) or (file is None and lq_root.is_relative_to(root)):
        raise DatasetError(
            f"benchmark '{benchmark}': the folder of references {root} and that of low-quality pictures {lq_root} "
            "are one, or one lies in the other; expected two beside each other"
        )
    if file is not None:
        return match_list(benchmark, names, lq_root, root, file)
    return match_folder(benchmark, names, lq_root, root, layout)


def reference_rows(benchmark: str, given: GivenReferences, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the rows that `ImportStage` takes, one for each reference of the named pictures, by its path.

    A picture that several low-quality ones share is imported once.

    Args:
        benchmark: its name, which becomes the folder in the workspace.
        given: the references.
        names: low-quality pictures whose references are wanted.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        for path in given.paths[name]:
            # the ending stays in the name unless it is .png: a.jpg and a.webp are two pictures
            out_path = f"references/{benchmark}/{path if path.endswith('.png') else f'{path}.png'}"
            rows.setdefault(path, _row(given.root, path, out_path))
    return rows


def usable_paths(records: Sequence[Mapping[str, Any]], role: str) -> dict[str, list[str]]:
    """Return case id to imported pictures of a role (``lq``, ``reference``) in rank order, from rows of ``imports``."""
    found: dict[str, list[str]] = {}
    for row in records:
        if row["role"] == role and row["path"] is not None:
            found.setdefault(row["case_id"], []).append(row["path"])
    return found


def import_records(
    benchmark: str,
    lq: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
    given: GivenReferences | None = None,
    references: Mapping[str, Mapping[str, Any]] | None = None,
    source: str | None = None,
) -> list[dict[str, Any]]:
    """Return rows of the table ``imports``.

    A reference that is the low-quality picture itself, pixel by pixel, is a row with that reason and no path.

    Args:
        benchmark: its name.
        lq: case id to the row that `ImportStage` took and what it returned.
        given: which references belong to which case.
        references: path of a reference to what `ImportStage` returned.
        source: of the references: ``real``, ``synthetic:<renderer>`` or ``unknown``.
    """
    made = []
    for name, (row, result) in lq.items():
        facts = {"benchmark": benchmark, "case_id": name}
        found = {key: result[key] for key in ("path", "sha256", "error")}
        made.append({**facts, "role": "lq", "rank": 0, "file": row["file"], "source": None, **found})
        for rank, path in enumerate(given.paths[name] if given else ()):
            assert references is not None
            found = {key: references[path][key] for key in ("path", "sha256", "error")}
            if found["sha256"] is not None and found["sha256"] == result["sha256"]:
                found |= {"path": None, "error": ITSELF}
            made.append({**facts, "role": "reference", "rank": rank, "file": path, "source": source, **found})
    return made


def count_remark(benchmark: str, found: int, counts: Sequence[int]) -> str | None:
    """Return a remark when the number of pictures is not what sources state, or when sources disagree."""
    if not counts or (len(counts) == 1 and found == counts[0]):
        return None
    stated = " or ".join(map(str, counts))
    verdict = "sources disagree" if found in counts else "this is neither" if len(counts) > 1 else "this differs"
    return f"benchmark '{benchmark}': {found} pictures, sources state {stated}: {verdict}; state the count with results"
