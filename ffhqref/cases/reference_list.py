"""References of low-quality images from a CSV: pairs of images, or images and the person they show."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from ffhqref.cases.reference_folder import GivenReferences, by_number
from ffhqref.core.csv_file import CsvTable, read_csv
from ffhqref.core.errors import DatasetError
from ffhqref.core.images import EXTENSIONS
from ffhqref.datasets.base import list_images

PAIRS = ("lq", "reference")
PEOPLE = ("file", "person")


def match_list(benchmark: str, names: Collection[str], lq_folder: Path, folder: Path, file: Path) -> GivenReferences:
    """Match low-quality images to references by a CSV.

    Two forms, told by their columns: ``lq, reference``, a line for each pair, in the order of the ranks; or
    ``file, person``, a line for each low-quality image, whose references are all images below
    ``<folder>/<person>``, so that several images share one person's. A low-quality image is named by its file name
    or its stem, a reference or a person by its path below ``folder``.

    Args:
        benchmark: its name, for messages.
        names: stems of the low-quality images.
        lq_folder: where those lie, for messages.
        folder: of references.
        file: the CSV.

    Raises:
        DatasetError: no such file or folder, other columns, an empty or doubled line, a path that leaves the folder, or
            a list that names none of the low-quality images or none of the references.
    """
    if not file.is_file():
        raise DatasetError(f"benchmark '{benchmark}': no such file: {file}; set benchmark.{benchmark}.reference_list")
    if not folder.is_dir():
        raise DatasetError(
            f"benchmark '{benchmark}': no such folder: {folder}; set benchmark.{benchmark}.reference_folder"
        )
    columns, unread, lines = _lines(file)
    mine = [line for line in lines if _stem(line[1]) in names]
    if not mine:
        raise DatasetError(
            f"{file}: none of its {len(lines)} lines names a low-quality image of {lq_folder}; the list has "
            f"'{lines[0][1]}', the folder has '{min(names, key=by_number)}'"
        )
    _check_one_name(file, mine)
    match = _pairs if columns == PAIRS else _people
    strangers = [lq for _, lq, _ in lines if _stem(lq) not in names]
    remarks = []
    if unread:
        remarks.append(f"columns of {file.name} that are not read: {', '.join(unread)}")
    if strangers:
        remarks.append(f"{len(strangers)} lines of {file.name} name no low-quality image, first '{strangers[0]}'")
    paths, more = match(benchmark, file, folder, mine)
    return GivenReferences(
        layout=f"list ({', '.join(columns)}), {file.name}",
        root=folder,
        paths={name: tuple(paths.get(name, ())) for name in names},
        remarks=(*remarks, *more),
    )


def _check_one_name(file: Path, lines: list[Line]) -> None:
    """Refuse paths of two images that have one name: whose lines are meant is not known.

    Raises:
        DatasetError: with the second line.
    """
    paths: dict[str, str] = {}
    for number, lq, _ in lines:
        path = PurePosixPath(lq).parent.as_posix()
        if path != "." and paths.setdefault(_stem(lq), path) != path:
            raise DatasetError(
                f"{file}, line {number}: '{lq}' and an earlier line with its name are in two folders, and the "
                "low-quality images have their names alone; keep the lines of one"
            )


Line = tuple[int, str, str]
"""Number, low-quality image, and the other cell."""


def _pairs(benchmark: str, file: Path, folder: Path, lines: list[Line]) -> tuple[dict[str, list[str]], list[str]]:
    found: dict[str, list[str]] = {}
    for number, lq, reference in lines:
        mine = found.setdefault(_stem(lq), [])
        if reference in mine:
            raise DatasetError(f"{file}, line {number}: the pair '{lq}', '{reference}' occurs twice")
        mine.append(reference)
    everything = [path for paths in found.values() for path in paths]
    if not any((folder / path).is_file() for path in everything):
        raise DatasetError(
            f"benchmark '{benchmark}': none of the {len(everything)} references of {file} is in {folder}, first "
            f"'{everything[0]}'; set benchmark.{benchmark}.reference_folder to where they lie"
        )
    return found, []


def _people(benchmark: str, file: Path, folder: Path, lines: list[Line]) -> tuple[dict[str, list[str]], list[str]]:
    person: dict[str, str] = {}
    for number, lq, name in lines:
        if person.setdefault(_stem(lq), name) != name:
            raise DatasetError(f"{file}, line {number}: '{lq}' has two people, '{person[_stem(lq)]}' and '{name}'")
    what = f"benchmark '{benchmark}'"
    listing = list_images(folder, what, f"set benchmark.{benchmark}.reference_folder", lambda path: path.as_posix())
    files = listing.files
    pictures: dict[str, list[str]] = {name: [] for name in person.values()}
    strangers = []
    for path in sorted(files, key=by_number):
        owners = [parent.as_posix() for parent in PurePosixPath(path).parents if parent.as_posix() in pictures]
        if not owners:
            strangers.append(path)
        else:
            pictures[owners[0]].append(path)
    empty = [name for name, paths in pictures.items() if not paths]
    if len(empty) == len(pictures):
        raise DatasetError(
            f"{what}: none of the {len(pictures)} people of {file} has a folder with images in {folder}; the list "
            f"has '{empty[0]}', the folder has '{strangers[0]}'"
        )
    remarks = [*listing.remarks]
    if empty:
        remarks.append(f"{len(empty)} of {len(pictures)} people of {file.name} have no reference, first '{empty[0]}'")
    if strangers:
        remarks.append(
            f"{len(strangers)} of {len(files)} reference images belong to nobody of {file.name}, first {strangers[0]}"
        )
    return {lq: pictures[name] for lq, name in person.items()}, remarks


def _lines(file: Path) -> tuple[tuple[str, str], list[str], list[Line]]:
    """Return the columns that are read, those that are not, and the lines."""
    table = read_csv(file)
    forms = [form for form in (PAIRS, PEOPLE) if set(form) <= set(table.columns)]
    if len(forms) != 1:
        raise DatasetError(
            f"{file}, line 1: columns {list(table.columns)}, expected lq and reference, or file and person"
        )
    lines = list(_cells(table, forms[0]))
    if not lines:
        raise DatasetError(f"{file}: no line below its columns; expected one for each pair or image")
    return forms[0], [column for column in table.columns if column not in forms[0]], lines


def _cells(table: CsvTable, form: tuple[str, str]) -> Iterator[Line]:
    for row in table.rows:
        lq, other = (row.cells[column].strip().replace("\\", "/") for column in form)
        where = table.where(row)
        if not lq or not other:
            raise DatasetError(f"{where}: the cell '{form[1] if lq else form[0]}' is empty")
        path = PurePosixPath(other)
        if path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"{where}: '{other}' leaves the folder of references; expected a path below it")
        yield row.line, lq, path.as_posix()


def _stem(lq: str) -> str:
    path = PurePosixPath(lq)
    return path.stem if path.suffix.lower() in EXTENSIONS else path.name
