"""Where Hydra finds the parts of a config: the YAML files of ``conf`` and of the user, and the registries.

A name that a registry knows needs no file. What a file says is a preset: values that differ from the constructor's
defaults. Sections are open to Hydra, because the models (`ffhqref.config.run`, `ffhqref.config.parts`) judge the keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from ffhqref.config.parts import check_parts, complete, registry
from ffhqref.config.plugins import node
from ffhqref.config.run import RunConfig, read_config
from ffhqref.core.conf import conf_folder
from ffhqref.core.errors import ConfigError
from ffhqref.core.parsing import load_yaml, parsing, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra.core.config_search_path import ConfigSearchPath

    from ffhqref.core.registry import Registry


MANY = ("benchmark", "restorer", "metric")
"""Groups of any number of parts; `default` in them is what a workspace is made with where nothing is named."""

ONE = ("dataset", "embedder", "engine", "synthesis", "train")
"""Groups of which one is chosen."""

_folders: list[Path] = []
_parts: dict[str, dict[str, Any]] = {}
"""Group to the parts of one's own that a workspace was made with: name to options."""


def folders() -> list[Path]:
    """Return the folders that are looked into: those given on the command line, then ours."""
    return [*_folders, conf_folder()]


def register(more: Sequence[Path], parts: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Let Hydra find the parts of a config.

    Args:
        more: folders of the user's own YAML files, first one first.
        parts: those that a workspace was made with, by group and name; they have no file.
    """
    _folders[:] = more
    known = {group: dict(named) for group, named in (parts or {}).items()}
    _parts.clear()
    _parts.update(known)
    Plugins.instance().register(PartSource)
    Plugins.instance().register(PartSearchPath)


def names(group: str) -> list[str]:
    """Return the names that can be chosen in a group, sorted."""
    files = {path.stem for folder in folders() for path in (folder / group).glob("*.yaml")}
    return sorted((files | set(registry(group) or ()) | _parts.get(group, {}).keys()) - {"default"})


def choices() -> dict[str, list[str]]:
    """Return every name that a command line can choose, by kind."""
    from ffhqref.degradation.model import DEGRADATIONS
    from ffhqref.faces import CROPS
    from ffhqref.faces.ages import AGE_MODELS
    from ffhqref.faces.detect import DETECTORS
    from ffhqref.metrics.dataset_metrics import DATASET_METRICS

    others: dict[str, Registry[Any]] = {
        "crop": CROPS, "detector": DETECTORS, "age model": AGE_MODELS, "degradation": DEGRADATIONS,
        "set_metric": DATASET_METRICS,
    }  # fmt: skip
    order = ("dataset", "embedder", "crop", "detector", "age model", "degradation", "benchmark", "restorer", "metric",
             "set_metric", "engine", "synthesis")  # fmt: skip
    return {kind: sorted(others[kind]) if kind in others else names(kind) for kind in order}


def preset(group: str, name: str) -> dict[str, Any]:
    """Return what the file of a part says, as it stands there; empty without one."""
    file = _file(f"{group}/{name}")
    return {} if file is None else read_yaml(file, ConfigError) or {}


def _file(config: str) -> Path | None:
    files = (folder / f"{config}.yaml" for folder in folders())
    return next((file for file in files if file.is_file()), None)


class PartSource(ConfigSource):  # type: ignore[misc] # Hydra has no types
    """The parts of a config for Hydra; other configs come from its own sources."""

    @staticmethod
    def scheme() -> str:
        """Return the scheme of search paths."""
        return "ffhqref"

    def available(self) -> bool:
        """Return True: it is part of the package."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Return whether it is one of the groups."""
        return config_path in (*MANY, *ONE)

    def is_config(self, config_path: str) -> bool:
        """Return whether a group has the name."""
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        if config_path == "config":
            return True
        known = name in (registry(group) or ()) or name in _parts.get(group, {})
        return self.is_group(group) and (_file(f"{group}/{name}") is not None or known)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the names of a group."""
        if results_filter == ObjectType.GROUP:
            return [] if config_path else [*MANY, *ONE]
        return names(config_path) if self.is_group(config_path) else []

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the config of a part."""
        if not self.is_config(config_path):
            raise ConfigLoadError(f"no config {config_path}")
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        file = _file(config_path.removesuffix(".yaml"))
        text = "" if file is None else file.read_text(encoding="utf-8")
        config: Any
        if file is not None and text:
            with parsing(file, ConfigError):
                config = OmegaConf.create(load_yaml(text) or {})
        elif name in (registry(group) or ()) or name not in _parts.get(group, {}):
            config = OmegaConf.create(node(group, name))
        else:
            config = OmegaConf.create({name: _parts[group][name]})
        if group == "config":
            config = OmegaConf.merge(_defaults(), config)
        _open(config, parts=group in (*MANY, "config"))
        return ConfigResult(
            config=config,
            path=f"{self.scheme()}://",
            provider=self.provider,
            header=ConfigSource._get_header_dict(text[:512]),
        )


class PartSearchPath(SearchPathPlugin):  # type: ignore[misc]
    """Puts `PartSource` before Hydra's own sources."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Prepend the source."""
        search_path.prepend("ffhqref", "ffhqref://")


def _open(config: Any, *, parts: bool) -> None:
    """Let Hydra take any key in a section, or in each part of a group of them."""
    for section in [config._get_node(key) for key in config] if parts else [config]:
        if isinstance(section, DictConfig):
            OmegaConf.set_struct(section, False)


def _defaults() -> DictConfig:
    """Return the defaults of the keys of a run; groups come with what is chosen of them."""
    made = RunConfig().model_dump(mode="json", by_alias=True)
    del made["synthesis"]["renderer"]
    chosen = {*MANY, *ONE} - {"synthesis"}
    return OmegaConf.create({key: value for key, value in made.items() if key not in chosen})


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Return the config that a command line composes, as Hydra has it."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register(list(_folders), _parts)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        made: DictConfig = compose("config", list(overrides))
        return made


def printed(config: DictConfig, *, resolve: bool = False) -> str:
    """Return a composed config as YAML, with every option of what is chosen.

    Raises:
        ConfigError: a key or a value is wrong; one line.
    """
    checked = read_config(config)
    check_parts(checked)
    for group, parts in complete(checked).items():
        for part, options in parts.items():
            node = config[group][part] if part else config[group]
            more = OmegaConf.create({key: value for key, value in options.items() if key not in (node or {})})
            config[group] = OmegaConf.merge(config[group], {part: more} if part else more)
    if resolve:
        OmegaConf.resolve(config)
    return OmegaConf.to_yaml(config)
