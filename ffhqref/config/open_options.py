"""Options that a config file does not list: those of a constructor, given on the command line like any other key.

Hydra takes a key that no file has with a plus alone (``+restorer.mine.amount=0.8``). The parts of some groups are
constructors, whose options are known without a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ffhqref.core.errors import ConfigError, FfhqrefError, did_you_mean

GROUPS = ("restorer", "metric", "synthesis")
"""Groups whose second level holds options of a constructor (of `synthesis`, `renderer` alone)."""


def with_open_options(error: Exception, config_folder: Path, overrides: Sequence[str]) -> list[str] | None:
    """Return the overrides with a plus where Hydra refused an option of a constructor; None for other errors.

    Args:
        error: what Hydra raised.
        config_folder: where the configs lie.
        overrides: of the command line.

    Raises:
        ConfigError: the constructor has no such option.
    """
    refused = re.search(r"Could not override '([^']+)'", str(error))
    missing = re.search(r"full_key: (\S+)", f"{error} {error.__cause__}")
    if not refused or not missing:
        return None
    key = refused.group(1)
    group, part, *options = f"{key}..".split(".")
    positions = [index for index, override in enumerate(overrides) if override.partition("=")[0] == key]
    if group == "benchmark" and part and options == ["", ""] and positions:
        given = all(overrides[index].partition("=")[2].lstrip().startswith("{") for index in positions)
        return [f"+{item}" if index in positions else item for index, item in enumerate(overrides)] if given else None
    known_part = len(missing.group(1).split(".")) > 2
    if group not in GROUPS or (group == "synthesis" and part != "renderer"):
        return None
    if not options[0] or not known_part or not positions:
        return None
    others = [item for item in overrides if _is_override(item) and not _below(item, f"{group}.{part}")]
    _check(group, part, options[0], config_folder, others)
    return [f"+{item}" if index in positions else item for index, item in enumerate(overrides)]


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def _below(override: str, key: str) -> bool:
    return override.lstrip("+~").startswith(f"{key}.")


def _check(group: str, part: str, option: str, config_folder: Path, overrides: Sequence[str]) -> None:
    """Refuse an option that the part's constructor does not have; one that cannot be asked is not checked here."""
    from hydra.errors import HydraException

    try:
        known = _options_of(group, part, config_folder, overrides)
    except (FfhqrefError, HydraException):  # it is told when the part is made, or the rest of the config is wrong
        return
    if known is not None and option not in known:
        names = [name for name in known if name not in ("runtime", "device")]
        raise ConfigError(
            f"unknown key '{group}.{part}.{option}'.{did_you_mean(option, names)} Its options: "
            f"{', '.join(names) or 'none'}"
        )


def _options_of(group: str, part: str, config_folder: Path, overrides: Sequence[str]) -> list[str] | None:
    """Return the names of a constructor's options, None where it takes any."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from ffhqref import metrics, restorers, synthesis
    from ffhqref.core.options import options_of
    from ffhqref.core.registry import Registry, load_attribute

    registries: Mapping[str, Registry[Callable[..., Any]]] = {
        "restorer": restorers.RESTORERS, "metric": metrics.METRICS, "synthesis": synthesis.RENDERERS,
    }  # fmt: skip
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder), version_base="1.3"):
        options = compose("config", list(overrides))[group][part] or {}
    target = options.get("_target_")
    name = str(options.get("name") or part)
    factory = load_attribute(str(target), f"{group} '{part}'") if target else registries[group].get(name)
    model = options_of(factory)
    return None if model.model_config["extra"] == "allow" else list(model.model_fields)
