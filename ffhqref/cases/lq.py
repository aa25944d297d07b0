"""Images from outside: LQ folders of ReF-LDM's release, LFW-Test, WebPhoto-Test and the like; references of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ffhqref.cases.reference_folder import GivenReferences, match_folder
from ffhqref.cases.reference_list import match_list
from ffhqref.core.errors import DatasetError, ImageError, TableError
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.images import SIZE, check_square, encode_png, read_rgb, resize, save_png
from ffhqref.datasets.base import given_path, list_images
from ffhqref.datasets.match import ImageMatcher
from ffhqref.datasets.stage import reason_without, size_and_time
from ffhqref.engine.base import Stage
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.store.workspace import owned

ITSELF = "the low-quality image itself"
"""Why a reference with the same pixels is not used."""


@dataclass(frozen=True)
class ImportRow:
    """An image to bring into the workspace."""

    path: str
    """Absolute."""
    size: int
    changed_ns: int
    file: str
    """As given, below its folder."""
    out_path: str
    """In the workspace."""


@dataclass(frozen=True)
class ImportResult:
    """An imported image, or why there is none."""

    path: str | None
    sha256: str | None
    error: str | None
    file_size: int | None
    file_mtime_ns: int | None
    width: int | None = None
    """Of the source."""


class ImportStage(Stage[ImportRow, ImportResult]):
    """Bring square images into the workspace as 512x512 PNG: pixels as they are, others resized bicubically.

    Args:
        root: the workspace.
        name: of the stage and its journal; the images of each folder have one of their own.
        writes: False: see `rehearsal`.
    """

    version = "3"
    batch_size = 16

    def __init__(self, root: Path, name: str = "import", *, writes: bool = True) -> None:
        self.root = root
        self.name = name
        self.writes = writes

    def rehearsal(self) -> ImportStage:
        """Return the stage that writes no image: hashes are those that the files would have."""
        return ImportStage(self.root, self.name, writes=False)

    def key(self, row: ImportRow) -> str:
        """Return the content key."""
        return content_key("import", self.version, [row.path, row.size, row.changed_ns, row.out_path])

    def intact(self, row: ImportRow, result: ImportResult) -> bool:
        """Return whether the imported file is there and unchanged."""
        if result.sha256 is None or not self.writes:
            return True
        stamp = {"file_size": result.file_size, "file_mtime_ns": result.file_mtime_ns}
        return file_intact(self.root / row.out_path, stamp, result.sha256)

    def process(self, rows: Sequence[ImportRow]) -> list[ImportResult]:
        """Copy the images."""
        return [self._one(row) for row in rows]

    def _one(self, row: ImportRow) -> ImportResult:
        try:
            image = read_rgb(row.path)
            check_square(image.shape[1], image.shape[0], row.path)
            levels, target = resize(image, SIZE), owned(self.root, row.out_path)
            data = save_png(target, levels) if self.writes else encode_png(levels)
        except (ImageError, TableError) as error:
            return ImportResult(None, None, reason_without(Path(row.path), error), None, None)
        stamp = file_stamp(target) if self.writes else {"file_size": None, "file_mtime_ns": None}
        return ImportResult(row.out_path, sha256_bytes(data), None, **stamp, width=len(image))


@dataclass(frozen=True)
class LqFolder:
    """The images of a folder that a benchmark takes."""

    rows: dict[str, ImportRow]
    """By case id."""
    remarks: tuple[str, ...]
    """What else lies in the folder."""


def import_rows(
    benchmark: str,
    folder: str | Path,
    wanted: Sequence[str] | None,
    names: Mapping[str, str] | None = None,
    *,
    role: str = "lq",
    name: Callable[[Path], str] = lambda relative: relative.stem,
) -> LqFolder:
    """Return the rows that `ImportStage` takes.

    Args:
        benchmark: its name, which becomes the folder in the workspace.
        folder: where the images lie.
        wanted: case ids, each of which must be there; None: every image of the folder.
        names: case id to the name that a published list gives to its file, where that is not the id.
        role: of the images: lq or gt.
        name: makes the id of an image from its path below the folder.

    Raises:
        DatasetError: an empty folder, two images of one stem, or a wanted one that is missing.
    """
    root = given_path(folder, f"benchmark.{benchmark}.{role}_folder").resolve()
    listing = list_images(root, f"benchmark '{benchmark}'", f"set benchmark.{benchmark}.{role}_folder", name)
    matcher = ImageMatcher(listing.files)
    cases = list(listing.files) if wanted is None else list(wanted)
    files = {case_id: matcher.find((names or {}).get(case_id, case_id)) for case_id in cases}
    missing = [case_id for case_id, found in files.items() if found is None]
    if missing:
        first = (names or {}).get(missing[0], missing[0])
        raise DatasetError(
            f"benchmark '{benchmark}': {len(missing)} of {len(cases)} targets have no image in {root}, first "
            f"'{first}'; is it the LQ folder of this reference set?"
        )
    rows = {
        case_id: _row(root, listing.files[found], f"{role}/{benchmark}/{case_id}.png")
        for case_id, found in files.items()
        if found is not None
    }
    return LqFolder(rows, listing.remarks)


def _row(root: Path, file: str, out_path: str) -> ImportRow:
    source = root / file
    return ImportRow(str(source), **size_and_time(source), file=file, out_path=out_path)


def given_references(
    benchmark: str,
    names: Collection[str],
    lq_folder: str | Path,
    *,
    folder: str | Path | None,
    listing: str | Path | None,
    layout: str | None = None,
) -> GivenReferences:
    """Match references from outside to low-quality images; see `match_folder` and `match_list`.

    Args:
        benchmark: its name.
        names: stems of the low-quality images.
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
    # beside a list, a folder may hold both; without one, low-quality images would count as references
    if root.is_relative_to(lq_root) or (file is None and lq_root.is_relative_to(root)):
        raise DatasetError(
            f"benchmark '{benchmark}': the folder of references {root} and that of low-quality images {lq_root} "
            "are one, or one lies in the other; expected two beside each other"
        )
    if file is not None:
        return match_list(benchmark, names, lq_root, root, file)
    return match_folder(benchmark, names, lq_root, root, layout)


def reference_rows(benchmark: str, given: GivenReferences, names: Collection[str]) -> dict[str, ImportRow]:
    """Return the rows that `ImportStage` takes, one for each reference of the named images, by its path.

    An image that several low-quality ones share is imported once.

    Args:
        benchmark: its name, which becomes the folder in the workspace.
        given: the references.
        names: low-quality images whose references are wanted.
    """
    rows: dict[str, ImportRow] = {}
    for name in names:
        for path in given.paths[name]:
            # the ending stays in the name unless it is .png: a.jpg and a.webp are two images
            out_path = f"references/{benchmark}/{path if path.endswith('.png') else f'{path}.png'}"
            rows.setdefault(path, _row(given.root, path, out_path))
    return rows


@dataclass(frozen=True)
class ImportRecord:
    """A row of the table ``imports``."""

    benchmark: str
    case_id: str
    role: str
    rank: int
    file: str
    path: str | None
    sha256: str | None
    source: str | None
    error: str | None


def usable_paths(records: Sequence[ImportRecord], role: str) -> dict[str, list[str]]:
    """Return case id to imported images of a role (``lq``, ``reference``) in rank order."""
    found: dict[str, list[str]] = {}
    for row in records:
        if row.role == role and row.path is not None:
            found.setdefault(row.case_id, []).append(row.path)
    return found


def import_records(
    benchmark: str,
    lq: Mapping[str, tuple[ImportRow, ImportResult]],
    given: GivenReferences | None = None,
    references: Mapping[str, ImportResult] | None = None,
    source: str | None = None,
) -> list[ImportRecord]:
    """Return rows of the table ``imports``.

    A reference that is the low-quality image itself, pixel by pixel, is a row with that reason and no path.

    Args:
        benchmark: its name.
        lq: case id to the row that `ImportStage` took and what it returned.
        given: which references belong to which case.
        references: path of a reference to what `ImportStage` returned.
        source: of the references: ``real``, ``synthetic:<renderer>`` or ``unknown``.
    """
    made = []
    for name, (row, result) in lq.items():
        made.append(ImportRecord(benchmark, name, "lq", 0, row.file, result.path, result.sha256, None, result.error))
        for rank, file in enumerate(given.paths[name] if given else ()):
            found = (references or {})[file]
            path, error = found.path, found.error
            if found.sha256 is not None and found.sha256 == result.sha256:
                path, error = None, ITSELF
            made.append(ImportRecord(benchmark, name, "reference", rank, file, path, found.sha256, source, error))
    return made


def count_remark(benchmark: str, found: int, counts: Sequence[int]) -> str | None:
    """Return a remark when the number of images is not what sources state, or when sources disagree."""
    if not counts or (len(counts) == 1 and found == counts[0]):
        return None
    stated = " or ".join(map(str, counts))
    verdict = "sources disagree" if found in counts else "this is neither" if len(counts) > 1 else "this differs"
    return f"benchmark '{benchmark}': {found} images, sources state {stated}: {verdict}; state the count with results"
