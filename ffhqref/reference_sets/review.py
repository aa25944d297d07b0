"""The manual check: a page that shows every target with its references, and the verdicts it gives back.

ReF-LDM had every reference of its test set verified by a person (its paper). The page does the same work with
one key a target: it is one HTML file without a server, keeps verdicts in the browser and saves them as a CSV, which the
builder reads (``exclusions=FILE``). It holds small images of real people: it is for the person who checks, not for
publication.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.csv_file import read_csv
from ffhqref.core.errors import DatasetError, ImageError
from ffhqref.core.files import write_atomic
from ffhqref.core.hashing import content_key
from ffhqref.core.images import encode_webp, read_rgb
from ffhqref.datasets.base import given_path
from ffhqref.reference_sets.card import page_environment
from ffhqref.reference_sets.references import Exclusions
from ffhqref.store import tables

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.store.workspace import Workspace

COLUMNS = ("target_id", "reference_id", "verdict")
VERDICTS = ("accept", "reject")
THUMBNAIL = 224
"""Side of an image on the page in pixels; about 7 kB each, 6 MB for FFHQ-Ref's test set."""


def write_review(workspace: Workspace, split: str = "test", out: str | Path | None = None) -> Path:
    """Write the page and return its path.

    Targets come person by person. An image that cannot be read is shown as a gap with its id.

    Args:
        workspace: with the tables images, identities and references.
        split: test or val (train is not checked in FFHQ-Ref either, but may be).
        out: the file; ``review_<split>.html`` in the workspace by default.

    Raises:
        DatasetError: the split has no target.
    """
    references = workspace.read("references")
    references = references[references["split"] == split].sort_values(["target_id", "rank"])
    if references.empty:
        raise DatasetError(f"review: the split '{split}' has no target; choose another split or lower min_references")
    identities, images = workspace.read("identities"), workspace.read("images")
    person = dict(zip(identities["image_id"], identities["identity_id"], strict=True))
    shown = sorted(set(references["target_id"]) | set(references["reference_id"]))
    files = images.set_index("image_id")[["path", "sha256"]].to_dict("index")
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda name: _thumbnail(workspace, files[name]["path"], files[name]["sha256"]), shown)
        thumbnails = dict(zip(shown, made, strict=True))
    origin = tables.read_metadata(workspace.root, "images").get("dataset", {})
    data = {
        "name": str(origin.get("name", "")),
        "split": split,
        # Verdicts are about images, not about thresholds: they are found again after another build of this set.
        "key": "ffhqref-review-" + content_key(tables.table_hash(workspace.root, "images"))[:16],
        "pictures": thumbnails,
        "targets": _targets(references, person, _years(workspace)),
    }
    page = page_environment(escape=True).get_template("review.html.j2").render(data=_script_json(data))
    path = Path(out) if out else workspace.root / f"review_{split}.html"
    write_atomic(path, page.encode())
    return path


def read_exclusions(path: str | Path, known: Collection[str] | None = None) -> Exclusions:
    """Read the verdicts of a manual check, as the review page saves them.

    A CSV with the columns target_id, reference_id and verdict. ``reject`` with a reference excludes this pair, in both
    directions; ``reject`` without one excludes the target; ``accept`` is kept by the page for the record and changes
    nothing.

    Args:
        path: the file.
        known: image ids of the data set; any other is refused. None: not checked.

    Raises:
        DatasetError: with the line number.
    """
    file = given_path(path, "exclusions")
    if not file.is_file():
        raise DatasetError(f"no such file: {file}; exclusions=FILE is the CSV that the review page saves")
    table = read_csv(file)
    ids = None if known is None else set(known)
    seen: dict[tuple[str, str], tuple[str, int]] = {}
    if table.columns != COLUMNS:
        raise DatasetError(f"{file}, line 1: columns {list(table.columns)}, expected {','.join(COLUMNS)}")
    for row in table.rows:
        _take(row.cells, table.where(row), row.line, seen, ids)
    rejected = [key for key, (verdict, _) in seen.items() if verdict == "reject"]
    return Exclusions.of(
        pairs=[(target, reference) for target, reference in rejected if reference],
        targets=[target for target, reference in rejected if not reference],
    )


def _take(
    cells: Mapping[str, str],
    where: str,
    line: int,
    seen: dict[tuple[str, str], tuple[str, int]],
    known: set[str] | None,
) -> None:
    target, reference, verdict = (cells[column] for column in COLUMNS)
    if verdict not in VERDICTS:
        raise DatasetError(f"{where}: verdict '{verdict}', expected {' or '.join(VERDICTS)}")
    if not target or target == reference:
        raise DatasetError(f"{where}: target '{target}' and reference '{reference}', expected two images or a target")
    for name in (target, reference):
        if name and known is not None and name not in known:
            raise DatasetError(f"{where}: there is no image '{name}' in the data set; is it the file of another one?")
    key = (target, "") if not reference else (min(target, reference), max(target, reference))
    before = seen.setdefault(key, (verdict, line))
    if before[0] != verdict:
        raise DatasetError(f"{where}: says {verdict} where line {before[1]} says {before[0]}; keep one of the two")


def _thumbnail(workspace: Workspace, relative: str, sha256: str) -> str | None:
    import cv2

    try:
        image = read_rgb(workspace.image(relative), sha256=sha256)
    except ImageError:
        return None
    scale = THUMBNAIL / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return "data:image/webp;base64," + base64.b64encode(encode_webp(small, quality=78)).decode()


def _years(workspace: Workspace) -> dict[str, float]:
    if not tables.table_path(workspace.root, "ages").is_file():
        return {}
    ages = workspace.read("ages").dropna()
    return dict(zip(ages["image_id"], ages["age"].astype(float), strict=True))


def _targets(references: pd.DataFrame, person: dict[str, Any], years: dict[str, float]) -> list[dict[str, Any]]:
    found = []
    for target, group in references.groupby("target_id", sort=True):
        rows = zip(group["reference_id"], group["distance"].astype(float), group["age_gap"].astype(float), strict=True)
        listed = [
            {"id": name, "distance": _number(distance, 3), "gap": _number(gap, 1)} for name, distance, gap in rows
        ]
        age = _number(years.get(str(target), float("nan")), 1)
        found.append({"id": str(target), "person": int(person[str(target)]), "age": age, "references": listed})
    return sorted(found, key=lambda entry: (entry["person"], entry["id"]))


def _number(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(value, digits)


def _script_json(data: Any) -> Any:
    """Return JSON that may stand inside a script element, whatever names are in it."""
    import markupsafe

    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return markupsafe.Markup(text)  # noqa: S704 - nothing that ends a script element is left in it
