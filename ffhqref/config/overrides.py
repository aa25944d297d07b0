"""The ``key=value`` arguments of a command line, looked at before Hydra composes the config."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ffhqref.config import source
from ffhqref.config.parts import factory_of
from ffhqref.config.run import RunConfig
from ffhqref.core.errors import ConfigError, FfhqrefError
from ffhqref.core.options import is_text, items_are_text, kind_at, options_of

GROUPS = (*source.MANY, *source.ONE, "experiment")

WITH_A_VALUE = (
    "--cfg", "-c", "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p", "--info",
    "-i", "--shell-completion", "-sc", "--experimental-rerun",
)  # fmt: skip
"""Options of Hydra's that the next argument belongs to."""


def checked(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as Hydra shall read them: home folders written out, names that look like numbers as texts.

    Raises:
        ConfigError: an argument that Hydra's grammar does not take, or a group whose value is no name.
    """
    given = [_with_home(argument) for argument in arguments]
    before = ["", *given]
    return [
        argument if argument.startswith("-") or before[index] in WITH_A_VALUE else _checked(argument, given)
        for index, argument in enumerate(given)
    ]


def chosen(group: str, arguments: Sequence[str]) -> str:
    """Return the name that the arguments choose in a group of one, or an empty string."""
    return next((value for key, value in map(_split, reversed(arguments)) if key == group), "")


def more_folders(arguments: Sequence[str]) -> list[Path]:
    """Return the folders of ``--config-dir``."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=False)
    return [
        Path(argument.partition("=")[2] or following).absolute()
        for argument, following in pairs
        if argument.partition("=")[0] in ("--config-dir", "-cd")
    ]


def _checked(argument: str, given: Sequence[str]) -> str:
    key, equals, value = argument.partition("=")
    if not equals and not argument.startswith("~"):
        raise ConfigError(f"cannot read '{argument}': expected key=value")
    bare = key.lstrip("+~")
    parsed = _parsed(argument)
    if parsed is None:
        quoted = f'{key}="{value.replace(chr(34), "")}"'
        hint = f": {shlex.quote(quoted)}" if _parsed(quoted) is not None else ""
        raise ConfigError(
            f"cannot read {argument}: a value with spaces, quotes, brackets or commas needs quotes of its own{hint}"
        )
    kind = str if bare in GROUPS else kind_of(bare, given)
    if is_text(kind):
        value = ",".join(map(_quoted, value.split(","))) if _is_plain(value) else value
    elif items_are_text(kind) and value[:1] + value[-1:] == "[]" and _is_plain(value[1:-1]):
        value = f"[{','.join(map(_quoted, value[1:-1].split(',')))}]"
    if bare in GROUPS and value == "null" and bare != "experiment":
        known = ", ".join(source.names(bare))
        raise ConfigError(f"{argument}: expected a name, or a list of them where several can be. Known: {known}")
    if key.count(".") == 1 and key.partition(".")[0] in source.MANY and isinstance(parsed.value(), dict):
        key = f"++{key}"  # a part of one's own, written out
    return f"{key}={value}" if equals else argument


def named_keys(arguments: Sequence[str]) -> list[list[str]]:
    """Return the keys that the arguments name, each as its steps; those that an experiment's file names are among them.

    >>> named_keys(["root=w", "+metric.mine={name: psnr}", "embedder.max_distance=.3"])
    [['root'], ['metric', 'mine'], ['embedder', 'max_distance']]
    """
    pairs = [_split(argument) for argument in arguments if "=" in argument or argument.startswith("~")]
    keys = [key.lstrip("+~").partition("@")[0].split(".") for key, _ in pairs if not key.startswith("-")]
    for name in [value for key, value in pairs if key.lstrip("+") == "experiment"]:
        keys += _keys_of_file(source.preset("experiment", name))
    return keys


def _keys_of_file(values: Mapping[str, Any]) -> list[list[str]]:
    groups = [name for item in values.get("defaults", ()) if isinstance(item, dict) for name in item]
    return [[group.removeprefix("override ").strip(" /")] for group in groups] + [
        steps for key, value in values.items() if key != "defaults" for steps in _leaves(value, [key])
    ]


def _leaves(value: Any, steps: list[str]) -> list[list[str]]:
    if not isinstance(value, dict):
        return [steps]
    return [found for key, item in value.items() for found in _leaves(item, [*steps, str(key)])]


def kind_of(key: str, given: Sequence[str]) -> Any:
    """Return the annotation of a key of a command line, `Any` where it is not known."""
    group, _, rest = key.partition(".")
    steps = rest.split(".")
    part = steps[0] if group in source.MANY and len(steps) > 1 else ""
    name = part or chosen(group, given)
    options = source.preset(group, name)
    return kind_at_key(key.split("."), dict(options.get(part) or {}) if part else options)


def kind_at_key(steps: Sequence[str], options: Mapping[str, Any]) -> Any:
    """Return the annotation of a key, `Any` where it is not known.

    Args:
        steps: of the key.
        options: of the part that the key belongs to, such as ``restorer.mine``, or of the section.
    """
    group, *rest = steps
    if group == "restorer" and len(rest) == 3 and rest[1] == "parameters":
        return str  # a foreign program gets it letter by letter
    if group in source.MANY and len(rest) > 1:
        return _kind_of_option(group, rest[0], options, rest[1])
    if (
        group in ("dataset", "embedder")
        and rest
        and rest[0] not in type(RunConfig.model_fields[group].default).model_fields
    ):
        return _kind_of_option(group, "", options, rest[0])
    return kind_at(RunConfig, steps)


def _kind_of_option(group: str, part: str, options: Mapping[str, Any], option: str) -> Any:
    if group == "benchmark":
        from ffhqref.cases.benchmark import Benchmark

        return kind_at(Benchmark, [option])
    try:
        factory = factory_of(group, part, options)
    except FfhqrefError:  # told when the config is checked
        return Any
    field = None if factory is None else options_of(factory).model_fields.get(option)
    return Any if field is None else field.annotation


def _is_plain(value: str) -> bool:
    return not re.search(r"[\[\]{}()'\"\\$]", value)


def _quoted(text: str) -> str:
    """Return a text in quotes where Hydra would make something else of it.

    >>> _quoted("1.10"), _quoted("2024_11_28"), _quoted("faces"), _quoted("null")
    ("'1.10'", "'2024_11_28'", 'faces', 'null')
    """
    parsed = _parsed(f"key={text.strip()}")
    value = None if parsed is None else parsed.value()
    return text if value is None or isinstance(value, str) else f"'{text.strip()}'"


def _parsed(argument: str) -> Any:
    """Return Hydra's reading of an argument, None when it has none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _split(argument: str) -> tuple[str, str]:
    key, _, value = argument.partition("=")
    return key, value


def _with_home(argument: str) -> str:
    """Return an argument with the home folder for ``~`` in ``key=~/path``: shells leave it, and Hydra stumbles.

    >>> _with_home("~restorer"), _with_home("dataset.path=a~/b")
    ('~restorer', 'dataset.path=a~/b')
    """
    if argument.startswith("-"):
        return argument
    return re.sub(r"(?<=[=\[,])~(?=/|$)", lambda _: Path.home().as_posix(), argument)
