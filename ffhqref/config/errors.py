"""Errors of Hydra and OmegaConf, told in one line: what is wrong, where, and the nearest right name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffhqref.config.plugins import choices
from ffhqref.core.errors import did_you_mean

_NO_NAME = "Config group override must be a string or a list"


def is_ours(error: Exception) -> bool:
    """Return whether `explain` knows the error: a plain ValueError may come from anywhere, but one is Hydra's."""
    return type(error) is not ValueError or _NO_NAME in str(error)


def explain(error: Exception, config_folder: Path, overrides: Sequence[str] = ()) -> str:
    """Return the explanation of an error that composing a config raised.

    Args:
        error: from Hydra or OmegaConf.
        config_folder: where the configs lie, for suggestions.
        overrides: the arguments of the command line, to name the one that is wrong.
    """
    text = " ".join(str(error).split())
    if _NO_NAME in text:
        return _no_name(config_folder, overrides)
    unreadable = _unreadable(text, overrides)
    if unreadable:
        return unreadable
    option = re.search(r"Could not (?:find|load) '([\w@/-]+)/([^'/]+)'", text)
    if option:
        group, name = option.groups()
        if name.startswith("submitit_"):
            return f"{group}={name.replace('submitit_', '')} needs the Submitit launcher: pip install 'ffhqref[slurm]'"
        known = choices().get(group) or sorted(path.stem for path in (config_folder / group).glob("*.yaml"))
        return f"unknown {group} '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}"
    group_name = re.search(r"Could not override '([^']+)'\. ?No match in the defaults list", text)
    if group_name:
        return _unknown_key(group_name.group(1), config_folder, overrides)
    key = re.search(r"Could not (?:override|append value to|delete from config\.) '?([^' ]+)", text)
    if key:
        return _unknown_key(key.group(1).rstrip("."), config_folder, overrides)
    return f"config: {text.split(' See https')[0]}"


def explain_launcher(error: Exception) -> str | None:
    """Return the explanation of what went wrong with the jobs of a sweep; None where the error is not Submitit's."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, RuntimeError) and 'detect "srun"' in first:
        return "hydra/launcher=slurm: no Slurm here (srun is not found); run the command on a login node of the cluster"
    if type(error).__module__.partition(".")[0] != "submitit":
        return None
    return f"a job of the sweep came to no end: {first}; finished work is kept, the same command goes on from there"


def _no_name(config_folder: Path, overrides: Sequence[str]) -> str:
    """Explain ``restorer=null`` and the like: the value of a group is no name."""
    for override in overrides:
        group, _, value = override.partition("=")
        parsed = _parsed(override)
        if (config_folder / group).is_dir() and parsed is not None and not isinstance(parsed.value(), (str, list)):
            known = ", ".join(sorted(path.stem for path in (config_folder / group).glob("*.yaml")))
            return f"{group}={value}: expected a name, or a list of them where several can be. Known: {known}"
    return "config: the value of a group must be a name or a list of names"


def _unreadable(text: str, overrides: Sequence[str]) -> str | None:
    """Explain an argument that Hydra's grammar does not take; None when all are taken."""
    for override in overrides:
        key, equals, value = override.partition("=")
        if override.startswith("-") or (not equals and f"'{override}'" not in text) or _parsed(override) is not None:
            continue
        if not equals:
            return f"cannot read '{override}': expected key=value"
        quoted = f'{key}="{value.replace(chr(34), "")}"'
        hint = f": {shlex.quote(quoted)}" if _parsed(quoted) is not None else ""
        return f"cannot read {override}: a value with spaces, quotes, brackets or commas needs quotes of its own{hint}"
    return None


def _parsed(override: str) -> Any:
    """Return Hydra's reading of an override, None when it has none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def _unknown_key(key: str, config_folder: Path, overrides: Sequence[str]) -> str:
    group, _, rest = key.partition(".")
    part = rest.partition(".")[0]
    if (config_folder / group / f"{part}.yaml").is_file() and group in ("benchmark", "restorer", "metric"):
        return f"{key}: {group} '{part}' is not chosen; name it too: {group}=[{part}], with the others that you want"
    known = _known_keys(config_folder, overrides)
    return f"unknown key '{key}'.{did_you_mean(key, known)} All keys: ffhqref run --cfg job"


def _known_keys(config_folder: Path, overrides: Sequence[str]) -> list[str]:
    """Return every config group and every dotted key of the config with the groups that were chosen."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig

    keys = sorted(path.name for path in config_folder.iterdir() if path.is_dir())

    def walk(node: DictConfig, prefix: str) -> None:
        for name in map(str, node):
            keys.append(f"{prefix}{name}")
            child: Any = node._get_node(name)
            if isinstance(child, DictConfig):
                walk(child, f"{prefix}{name}.")

    GlobalHydra.instance().clear()
    choices = [item for item in overrides if (config_folder / item.partition("=")[0]).is_dir()]
    with initialize_config_dir(str(config_folder), version_base="1.3"):
        try:
            walk(compose("config", choices), "")
        except HydraException:  # a choice is wrong too
            walk(compose("config"), "")
    return keys
