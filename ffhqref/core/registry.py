"""One small generic registry: lazy "module:attribute" entries, entry points, did-you-mean errors."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from ffhqref.core import parsing
from ffhqref.core.conf import conf_folder
from ffhqref.core.errors import ConfigError, DependencyError, did_you_mean, one_line
from ffhqref.core.options import check_options, options_of

T = TypeVar("T")
R = TypeVar("R")


class Registry(Generic[T]):
    """Names of one kind of thing, imported only when asked for.

    Args:
        kind: what is registered, in the words of an error message ("restorer").
        entries: name to ``"module:attribute"``.
        entry_point_group: group through which other packages add names. A built-in name cannot be replaced.
        conf: group of config files, conf/<group>/*.yaml, which are built-in names too: `get` returns what a file holds.

    The object is immutable after construction, apart from reading the entry points once on first use.
    """

    def __init__(
        self, kind: str, entries: Mapping[str, str], entry_point_group: str | None = None, conf: str | None = None
    ) -> None:
        self.kind = kind
        files = (conf_folder() / conf).glob("*.yaml") if conf else ()
        self._builtin = {**entries, **{file.stem: str(file) for file in files if file.stem != "default"}}
        self._group = entry_point_group
        self._plugins: dict[str, importlib.metadata.EntryPoint] | None = None

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        if self._plugins is None:
            found: dict[str, importlib.metadata.EntryPoint] = {}
            if self._group:
                for point in importlib.metadata.entry_points(group=self._group):
                    if point.name in self._builtin:
                        raise ConfigError(
                            f"{self.kind} '{point.name}' from entry point '{point.value}' has the name of a "
                            f"built-in one; rename it in that package's '{self._group}' entry points"
                        )
                    found[point.name] = point
            self._plugins = found
        return self._plugins

    def names(self) -> list[str]:
        """Return all known names, built-in ones first, each group sorted."""
        return sorted(self._builtin) + sorted(self._entry_points())

    def plugin_names(self) -> list[str]:
        """Return the names that come from other packages, sorted."""
        return sorted(self._entry_points())

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._entry_points()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def get(self, name: str) -> T:
        """Import and return the object registered as ``name``.

        Raises:
            ConfigError: no such name (with the nearest one), or the plug-in does not import.
            DependencyError: a package that the built-in entry needs is not installed.
        """
        if self._builtin.get(name, "").endswith(".yaml"):
            return cast("T", read_yaml(Path(self._builtin[name]), self.kind))
        if name in self._builtin:
            return cast("T", load_attribute(self._builtin[name], f"{self.kind} '{name}'"))
        points = self._entry_points()
        if name in points:
            try:
                return cast("T", points[name].load())
            except Exception as error:  # a plug-in may fail in any way
                raise ConfigError(
                    f"{self.kind} '{name}' (entry point '{points[name].value}') does not import: {one_line(error)}"
                ) from error
        raise ConfigError(
            f"unknown {self.kind} '{name}'.{did_you_mean(name, self.names())} Known: {', '.join(self.names())}"
        )

    def make(self: Registry[Callable[..., R]], name: str, **options: Any) -> R:
        """Return what the factory registered as ``name`` makes of the options.

        A null that the factory does not know is left out: config files list keys that most names have.

        Raises:
            ConfigError: no such name, or an option that the factory does not know or misses.
            DependencyError: see `get`.
        """
        factory = self.get(name)
        known = options_of(factory).model_fields
        given = {key: value for key, value in options.items() if value is not None or key in known}
        check_options(factory, f"{self.kind} '{name}'", given)
        return factory(**given)


def read_yaml(file: Path, what: str) -> dict[str, Any]:
    """Return the named options that a YAML file holds.

    Args:
        file: to read.
        what: it describes, for messages.

    Raises:
        ConfigError: no such file, no YAML, or no named options.
    """
    found = parsing.read_yaml(file, ConfigError, f"{what} takes named options in YAML")
    if not isinstance(found, dict):
        raise ConfigError(f"{what}: {file} holds no named options, expected lines KEY: VALUE")
    return {str(key): value for key, value in found.items()}


def load_attribute(target: str, what: str) -> Any:
    """Import ``"module:attribute"`` (a dot before the attribute is accepted too).

    Raises:
        ConfigError: the module or the attribute does not exist.
        DependencyError: the module exists and needs a package that is not installed.
    """
    module_name, _, attribute = target.partition(":") if ":" in target else target.rpartition(".")
    if not module_name:
        raise ConfigError(f"{what}: '{target}' names no module: package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            raise ConfigError(f"{what}: no module '{missing}' (from '{target}')") from error
        raise DependencyError(
            f"{what} needs the package '{missing}', which is not installed: pip install '{missing}' (or 'ffhqref[all]')"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ConfigError(f"{what}: module '{module_name}' has no '{attribute}'") from error
