"""Errors of Hydra and OmegaConf, told in one line: what is wrong, where, and the nearest right name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ffhqref.errors import did_you_mean


def explain(error: Exception, config_folder: Path) -> str:
    """Return the explanation of an error that composing a config raised.

    Args:
        error: from Hydra or OmegaConf.
        config_folder: where the configs lie, for suggestions.
    """
    text = " ".join(str(error).split())
    option = re.search(r"Could not (?:find|load) '([\w@-]+)/([^']+)'", text)
    if option:
        group, name = option.groups()
        known = sorted(path.stem for path in (config_folder / group).glob("*.yaml"))
        return f"unknown {group} '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}"
    group_name = re.search(r"Could not override '([^']+)'\. ?No match in the defaults list", text)
    if group_name:
        return _unknown_key(group_name.group(1), config_folder)
    key = re.search(r"Could not (?:override|append value to|delete from config\.) '?([^' ]+)", text)
    if key:
        return _unknown_key(key.group(1).rstrip("."), config_folder)
    return f"config: {text.split(' See https')[0]}"


def _unknown_key(key: str, config_folder: Path) -> str:
    known = _known_keys(config_folder)
    return f"unknown key '{key}'.{did_you_mean(key, known)} All keys: ffhqref run --cfg job"


def _known_keys(config_folder: Path) -> list[str]:
    """Return every config group and every dotted key of the default config."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig

    keys = sorted(path.name for path in config_folder.iterdir() if path.is_dir())

    def walk(node: DictConfig, prefix: str) -> None:
        for name in map(str, node):
            keys.append(f"{prefix}{name}")
            child: Any = node._get_node(name)
            if isinstance(child, DictConfig):
                walk(child, f"{prefix}{name}.")

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder), version_base="1.3"):
        walk(compose("config"), "")
    return keys
