"""Published low-quality pictures: LQ folders of ReF-LDM's release, LFW-Test, WebPhoto-Test and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffhqref.datasets.base import given_path, list_images
from ffhqref.datasets.stage import size_and_time
from ffhqref.engine.base import Row
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.errors import DatasetError, ImageError
from ffhqref.hashing import content_key, sha256_bytes
from ffhqref.images import SIZE, read_rgb, save_png


class ImportStage:
    """Bring low-quality pictures into the workspace as 512x512 PNG: pixels as they are, others resized bicubically.

    A row has ``path`` (absolute), ``size`` and ``changed_ns`` of the source, and ``out_path`` (relative to the
    workspace). A result has ``lq_path`` and ``lq_sha256``, null with an ``error`` where the picture cannot be read.

    Args:
        root: the workspace.
    """

    name = "import-lq"
    version = "1"
    batch_size = 16

    def __init__(self, root: Path) -> None:
        self.root = root

    def key(self, row: Row) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, [row[key] for key in ("path", "size", "changed_ns", "out_path")])

    def setup(self) -> None:
        """Load nothing."""

    def intact(self, row: Row, result: Row) -> bool:
        """Return whether the imported file is there and unchanged."""
        return result["error"] is not None or file_intact(self.root / row["out_path"], result, result["lq_sha256"])

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Copy the pictures."""
        return [self._one(row) for row in rows]

    def _one(self, row: Row) -> dict[str, Any]:
        try:
            data = save_png(self.root / row["out_path"], read_rgb(row["path"], SIZE))
        except ImageError as error:
            return {"lq_path": None, "lq_sha256": None, "error": str(error), "file_size": None, "file_mtime_ns": None}
        stamp = file_stamp(self.root / row["out_path"])
        return {"lq_path": row["out_path"], "lq_sha256": sha256_bytes(data), "error": None, **stamp}


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
    files = list_images(root, f"benchmark '{benchmark}'", f"set benchmark.{benchmark}.lq_folder")
    names = list(files) if wanted is None else list(wanted)
    missing = [name for name in names if name not in files]
    if missing:
        raise DatasetError(
            f"benchmark '{benchmark}': {len(missing)} of {len(names)} targets have no picture in {root}, first "
            f"'{missing[0]}'; is it the LQ folder of this reference set?"
        )
    rows = {}
    for name in names:
        path = root / files[name]
        rows[name] = {"path": str(path), **size_and_time(path), "out_path": f"lq/{benchmark}/{name}.png"}
    return rows


def count_remark(benchmark: str, found: int, counts: Sequence[int]) -> str | None:
    """Return a remark when the number of pictures is not what sources state, or when sources disagree."""
    if not counts or (len(counts) == 1 and found == counts[0]):
        return None
    stated = " or ".join(map(str, counts))
    verdict = "sources disagree" if found in counts else "this is neither" if len(counts) > 1 else "this differs"
    return f"benchmark '{benchmark}': {found} pictures, sources state {stated}: {verdict}; state the count with results"
