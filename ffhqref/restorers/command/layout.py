"""Lay out the inputs of a call as its program wants them, and fill in the placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError
from ffhqref.core.images import encode_png
from ffhqref.restorers.command.recipe import Recipe, placeholders

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """What a program may know of one case."""

    lq: NDArray[np.uint8]
    """RGB [H, W, 3]."""
    references: tuple[NDArray[np.uint8], ...]
    seed: int
    """0 to 2^31 − 1."""
    age: float | None
    """Years."""


@dataclass(frozen=True)
class Call:
    """One call's cases, laid out in its folder."""

    folder: Path
    names: tuple[str, ...]
    """``{id}`` of each case, in order. Numbers, so that nothing of the data set's names reaches a foreign program."""
    values: Mapping[str, object]
    """Placeholders of the call."""


def name_of(position: int) -> str:
    """Return ``{id}`` of the case at a position of its call."""
    return f"{position:05d}"


def lay_out(recipe: Recipe, cases: Sequence[Case], folder: Path, values: Mapping[str, str]) -> Call:
    """Write images and lists into the folder of a call.

    Args:
        recipe: says where.
        cases: of this call.
        folder: empty; absolute.
        values: placeholders that do not depend on the call.
    """
    run_wide = {**values, "run": str(folder)}
    per_case: list[dict[str, object]] = []
    written: dict[Path, str] = {}
    for position, case in enumerate(cases):
        name = name_of(position)
        lq = [_below(folder, path.format(id=name)) for path in recipe.lq]
        for path in lq:
            _write(path, encode_png(case.lq))
        references = []
        if recipe.references is not None:
            for rank, picture in enumerate(_filled(case.references, recipe.fill_references)):
                path = _below(folder, recipe.references.format(id=name, rank=f"{rank:02d}"))
                if recipe.group != "identity" or position == 0:
                    _write(path, encode_png(picture))
                references.append(str(path))
        per_case.append(
            {
                "id": name, "lq": str(lq[0]), "references": references, "seed": str(case.seed),
                "age": case.age, "reference": references[0] if references else "",
                "references_folder": str(Path(references[0]).parent) if references else "",
            }
        )  # fmt: skip
    for name, template in recipe.files.items():
        written[_below(folder, name)] = "".join(_line(template, {**run_wide, **facts}) for facts in per_case)
    for path, text in written.items():
        _write(path, text.encode())
    outputs = _below(folder, str(PurePosixPath(recipe.output).parent))
    if not any(letter in str(outputs.relative_to(folder)) for letter in "*?[{"):
        outputs.mkdir(parents=True, exist_ok=True)
    # a recipe may use what is of one case only where a call is about one, or all of its cases have it in common
    return Call(folder, tuple(str(facts["id"]) for facts in per_case), {**per_case[0], **run_wide})


def command_of(template: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """Return a program and its arguments, ``{references}`` replaced by one argument each."""
    arguments: list[str] = []
    for text in template:
        references = values["references"]
        if text == "{references}" and isinstance(references, list):
            arguments += references
        else:
            arguments.append(fill(text, values))
    return arguments


def fill(text: str, values: Mapping[str, object]) -> str:
    """Return a text with its placeholders replaced."""
    return text.format_map(values)


def _line(template: str, values: Mapping[str, object]) -> str:
    """Return the line of a list for one case.

    Raises:
        ConfigError: a value would break it: it has a tab or an end of line in it.
    """
    for name, _ in placeholders(template):
        if any(letter in str(values[name]) for letter in "\t\r\n"):
            raise ConfigError(f"recipe: '{{{name}}}' has a tab or an end of line in it: {values[name]!r}")
    return fill(template, values) + "\n"


def _filled(references: tuple[NDArray[np.uint8], ...], least: int | None) -> tuple[NDArray[np.uint8], ...]:
    if not least or not references:
        return references
    return tuple(references[rank % len(references)] for rank in range(max(least, len(references))))


def _below(folder: Path, relative: str) -> Path:
    path = folder / relative
    assert path == folder or folder in path.parents, relative  # recipes are checked for this when they are read
    return path


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
