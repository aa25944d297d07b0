"""What a recipe says about a foreign program: how its inputs are laid out, how it is run, where its outputs are."""

from __future__ import annotations

import dataclasses
import os
import string
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.options import told_value
from ffhqref.core.parsing import read_yaml
from ffhqref.restorers.base import RestorerInfo, info_of

OF_PROGRAMS = ("commands", "env", "files", "weights")
"""Fields whose values a program gets letter by letter: 1.10 is not 1.1 there, nor yes true."""

GROUPS = ("run", "identity", "image")

RUN_FIELDS = ("run", "checkout", "python", "device")
"""Placeholders that stand for the same in all of a call; a restorer's ``parameters`` join them."""

CASE_FIELDS = ("id", "lq", "reference", "references", "references_folder", "seed", "age")
"""Placeholders that stand for something of one case."""

SHARED_FIELDS = ("reference", "references", "references_folder")
"""Those of `CASE_FIELDS` that the cases of an ``identity`` group have in common."""


@dataclass(frozen=True)
class Recipe:
    """How to restore with a foreign program.

    Texts hold placeholders in braces; ``{{`` is a brace. Paths of `lq`, `references`, `files` and `output` are
    relative to a folder that is made for each call and removed after it, which ``{run}`` stands for.
    """

    commands: tuple[tuple[str, ...], ...]
    """Programs with their arguments, run one after the other without a shell. An argument that is just
    ``{references}`` becomes one argument for each reference."""
    lq: tuple[str, ...]
    """Where the LQ image of a case is written, as PNG; ``{id}`` is a number of five digits."""
    output: str
    """Where the program writes a case's image, with ``{id}``; ``*`` stands for what is not known."""
    references: str | None = None
    """Where references are written, with ``{rank}`` (two digits, 00 first) and ``{id}``; without the latter for a
    group of an identity."""
    fill_references: int | None = None
    """References are repeated up to this number, for programs that take no fewer."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Text files, each with its line for a case, for programs that read lists."""
    group: str = "run"
    """``run``: many cases a call; ``identity``: cases that have the same references; ``image``: one case a call."""
    crop: tuple[int, int, int, int] | None = None
    """Left, top, width and height in pixels of what is cut out of the output, where several images are in one."""
    cwd: str = "{checkout}"
    """Working directory."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables beside those of ffhqref's own environment."""
    start_seconds: float = 600.0
    """Time limit of a call, to which each case adds `case_seconds`."""
    case_seconds: float = 120.0
    weights: Mapping[str, str] = field(default_factory=dict)
    """Files that results depend on, relative to the checkout, and where each comes from: a name of the weight
    registry, or words."""
    watch: tuple[str, ...] = ()
    """Patterns of files in the checkout; when one of them changes, results are made again."""
    info: RestorerInfo = field(default_factory=lambda: RestorerInfo(name="command"))

    @classmethod
    def of(cls, source: Mapping[str, Any] | str | Path, parameters: Collection[str] = ()) -> Recipe:
        """Return the recipe that a mapping or a YAML file holds.

        Args:
            source: fields of `Recipe`; ``info`` is a mapping of the fields of `RestorerInfo`.
            parameters: names of further placeholders.

        Raises:
            ConfigError: an unknown or missing field, a value of the wrong kind, an unknown placeholder, or a path
                that leaves the folder of the call.
        """
        given = dict(_loaded(source) if isinstance(source, (str, Path)) else source)
        known = [item.name for item in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise _wrong(f"no field '{name}'.{did_you_mean(str(name), known)} Fields: {', '.join(known)}")
        for name in ("commands", "lq", "output"):
            if not given.get(name):
                raise _wrong(f"the field '{name}' is missing")
        given["commands"] = _commands(given["commands"])
        for name in ("lq", "watch"):
            given[name] = _list(name, given.get(name))
        _check_plain(given)
        for name in ("files", "env", "weights"):
            given[name] = _texts(name, given.get(name))
        if given.get("crop") is not None:
            given["crop"] = _crop(given["crop"])
        given["info"] = _info(given.get("info") or {}, given["weights"])
        recipe = cls(**{name: value for name, value in given.items() if value is not None})
        recipe._check(tuple(parameters))
        return recipe

    @property
    def needs_age(self) -> bool:
        """Whether a placeholder stands for the target's age."""
        return "age" in self.used()

    @property
    def uses_seed(self) -> bool:
        """Whether a placeholder stands for the case's seed."""
        return "seed" in self.used()

    def used(self) -> set[str]:
        """Return the names of all placeholders, those of the layout excepted."""
        texts = [self.cwd, *self.env.values(), *self.files.values(), *self.weights, *sum(self.commands, ())]
        return {name for text in texts for name, _ in placeholders(text)}

    def _check(self, parameters: tuple[str, ...]) -> None:  # noqa: C901 -- rewritten with issue 12
        if self.group not in GROUPS:
            raise _wrong(f"group={self.group}.{did_you_mean(self.group, GROUPS)} Known: {', '.join(GROUPS)}")
        for name in ("start_seconds", "case_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise _wrong(f"{name}={value}: expected a number of seconds above 0")
        clash = sorted({*parameters} & {*RUN_FIELDS, *CASE_FIELDS})
        if clash:
            raise _wrong(f"the parameter '{clash[0]}' has the name of a placeholder")
        of_call = {"run": (), "identity": SHARED_FIELDS, "image": CASE_FIELDS}[self.group]
        run_wide = (*RUN_FIELDS, *parameters)
        for command in self.commands:
            for text in command:
                _fields(text, "commands", (*run_wide, *of_call))
                if "{references}" in text and text != "{references}":
                    raise _wrong(f"commands: '{{references}}' must be an argument of its own, not '{text}'")
        for name, text in {"cwd": self.cwd, **self.env}.items():
            _fields(text, name, run_wide)
        for name, text in self.files.items():
            _inside(name, "files")
            _fields(text, "files", (*run_wide, *(name for name in CASE_FIELDS if name != "references")))
        many = self.group != "image"
        for path in self.lq:
            _path(path, "lq", ("id",), needed=("id",) if many else ())
        _path(self.output, "output", ("id",), needed=("id",) if many else ())
        if self.references is not None:
            shared = self.group == "identity"
            allowed = ("rank",) if shared else ("id", "rank")
            _path(self.references, "references", allowed, needed=allowed if many else ("rank",))
        elif self.info.min_references or self.used() & {*SHARED_FIELDS}:
            raise _wrong("the field 'references' is missing, which says where references are written")
        elif self.info.max_references != 0:
            raise _wrong("info.max_references is not 0, but no field 'references' says where they are written")
        for name in self.weights:
            _fields(name, "weights", run_wide)


def placeholders(text: str) -> Iterable[tuple[str, str]]:
    """Return name and format of each placeholder of a text.

    Raises:
        ConfigError: a brace without its partner.
    """
    try:
        return [
            (name + ("!" if conversion else ""), spec or "")
            for _, name, spec, conversion in string.Formatter().parse(text)
            if name is not None
        ]
    except ValueError as error:
        raise _wrong(f"'{text}': {error}; a brace that is meant is written twice") from None


def _fields(text: str, where: str, allowed: Collection[str]) -> None:
    for name, spec in placeholders(text):
        if name not in allowed:
            if name in CASE_FIELDS:
                raise _wrong(f"{where}: '{{{name}}}' is of one case, which a call of group=image alone is about")
            raise _wrong(
                f"{where}: no placeholder '{{{name}}}' in '{text}'.{did_you_mean(name, allowed)} Known: "
                f"{', '.join(allowed)}; others are given as parameters"
            )
        if spec and name != "age":
            raise _wrong(f"{where}: '{{{name}:{spec}}}': only {{age}} takes a format")


def _path(text: str, where: str, allowed: Collection[str], needed: Collection[str]) -> None:
    _inside(text, where)
    names = []
    for name, spec in placeholders(text):
        names.append(name)
        if name not in allowed or spec:
            raise _wrong(
                f"{where}: '{text}' may have {' and '.join(f'{{{one}}}' for one in allowed)}, not '{{{name}}}'"
            )
    for name in needed:
        if name not in names:
            raise _wrong(f"{where}: '{text}' needs {{{name}}}, or several images would have one name")


def _inside(text: str, where: str, place: str = "below the folder of the call, such as input/{id}.png") -> None:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in text or "\0" in text:
        raise _wrong(f"{where}: '{text}' must be a path {place}")


def _commands(commands: Any) -> tuple[tuple[str, ...], ...]:
    lists = (list, tuple)
    if not isinstance(commands, lists) or not all(one and isinstance(one, lists) for one in commands):
        raise _wrong("commands: expected a list of lists, one for each program: [[python, main.py], …]")
    return tuple(tuple(as_text("commands", argument) for argument in one) for one in commands)


def as_text(name: str, value: object) -> str:
    """Return what a program is given for a value.

    Args:
        name: of the field, for messages.
        value: a text or a number; what YAML makes of ``yes`` or ``null`` is not what was written.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float, os.PathLike)):
        raise _wrong(f"{name}: {told_value(value)} is no text: put it in quotes, as the program shall get it")
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _check_plain(given: Mapping[str, Any]) -> None:
    """Refuse fields that are no text or number, and patterns that lead out of the checkout."""
    for pattern in given["watch"]:
        _inside(pattern, "watch", "below the checkout, such as src/*.py")
    for name in ("output", "references", "group", "cwd"):
        if not isinstance(given.get(name), str | None):
            raise _wrong(f"{name}={given[name]!r}: expected a text")
    repeats = given.get("fill_references")
    if repeats is not None and (not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1):
        raise _wrong(f"fill_references={repeats!r}: expected a whole number of at least 1")


def _list(name: str, value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise _wrong(f"{name}={value!r}: expected a text or a list of them")
    return tuple(items)


def _crop(value: Any) -> tuple[int, int, int, int]:
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    if len(numbers) != 4 or not whole or min(numbers) < 0 or min(numbers[2:]) < 1:
        raise _wrong(f"crop={value}: expected left, top, width and height in pixels")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _texts(name: str, value: Any) -> dict[str, str]:
    if value is not None and not isinstance(value, Mapping):
        raise _wrong(f"{name}: expected names with values, not {value!r}")
    return {str(key): as_text(f"{name}.{key}", text) for key, text in (value or {}).items()}


def _info(facts: Any, weights: Mapping[str, str]) -> RestorerInfo:
    from ffhqref.weights.files import registry

    registered = tuple(name for name in weights.values() if name in registry())
    return info_of(facts, "recipe", name="command", weights=registered, verified_against="not tested")


def _loaded(path: str | Path) -> Mapping[str, Any]:
    file = Path(path).expanduser()
    loaded, written = (
        read_yaml(file, ConfigError, "expected a recipe in YAML", as_written=way) for way in (False, True)
    )
    if not isinstance(loaded, Mapping):
        raise _wrong(f"{file}: expected the fields of a recipe")
    return {**loaded, **{name: written[name] for name in OF_PROGRAMS if loaded.get(name) is not None}}


def _wrong(what: str) -> ConfigError:
    return ConfigError(f"recipe: {what}")
