"""Which file of a folder is a method's output for which case: by name or by a CSV, never by position."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ffhqref.core.csv_file import read_csv
from ffhqref.core.errors import ConfigError, DatasetError, did_you_mean
from ffhqref.datasets.base import list_images
from ffhqref.datasets.match import without_ending

PLACEHOLDERS = ("id", "lq", "benchmark")
"""Of a pattern: the case's id, the name of its LQ file without ending, and its benchmark."""

LOSSY = (".jpg", ".jpeg", ".jfif", ".jpe", ".jp2", ".webp", ".avif", ".gif")
"""Endings of formats that lose, or may lose, part of an image."""


@dataclass(frozen=True)
class CaseName:
    """What a file can be called after."""

    benchmark: str
    case_id: str
    lq_name: str = ""
    """Name of its LQ file as given, without ending; empty where the LQ image was made here."""

    def __str__(self) -> str:
        return f"{self.benchmark}/{self.case_id}"


@dataclass(frozen=True)
class Matched:
    """The files of some cases."""

    files: Mapping[CaseName, Path]
    missing: tuple[CaseName, ...]
    """Cases without a file, in benchmarks of which others have one."""
    absent: tuple[CaseName, ...]
    """Cases of benchmarks of which no case has a file."""
    remarks: tuple[str, ...]
    """What a user must know, one line each."""


def match_outputs(
    folder: Path, cases: Sequence[CaseName], *, what: str, pattern: str | None = None, pairs: Path | None = None
) -> Matched:
    """Match the images below a folder to cases.

    Without ``pattern`` and ``pairs``, a file belongs to the case whose id, or whose LQ file's name, it has, whatever
    its ending and whatever folders it lies in; ids that contain folders (``person/image``) need these folders. Where
    a folder is called as a benchmark, what lies in it is of that benchmark.

    Args:
        folder: of the outputs.
        cases: all that the outputs may be of.
        what: is matched, for messages.
        pattern: the name instead, with `PLACEHOLDERS`: ``{id}_00``, ``{benchmark}/{id}.png``. Without an ending, any.
        pairs: CSV instead, with the columns ``case_id`` (or ``lq``) and ``output``, a path below the folder, and
            ``benchmark`` where an id is in several.

    Raises:
        ConfigError: a placeholder that does not exist.
        DatasetError: no such folder, no match at all, a file that could be of several cases, or a case with several
            files.
    """
    files = list(list_images(folder, what, "give the folder of the outputs", Path.as_posix).files)
    if pairs is not None:
        claims, rule, extra = _by_list(files, cases, what, pairs)
    else:
        claims, rule, extra = (*_by_name(files, cases, what, pattern), ())
    if not claims:
        raise DatasetError(_no_match(folder, files, cases, what, rule))
    _refuse_doubtful(claims, folder, what)
    found = {case: file for file, (case,) in claims.items()}
    there = {case.benchmark for case in found}
    without = [case for case in cases if case not in found]
    missing = tuple(case for case in without if case.benchmark in there)
    absent = tuple(case for case in without if case.benchmark not in there)
    surplus = [file for file in files if file not in claims]
    lossy = [file for file in found.values() if PurePosixPath(file).suffix.lower() in LOSSY]
    remarks = [
        f"{what}: {len(found)} of {len(found) + len(missing)} cases have a file in {folder}, matched by {rule}",
        *extra,
        *_counted(missing, what, "cases have no file"),
        *_counted(surplus, what, "files belong to no case"),
        *_counted(lossy, what, "outputs are in a lossy format, so that the scores include its loss"),
    ]
    if absent:
        names = ", ".join(dict.fromkeys(case.benchmark for case in absent))
        remarks.append(f"{what}: no file for any of the {len(absent)} cases of {names}, which are left out")
    return Matched({case: folder / file for case, file in found.items()}, missing, absent, tuple(remarks))


Claims = dict[str, tuple[CaseName, ...]]
"""File to the cases that it may be of; those of none are left out."""


def _by_name(files: Iterable[str], cases: Sequence[CaseName], what: str, pattern: str | None) -> tuple[Claims, str]:
    patterns = ("{id}", "{lq}") if pattern is None else (pattern,)
    if pattern is not None:
        _check_pattern(pattern, what)
    known: dict[str, dict[CaseName, str]] = {}
    for case in cases:
        for form in patterns:
            if "{lq}" not in form or case.lq_name:
                name = form.format(id=case.case_id, lq=case.lq_name, benchmark=case.benchmark)
                known.setdefault(name, {}).setdefault(case, form)
    benchmarks = {case.benchmark for case in cases}
    claims: Claims = {}
    used: set[str] = set()
    for file in files:
        of_folder = benchmarks & set(PurePosixPath(file).parts[:-1])
        mine: dict[CaseName, str] = {}
        for case, form in (item for tail in _tails(file) for item in known.get(tail, {}).items()):
            if not of_folder or case.benchmark in of_folder:
                mine.setdefault(case, form)
        if mine:
            claims[file] = tuple(mine)
            used |= set(mine.values())
    words = {"{id}": "case id", "{lq}": "name of the LQ file"}
    return claims, " and ".join(words.get(form, f"the pattern {form}") for form in patterns if form in used or pattern)


def _tails(file: str) -> Iterator[str]:
    """Yield a path and each of its ends, with and without ending.

    >>> list(_tails("severe/00001.png"))
    ['severe/00001.png', 'severe/00001', '00001.png', '00001']
    """
    parts = file.split("/")
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        yield from (tail, without_ending(tail))


def _check_pattern(pattern: str, what: str) -> None:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]
    except ValueError as error:
        raise ConfigError(f"{what}: pattern={pattern}: {error}") from None
    for name in names:
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise ConfigError(
                f"{what}: pattern={pattern}: no placeholder '{{{name}}}'.{did_you_mean(name, PLACEHOLDERS)} "
                f"Known: {known}"
            )
    if not {"id", "lq"} & set(names):
        raise ConfigError(f"{what}: pattern={pattern}: expected {{id}} or {{lq}} in it, for instance {{id}}_00.png")


def _by_list(
    files: Sequence[str], cases: Sequence[CaseName], what: str, file: Path
) -> tuple[Claims, str, tuple[str, ...]]:
    if not file.is_file():
        raise DatasetError(f"{what}: no such file: {file}; give a CSV with the columns case_id and output")
    table = read_csv(file)
    key = next((column for column in ("case_id", "lq") if column in table.columns), None)
    if key is None or "output" not in table.columns:
        raise DatasetError(f"{file}, line 1: columns {list(table.columns)}, expected case_id (or lq) and output")
    known: dict[str, list[CaseName]] = {}
    for case in cases:
        known.setdefault(case.case_id if key == "case_id" else case.lq_name, []).append(case)
    claims: Claims = {}
    strangers, lost = [], []
    taken: set[CaseName] = set()
    there = set(files)
    for number, row in [(row.line, {name: cell.strip() for name, cell in row.cells.items()}) for row in table.rows]:
        names = [row[key]]
        if key == "lq":
            given = without_ending(row[key])
            names = [given, given.rpartition("/")[2]]  # PERSON/IMAGE, or a name that has other folders before it
        claimed: list[CaseName] = next((known[name] for name in names if name in known), [])
        mine = [case for case in claimed if row.get("benchmark") in (None, "", case.benchmark)]
        path = PurePosixPath(row["output"]).as_posix()
        if not mine:
            strangers.append(row[key])
        elif len(mine) > 1:
            raise DatasetError(
                f"{file}, line {number}: '{row[key]}' is a case of {mine[0].benchmark} and of {mine[1].benchmark}; "
                "add the column benchmark, or choose one benchmark"
            )
        elif mine[0] in taken or path in claims:
            raise DatasetError(f"{file}, line {number}: '{row[key] if mine[0] in taken else path}' occurs twice")
        elif path not in there:
            lost.append(path)
            taken.add(mine[0])
        else:
            claims[path] = (mine[0],)
            taken.add(mine[0])
    unread = [column for column in table.columns if column not in (key, "output", "benchmark")]
    extra = (
        *_counted(unread, what, f"columns of {file.name} are not read"),
        *_counted(strangers, what, f"lines of {file.name} name no case"),
        *_counted(lost, what, f"files that {file.name} names are not there"),
    )
    return claims, f"the list {file.name}", extra


def _refuse_doubtful(claims: Claims, folder: Path, what: str) -> None:
    for file, mine in claims.items():
        if len(mine) > 1:
            one, other = mine[:2]
            remedy = (
                f"sort the outputs into folders called as the benchmarks, or choose one: benchmark=[{one.benchmark}]"
                if one.benchmark != other.benchmark
                else "give a pattern, such as {id}.png or {lq}.png, or a CSV of pairs"
            )
            raise DatasetError(f"{what}: {file} in {folder} could be of the cases {one} and {other}; {remedy}")
    count = Counter(case for (case,) in claims.values())
    for case, number in count.items():
        if number > 1:
            first, second = [file for file, (mine,) in claims.items() if mine == case][:2]
            raise DatasetError(
                f"{what}: the case {case} has {number} files in {folder}, {first} and {second}; remove one, or give a "
                "pattern, such as {id}.png, or a CSV of pairs"
            )


def _no_match(folder: Path, files: Sequence[str], cases: Sequence[CaseName], what: str, rule: str) -> str:
    guess = next((form for file in files for case in cases if (form := _suffix(file, case)) is not None), None)
    remedy = f"is it pattern={guess}?" if guess else "give a pattern, such as {id}_00.png, or a CSV of pairs"
    named, by = f"'{cases[0].case_id}'" if cases else "none", f" ({rule})" if rule else ""
    return (
        f"{what}: none of the {len(files)} images in {folder} has the name of a case{by}: there '{files[0]}', the "
        f"cases have {named}; {remedy}"
    )


def _suffix(file: str, case: CaseName) -> str | None:
    """Return the pattern of a file that begins or ends with a case's id.

    >>> _suffix("run/00001_00.png", CaseName("severe", "00001")), _suffix("kim.png", CaseName("severe", "00001"))
    ('{id}_00', None)
    """
    stem = without_ending(PurePosixPath(file).name)
    for name, word in ((case.case_id, "{id}"), (case.lq_name, "{lq}")):
        if name and (found := re.fullmatch(rf"(.*[\W_])?{re.escape(name)}([\W_].*)?", stem)):
            return f"{found[1] or ''}{word}{found[2] or ''}"
    return None


def _counted(items: Sequence[object], what: str, words: str) -> tuple[str, ...]:
    if not items:
        return ()
    shown = ", ".join(map(str, items[:3])) + (", …" if len(items) > 3 else "")
    return (f"{what}: {len(items)} {words}: {shown}",)
