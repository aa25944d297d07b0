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
from ffhqref.core.errors import TableError
from ffhqref.core.options import alternatives, told_value
from ffhqref.store.tables import read_table, table_path
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
    stored = _stored(str(config.get("root") or ""))
    if not stored or config.get("merge"):
        return config
    keys = [list(steps) for steps in named]
    taken, changed = [], []
    composed = _sections(config, stored)
    for section, value in stored.items():
        whole = [section] in keys
        own = composed[section] if whole else _with(value, composed[section], [k[1:] for k in keys if k[0] == section])
        if section in TOLD.get(command, SECTIONS["run"]):
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
    stored = _stored(roots[-1] if roots else default)
    found = {group: _told(stored.get(group)) for group in GROUPS}
    return {group: parts for group, parts in found.items() if isinstance(parts, dict)}


def remember(config: DictConfig, command: str) -> None:
    """Keep the sections of a command's config in the workspace; those of other commands stay.

    Args:
        config: composed, interpolations not resolved.
        command: that has been run; one that `SECTIONS` does not name leaves the table as it is.
    """
    if command not in SECTIONS or config.get("dry_run"):
        return
    workspace = Workspace(str(config["root"]))
    kept = _stored(str(workspace.root)) | {
        name: _absolute(value, [name], value) for name, value in _sections(config, SECTIONS[command]).items()
    }
    workspace.write("config", _frame(kept))


def remember_parts(workspace: Workspace, section: str, parts: Mapping[str, Any]) -> None:
    """Add named parts to a section that the workspace keeps; one that it does not keep stays so."""
    kept = _stored(str(workspace.root))
    if isinstance(kept.get(section), dict):
        workspace.write("config", _frame({**kept, section: {**kept[section], **parts}}))


def _open(section: Any, *, parts: bool) -> None:
    """Let any key be set in a section, and in its parts, as in a composed one."""
    for node in [section, *(section.values() if parts and section else ())]:
        if isinstance(node, DictConfig):
            OmegaConf.set_struct(node, False)


def _stored(root: str) -> dict[str, Any]:
    if not root or not table_path(Path(root).expanduser(), "config").is_file():
        return {}
    try:
        frame = read_table(Path(root).expanduser(), "config")
    except TableError as error:  # nothing else holds what it said, and a guess could rebuild the set from other images
        reason = str(error).rpartition(";")[0] or str(error)
        raise TableError(f"{reason}; delete it and name the keys of this workspace once more") from None
    return {section: json.loads(value) for section, value in zip(frame["section"], frame["value"], strict=True)}


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
        return str(path.absolute()) if Path in alternatives(known) and path.exists() else value
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
