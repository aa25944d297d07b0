"""The config that a workspace was made with: later commands start from it, and say where they leave it.

The table ``config`` holds it by section, as the command line and the files composed it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ffhqref.config.overrides import kind_at_key
from ffhqref.config.run import DEFAULT, GROUPS
from ffhqref.core.errors import ConfigError, TableError
from ffhqref.core.options import alternatives, told_value
from ffhqref.core.parsing import parsing
from ffhqref.store.mine import is_signed, sign
from ffhqref.store.tables import read_metadata, read_table, table_path
from ffhqref.store.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

_BUILD = ("seed", "dataset", "embedder", "ages", "balance", "exclusions", "release", "build", "card")
_SCORE = ("metric", "set_metric")

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "build": _BUILD,
    "degrade": ("benchmark", "age_sets"),
    "restore": ("restorer",),
    "score": _SCORE,
    "run": (*_BUILD, "benchmark", "age_sets", "restorer", *_SCORE, "report", "contamination"),
}
"""What a workspace keeps of the config of each command."""

TOLD: Mapping[str, tuple[str, ...]] = {
    **SECTIONS,
    "audit": ("embedder", "build"),
    "validate": ("embedder", "build"),
    "score": ("seed", "embedder", *_SCORE),
    "report": ("seed", "report", "contamination"),
}
"""What a command tells of a workspace's config where it is not what was composed; others tell all."""


def recall(
    config: DictConfig, command: str, named: Iterable[Sequence[str]], say: Callable[[str], object]
) -> DictConfig:
    """Return a config with the workspace's own sections in place of those that the command line does not name.

    Args:
        config: composed, interpolations not resolved.
        command: that runs.
        named: keys of the command line, each as its steps; one of a single step names a whole section.
        say: takes a line about what came from the workspace, and about what the command line changes.

    Raises:
        TableError: the table cannot be read.
    """
    stored, mine = _stored("" if config.get("merge") else str(config.get("root") or ""))
    if not stored:
        return config
    keys = [list(steps) for steps in named]
    taken, changed = [], []
    composed = _sections(config, stored)
    for section, value in stored.items():
        whole = [section] in keys
        own = composed[section] if whole else _with(value, composed[section], [k[1:] for k in keys if k[0] == section])
        used = section in TOLD.get(command, SECTIONS["run"])
        if not mine and _doubted(str(config["root"]), section, own, composed[section], used=used):
            continue
        if used:
            if _told(own) != _told(value):
                changed.append(f"{_words(section, own, value)} (not {_words(section, value, own)})")
            elif _told(own) != _told(composed[section]):
                taken.append(_words(section, own, composed[section]))
        if section in GROUPS and not whole and isinstance(own, dict) and own == value:
            own = {**own, DEFAULT: True}  # nothing in it is named: a step takes all that is there
        OmegaConf.update(config, section, own, merge=False, force_add=True)
        _open(config[section], parts=section in GROUPS)
    if taken:
        say(f"as this workspace was made: {', '.join(taken)}")
    changed = [words for words in changed if words.partition("=")[0] not in GROUPS]  # naming some of many is usual
    if changed:
        say(f"other than this workspace was made: {', '.join(changed)}")
    return config


def own_parts(arguments: Sequence[str], default: str) -> dict[str, dict[str, Any]]:
    """Return the parts that the workspace of a command line was made with, by group and name.

    Args:
        arguments: of the command line.
        default: root where they name none.
    """
    roots = [argument.partition("=")[2].strip("'\"") for argument in arguments if argument.startswith("root=")]
    stored, mine = _stored(roots[-1] if roots else default)
    found = {group: _told(stored.get(group)) for group in GROUPS}
    return {
        group: {name: part for name, part in parts.items() if mine or not _reaching(part, None, [group, name], part)}
        for group, parts in found.items()
        if isinstance(parts, dict)
    }


def remember(config: DictConfig, command: str) -> None:
    """Keep the sections of a command's config in the workspace; those of other commands stay.

    Args:
        config: composed, interpolations not resolved.
        command: that has been run; one that `SECTIONS` does not name leaves the table as it is.
    """
    if command not in SECTIONS or config.get("dry_run"):
        return
    workspace = Workspace(str(config["root"]))
    kept = _kept(workspace) | {
        name: _absolute(value, [name], value) for name, value in _sections(config, SECTIONS[command]).items()
    }
    _write(workspace, kept)


def remember_parts(workspace: Workspace, section: str, parts: Mapping[str, Any]) -> None:
    """Add named parts to a section that the workspace keeps; one that it does not keep stays so."""
    kept = _kept(workspace)
    if isinstance(kept.get(section), dict):
        _write(workspace, {**kept, section: {**kept[section], **parts}})


def _kept(workspace: Workspace) -> dict[str, Any]:
    """Return what goes on to be kept: of what somebody else recorded only what reaches nothing, for it is signed."""
    stored, mine = _stored(str(workspace.root))
    return {name: value for name, value in stored.items() if mine or not _reaching(value, None, [name], value)}


def _write(workspace: Workspace, sections: Mapping[str, Any]) -> None:
    frame = _frame(sections)
    workspace.write("config", frame, mine=sign(*_facts(frame)))


def _facts(frame: pd.DataFrame) -> list[str]:
    pairs = sorted(zip(frame["section"], frame["value"], strict=True))
    return ["config", *(text for pair in pairs for text in pair)]


def _open(section: Any, *, parts: bool) -> None:
    """Let any key be set in a section, and in its parts, as in a composed one."""
    for node in [section, *(section.values() if parts and section else ())]:
        if isinstance(node, DictConfig):
            OmegaConf.set_struct(node, False)


def _stored(root: str) -> tuple[dict[str, Any], bool]:
    """Return the sections that a workspace keeps, and whether this user recorded them."""
    if not root or not table_path(Path(root).expanduser(), "config").is_file():
        return {}, True
    try:
        frame = read_table(Path(root).expanduser(), "config")
        signature = read_metadata(Path(root).expanduser(), "config").get("mine")
    except TableError as error:  # nothing else holds what it said, and a guess could rebuild the set from other images
        reason = str(error).rpartition(";")[0] or str(error)
        raise TableError(f"{reason}; delete it and name the keys of this workspace once more") from None
    with parsing(table_path(Path(root).expanduser(), "config"), TableError, "delete it and name the keys once more"):
        sections = {name: json.loads(value) for name, value in zip(frame["section"], frame["value"], strict=True)}
    known = {name: value for name, value in sections.items() if name in SECTIONS["run"]}
    return known, is_signed(signature, *_facts(frame))


def _doubted(root: str, section: str, own: Any, composed: Any, *, used: bool) -> bool:
    """Return whether a section that somebody else recorded is left alone.

    Raises:
        ConfigError: the command needs the section.
    """
    found = _reaching(own, composed, [section], own)
    if found and used:
        raise ConfigError(
            f"{root}: somebody else, or another machine, recorded {found}, which could run a program or read files of "
            f"yours: name it yourself, or {section}=… as you want it"
        )
    return bool(found)


def _reaching(value: Any, composed: Any, steps: Sequence[str], options: Any) -> str | None:
    """Return what in a section names a program, a file or a variable of the environment, as ``key=value``.

    Args:
        value: a section or a part of it.
        composed: the same as the user's own config has it: what is there is his.
        steps: its key.
        options: see `_absolute`.
    """
    if value == composed:
        return None
    if isinstance(value, dict) and (runs := next((key for key in _RUNS if value.get(key)), None)):
        return f"{'.'.join([*steps, runs])}={told_value(value[runs])}"  # before anything that it names is imported
    if isinstance(value, (dict, list)):
        of_part = len(steps) == 1 and steps[0] in GROUPS
        items = value.items() if isinstance(value, dict) else [(str(place), item) for place, item in enumerate(value)]
        there = composed if isinstance(composed, dict) else {}
        found = (_reaching(item, there.get(name), [*steps, name], item if of_part else options) for name, item in items)
        return next(filter(None, found), None)
    known = kind_at_key(steps, options if isinstance(options, dict) else {})
    text = value if isinstance(value, str) else ""
    reaches = (
        (steps[-1] == "name" and text == "command")
        or (bool(text) and (Path in alternatives(known) or steps[-1].endswith(("path", "folder", "file", "dir"))))
        or text.startswith("~")
        or any(letter in text for letter in ("/", "\\", "\0"))
        or ("${" in text and ":" in text)
    )
    return f"{'.'.join(steps)}={told_value(value)}" if reaches else None


_RUNS = ("_target_", "recipe", "commands", "command", "allow_remote_code", "python")
"""Options that name what is run."""


def _frame(sections: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    values = [json.dumps(value, sort_keys=False) for value in sections.values()]
    return pd.DataFrame({"section": list(sections), "value": values}, dtype=object)


def _sections(config: DictConfig, names: Iterable[str]) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {name: plain.get(name) for name in names}


def _with(value: Any, composed: Any, keys: Sequence[Sequence[str]]) -> Any:
    """Return a stored section with what the command line names inside it."""
    for steps in keys:
        value = _put(value, composed, steps)
    return value


def _put(value: Any, composed: Any, steps: Sequence[str]) -> Any:
    if not steps:
        return composed
    held = dict(value) if isinstance(value, dict) else {}
    there = composed if isinstance(composed, dict) else {}
    if steps[0] not in there:  # taken out with ~
        held.pop(steps[0], None)
        return held
    return {**held, steps[0]: _put(held.get(steps[0]), there[steps[0]], steps[1:])}


def _absolute(value: Any, steps: Sequence[str], options: Any) -> Any:
    """Return a value whose relative paths are absolute, so that another working folder finds them.

    Args:
        value: a section or a part of it.
        steps: its key.
        options: of the part, such as ``restorer.mine``, or of the section that it lies in.
    """
    if isinstance(value, dict):
        of_part = len(steps) == 1 and steps[0] in GROUPS
        return {name: _absolute(item, [*steps, name], item if of_part else options) for name, item in value.items()}
    if isinstance(value, str) and value:
        known = kind_at_key(steps, options if isinstance(options, dict) else {})
        path = Path(value).expanduser()
        named = Path in alternatives(known) or value.endswith((".yaml", ".yml"))  # of a degradation, a recipe
        return str(path.absolute()) if named and path.exists() else value
    return value


def _told(value: Any) -> Any:
    return {key: item for key, item in value.items() if key != DEFAULT} if isinstance(value, dict) else value


def _words(section: str, value: Any, other: Any) -> str:
    """Return a section as the command line has it: what was chosen, or else where it differs from another."""
    if section in GROUPS and isinstance(value, dict):
        return f"{section}=[{','.join(_told(value))}]"
    if not isinstance(value, dict):
        return f"{section}={told_value(value)}"
    there = other if isinstance(other, dict) else {}
    if value.get("name") != there.get("name"):
        return f"{section}={value.get('name')}"
    differing = [key for key in value if value[key] != there.get(key)]
    return ", ".join(_words(f"{section}.{key}", value[key], there.get(key)) for key in differing) or section
